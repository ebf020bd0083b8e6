"""The reference environment, without TFF and without a network: what is said, made and refused."""

import json
import re
import sys
from pathlib import Path

import pytest

from fedbridge.bridge import reference
from fedbridge.jax_core import ReferenceEnvironmentError


@pytest.fixture(autouse=True)
def _linux(monkeypatch):
    monkeypatch.setattr(reference.platform, "system", lambda: "Linux")
    monkeypatch.setattr(reference.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(reference.platform, "libc_ver", lambda: ("glibc", "2.36"))


@pytest.fixture
def steps(monkeypatch):
    """What the installers would have been told; the first one makes an interpreter."""
    told = []

    def step(command, failure):
        told.append([str(word) for word in command])
        if "venv" in told[-1]:
            interpreter = Path(told[-1][-1], "bin", "python")
            interpreter.parent.mkdir(parents=True, exist_ok=True)
            interpreter.write_text("#!/bin/sh\nexec true\n")
            interpreter.chmod(0o755)

    monkeypatch.setattr(reference, "_step", step)
    monkeypatch.setattr(reference, "_find_uv", lambda: ["uv"])
    monkeypatch.setattr(reference, "_python_311", lambda: "python3.11")
    return told


def _complete(where):
    """A finished environment whose interpreter is the one that runs here."""
    (where / "bin").mkdir(parents=True)
    (where / "bin" / "python").symlink_to(sys.executable)
    reference._write_mark(where, complete=True)
    return where


# ------------------------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    "system, machine", [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "aarch64")]
)
def test_other_platforms_get_a_way_out(monkeypatch, tmp_path, system, machine):
    monkeypatch.setattr(reference.platform, "system", lambda: system)
    monkeypatch.setattr(reference.platform, "machine", lambda: machine)
    words = (
        rf"Linux x86-64 only, and this is {system} {machine}: .*replay.*demo.*work here.*Dockerfile"
    )
    for use in (reference.python, reference.create):
        with pytest.raises(ReferenceEnvironmentError, match=words):
            use(tmp_path / "reference")
    (finding,) = reference.doctor(tmp_path / "reference")
    assert not finding.ok
    assert "Dockerfile" in finding.cure


def test_an_old_c_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(reference.platform, "libc_ver", lambda: ("glibc", "2.28"))
    with pytest.raises(
        ReferenceEnvironmentError, match=r"glibc 2\.31 or newer, and this is glibc 2\.28"
    ):
        reference.python(tmp_path)
    monkeypatch.setattr(reference.platform, "libc_ver", lambda: ("", ""))
    with pytest.raises(ReferenceEnvironmentError, match="this is another C library"):
        reference.python(tmp_path)


def test_absent_and_unfinished(tmp_path):
    with pytest.raises(
        ReferenceEnvironmentError, match="is not there .*fedbridge reference create"
    ):
        reference.python(tmp_path / "none")
    reference._write_mark(tmp_path, complete=False)
    with pytest.raises(ReferenceEnvironmentError, match="was never finished .*reference create"):
        reference.python(tmp_path)
    reference._write_mark(tmp_path, complete=True)
    with pytest.raises(ReferenceEnvironmentError, match="lost its interpreter .*reference create"):
        reference.python(tmp_path)


def test_the_folder_can_be_named(monkeypatch, tmp_path):
    assert reference.folder(tmp_path) == tmp_path
    monkeypatch.setenv("FEDBRIDGE_REFERENCE", str(tmp_path / "named"))
    assert reference.folder() == tmp_path / "named"
    monkeypatch.delenv("FEDBRIDGE_REFERENCE")
    assert reference.folder().parts[-2:] == ("fedbridge", "reference")


# ------------------------------------------------------------------------------------ what is made


def test_sizes_come_first_and_the_mark_last(steps, tmp_path):
    where, said = tmp_path / "reference", []

    def announce(line):
        said.append(line)
        if "download" in line:
            assert not steps
        if "ready" not in line:
            assert not reference._mark(where).get("complete")

    assert reference.create(where, announce=announce) == where / "bin" / "python"
    assert re.search(r"download of 0\.9 GB, 2\.8 GB on disk", said[0])
    assert [words[:3] for words in steps] == [["uv", "venv", "--quiet"], ["uv", "pip", "install"]]
    assert "--no-deps" in steps[-1]
    assert steps[-1][-1] == str(reference.REQUIREMENTS)
    assert reference._mark(where)["complete"]


def test_what_is_there_is_left_alone(steps, tmp_path):
    where = tmp_path / "reference"
    reference.create(where, announce=lambda line: None)
    steps.clear()
    said = []
    reference.create(where, announce=said.append)
    assert steps == []
    assert said == [f"The reference environment is there: {where}"]


def test_another_list_of_packages_makes_it_anew(steps, tmp_path):
    where = tmp_path / "reference"
    reference.create(where, announce=lambda line: None)
    (where / reference._MARK).write_text(json.dumps({"complete": True, "requirements": "older"}))
    (where / "stale").touch()
    steps.clear()
    reference.create(where, announce=lambda line: None)
    assert len(steps) == 2
    assert not (where / "stale").exists()


def test_a_failed_installation_is_not_taken_for_a_finished_one(steps, monkeypatch, tmp_path):
    where, step = tmp_path / "reference", reference._step

    def fails(command, failure):
        if "install" in command:
            raise ReferenceEnvironmentError(failure)
        step(command, failure)

    monkeypatch.setattr(reference, "_step", fails)
    with pytest.raises(ReferenceEnvironmentError, match="packages could not be installed"):
        reference.create(where, announce=lambda line: None)
    with pytest.raises(ReferenceEnvironmentError, match="never finished"):
        reference.python(where)
    monkeypatch.setattr(reference, "_step", step)
    reference.create(where, announce=lambda line: None)
    assert reference.python(where) == where / "bin" / "python"


def test_without_uv_pip_does_it(steps, monkeypatch, tmp_path):
    monkeypatch.setattr(reference, "_find_uv", lambda: None)
    where = tmp_path / "reference"
    reference.create(where, announce=lambda line: None)
    assert steps[0] == ["python3.11", "-m", "venv", str(where)]
    assert steps[1][:4] == [str(where / "bin" / "python"), "-m", "pip", "install"]


def test_without_python_311_uv_is_fetched_to_fetch_one(steps, monkeypatch, tmp_path):
    monkeypatch.setattr(reference, "_find_uv", lambda: None)
    monkeypatch.setattr(reference, "_python_311", lambda: None)
    said = []
    reference.create(tmp_path / "reference", announce=said.append)
    assert any("no Python 3.11 here" in line for line in said)
    assert steps[1][-1] == "uv"
    assert steps[2][1:4] == ["-m", "uv", "venv"]
    assert steps[2][-2:] == ["3.11", str(tmp_path / "reference")]


def test_an_installer_that_fails_is_named(tmp_path):
    with pytest.raises(
        ReferenceEnvironmentError, match=r"it broke \(exit code 3.*check the network"
    ):
        reference._step([sys.executable, "-c", "exit(3)"], "it broke")


# --------------------------------------------------------------------------------- what is refused


def test_a_folder_with_something_else_is_left_alone(steps, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(
        ReferenceEnvironmentError, match="holds something that is no reference env.*--path"
    ):
        reference.create(tmp_path, announce=lambda line: None)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert steps == []


def test_a_full_disk(steps, monkeypatch, tmp_path):
    monkeypatch.setattr(reference, "_free_bytes", lambda where: 10**9)
    with pytest.raises(ReferenceEnvironmentError, match=r"takes 2\.8 GB and .* has 1\.0 GB free"):
        reference.create(tmp_path / "reference", announce=lambda line: None)
    assert not (tmp_path / "reference").exists()


# ------------------------------------------------------------------------------------------ doctor


def test_doctor_says_what_is_wrong_and_how_to_mend_it(tmp_path):
    absent = reference.doctor(tmp_path / "none")
    assert [finding.ok for finding in absent] == [True, True, False]
    assert "absent" in absent[-1].what
    assert "fedbridge reference create" in absent[-1].cure

    where = _complete(tmp_path / "other")
    (where / "bin" / "python").unlink()
    (where / "bin" / "python").write_text("#!/bin/sh\nexit 127\n")
    (where / "bin" / "python").chmod(0o755)
    assert "no Python 3.11" in reference.doctor(where)[-1].what


def test_doctor_finds_wrong_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(reference, "_runs_311", lambda interpreter: True)
    monkeypatch.setattr(reference, "_try_tff", lambda where: reference.Finding(True, "TFF"))
    wrong = "numpy==0.1\nno-such_package==1.0  # a comment\n"
    monkeypatch.setattr(reference, "REQUIREMENTS", tmp_path / "list.txt")
    reference.REQUIREMENTS.write_text(wrong)
    findings = reference.doctor(_complete(tmp_path / "reference"))
    packages = next(finding for finding in findings if finding.what.startswith("packages"))
    assert not packages.ok
    # The stand-in's interpreter may have a numpy of its own, or none.
    numpy = r"numpy is (missing|\S+, not 0\.1)"
    assert re.search(numpy + "; no-such_package is missing", packages.what)


def test_doctor_tells_what_tff_said(monkeypatch, tmp_path):
    where = _complete(tmp_path / "reference")
    monkeypatch.setattr(reference, "_COMPUTE", "raise ImportError('no tensorflow here')")
    finding = reference._try_tff(where)
    assert not finding.ok
    assert "ImportError: no tensorflow here" in finding.what
    monkeypatch.setattr(reference, "_COMPUTE", "import time; time.sleep(60)")
    assert "no answer in 1 s" in reference._try_tff(where, timeout=1).what
    monkeypatch.setattr(reference, "_COMPUTE", "print('fedbridge: computed')")
    assert reference._try_tff(where) == reference.Finding(True, "computed")


# ------------------------------------------------------------------------------------------- child


def test_the_child_sees_our_package_and_nothing_else_of_ours(monkeypatch, tmp_path):
    where = _complete(tmp_path / "reference")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.setenv("PYTHONPATH", "/of/ours")
    monkeypatch.setenv("XLA_FLAGS", "--of_ours")
    log = tmp_path / "log"
    assert reference.run_child("site", path=where, log=log, cwd=here) == 0
    printed = log.read_text()
    assert "/of/ours" not in printed
    assert str(here) not in printed
    assert "fedbridge-" in printed  # the folder with the link
    # The interpreter of this stand-in has no jax; what matters is that it finds the package.
    assert reference.run_child("fedbridge._version", path=where, log=log, cwd=here) != 0
    assert re.search(r"fedbridge-.*fedbridge/__init__\.py", log.read_text())
    assert "XLA_FLAGS" not in reference._child_environment()


# ------------------------------------------------------------------------------------ the list


def test_the_list_is_flat_pinned_and_names_no_index():
    lines = reference.REQUIREMENTS.read_text().split()
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert len(lines) == len(reference._pins())
    pins = reference._pins()
    assert pins["tensorflow-federated"] == "0.87.0"
    assert pins["tensorflow"] == "2.14.1"
    assert pins["jax"] == "0.4.34"
    assert {"jaxtyping", "nbformat", "psutil", "rich", "optax", "numpy"} <= set(pins)

"""Commands that are run to their end, and leave nothing behind."""

import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from fedbridge.bridge import child

# A child that starts another, as TFF starts its worker, tells its number, and goes on or leaves.
_PARENT = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(worker.pid, flush=True)
time.sleep({seconds})
"""


def _is_gone(pid):
    """Whether a process has ended and was reaped: not even a zombie is left."""
    return not psutil.pid_exists(pid)


def _python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


def test_output_and_exit_code(tmp_path):
    log = tmp_path / "log"
    command = _python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    assert child.run(command, log=log) == 7
    assert sorted(log.read_text().split()) == ["err", "out"]


def test_no_worker_survives_a_normal_end(tmp_path):
    log = tmp_path / "log"
    assert child.run(_python(_PARENT.format(seconds=0)), log=log) == 0
    assert _is_gone(int(log.read_text()))


def test_time_limit(tmp_path):
    log = tmp_path / "log"
    assert child.run(_python(_PARENT.format(seconds=600)), log=log, timeout=3) is None
    assert _is_gone(int(log.read_text()))


def test_an_exception_while_polling_ends_everything(tmp_path):
    log = tmp_path / "log"

    def poll():
        if log.read_text():
            raise KeyboardInterrupt  # as Ctrl-C would

    with pytest.raises(KeyboardInterrupt):
        child.run(_python(_PARENT.format(seconds=600)), log=log, poll=poll)
    assert _is_gone(int(log.read_text()))


def test_sigterm_to_us_ends_everything(tmp_path):
    log = tmp_path / "log"
    # By its path: importing the package would take longer than all the rest of this test.
    script = f"""
        import importlib.util, pathlib, sys
        spec = importlib.util.spec_from_file_location("child", {child.__file__!r})
        child = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(child)
        child.run([sys.executable, "-c", {_PARENT.format(seconds=600)!r}],
                  log=pathlib.Path({str(log)!r}))
    """
    ours = subprocess.Popen(_python(script))
    end = time.monotonic() + 60
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < end
        time.sleep(0.05)
    ours.send_signal(signal.SIGTERM)
    assert ours.wait(timeout=30) == 128 + signal.SIGTERM
    assert _is_gone(int(log.read_text()))


def test_handlers_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    child.run(_python("pass"), log=tmp_path / "log")
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_last_poll_sees_the_whole_log(tmp_path):
    log, seen = tmp_path / "log", []
    child.run(_python("print('last words')"), log=log, poll=lambda: seen.append(log.read_text()))
    assert seen[-1] == "last words\n"

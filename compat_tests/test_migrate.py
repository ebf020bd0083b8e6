"""A migrated script computes what the script computes under the real TFF."""

import re

import pytest

from compat_tests.corpus.__main__ import SCRIPTS, run
from compat_tests.test_corpus import assert_same_output
from fedbridge.bridge.migrate import migrate

SHAPES = ("tutorial_2021", "sampling_2023", "prox_2024")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the migrated scripts printed, by the name of the old one."""
    folder = tmp_path_factory.mktemp("migrated")
    scripts = [folder / f"{name}.py" for name in SHAPES]
    for script in scripts:
        script.write_text(migrate(SCRIPTS / script.name).text)
    code, texts, said = run(*scripts)
    assert code == 0, said
    return dict(zip(SHAPES, texts, strict=True))


@pytest.mark.parametrize("name", SHAPES)
def test_a_migrated_script_prints_what_tff_prints(name, printed):
    expected = (SCRIPTS / f"{name}.tff.txt").read_text()
    expected = re.sub(r"^b'Hello.*\n", "", expected)  # a test of the installation is left out
    assert_same_output(printed[name], expected, "")

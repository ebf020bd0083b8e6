"""Runs one script under the real TFF, old names and all, what it prints going to a file.

python -m compat_tests.corpus.under_tff FOLDER SCRIPT
"""

import contextlib
import sys
import tempfile
from pathlib import Path

from fedbridge.bridge import recorder

folder, script = sys.argv[1:]
with (
    Path(folder, Path(script).name).with_suffix(".txt").open("w") as file,
    contextlib.redirect_stdout(file),
    tempfile.TemporaryDirectory() as scratch,
):
    files = ["--out", f"{scratch}/out", "--events", f"{scratch}/events"]
    code = recorder.main(["--mode", "time", "--script", script, *files])
sys.exit(code)

"""Runs one script under the real TFF, old names and all, what it prints going to a file.

python -m compat_tests.corpus.under_tff FOLDER SCRIPT
"""

import atexit
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from fedbridge.bridge import recorder, script as scripts
from fedbridge.bridge.lint import lint
from fedbridge.bridge.watch import Timing

folder, script = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(recorder._end_workers)
os.environ.setdefault("MPLBACKEND", "Agg")
with (
    Path(folder, Path(script).name).with_suffix(".txt").open("w") as file,
    contextlib.redirect_stdout(file),
    tempfile.TemporaryDirectory() as scratch,
):
    programs = "tff.learning.programs."
    if not any(name.symbol.startswith(programs) for name in lint(script).names):
        # A script without a round to watch, such as one of personalization, is fine here; one whose
        # rounds are awaited is of TFF's last years, and needs no older names.
        recorder.install().watch = Timing(Path(scratch, "events"), None)
    scripts.run(script, [])

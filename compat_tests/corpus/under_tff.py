"""Runs one script under the real TFF, old names and all, what it prints going to a file.

python -m compat_tests.corpus.under_tff FOLDER SCRIPT
"""

import atexit
import contextlib
import signal
import sys
from pathlib import Path

from fedbridge.bridge import recorder, script as scripts
from fedbridge.bridge.watch import Timing

folder, script = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(recorder.end_workers)
with (
    Path(folder, Path(script).name).with_suffix(".txt").open("w") as file,
    contextlib.redirect_stdout(file),
):
    recorder.install().watch = Timing(None, None)
    scripts.run(script, [])

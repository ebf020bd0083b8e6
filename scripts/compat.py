"""Runs compat_tests/ in the reference environment, with this working tree's fedbridge.

    python scripts/compat.py [PYTEST ARGUMENTS]

Output goes through a file, which this script copies as it grows, because a process of TFF's keeps
every pipe open that it inherits; and none of its processes is left when this script ends.
"""

import os
import sys
import tempfile
from pathlib import Path

from fedbridge.bridge import reference

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"

env = {"TF_CPP_MIN_LOG_LEVEL": "2"}
if "FEDBRIDGE_DATA" not in os.environ and DATA.is_dir():
    env["FEDBRIDGE_DATA"] = str(DATA)

with tempfile.TemporaryDirectory(prefix="fedbridge-") as scratch:
    log = Path(scratch, "log")
    log.touch()
    with log.open(errors="replace") as grown:

        def copy():
            sys.stdout.write(grown.read())
            sys.stdout.flush()

        arguments = sys.argv[1:] or ["-q"]
        code = reference.run_child(
            "pytest",
            [str(ROOT / "compat_tests"), *arguments],
            log=log,
            env=env,
            cwd=ROOT,
            poll=copy,
        )
sys.exit(1 if code is None else abs(code))

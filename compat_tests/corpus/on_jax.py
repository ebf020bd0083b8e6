"""Runs scripts on JAX, what each prints going to a file: `FOLDER SCRIPT ...`.

One after the other in one process, since TensorFlow alone takes seconds to import.
"""

import contextlib
import sys
from pathlib import Path

from fedbridge.jax_core import FedbridgeError, use_cores
from fedbridge.tff._run import run

use_cores()
folder, *scripts = sys.argv[1:]
codes = []
for script in scripts:
    if "tensorflow" in sys.modules:  # a seed that one script sets is none of the next one's
        sys.modules["tensorflow"].random.set_seed(None)
    printed = Path(folder, Path(script).name).with_suffix(".txt")
    with printed.open("w") as file, contextlib.redirect_stdout(file):
        try:
            codes.append(run(script))
        except FedbridgeError as error:
            print(f"fedbridge: {error}", file=sys.stderr)
            codes.append(2)
sys.exit(max(codes))

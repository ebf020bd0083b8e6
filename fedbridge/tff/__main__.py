"""`python -m fedbridge.tff SCRIPT [ARGS]`: `fedbridge run`, without what the command line needs."""

import sys

from fedbridge.jax_core import FedbridgeError
from fedbridge.tff._run import run

if len(sys.argv) < 2:
    sys.exit("usage: python -m fedbridge.tff SCRIPT [ARGS]")
try:
    arguments = sys.argv[2:]
    code = run(sys.argv[1], arguments[1:] if arguments[:1] == ["--"] else arguments)
except FedbridgeError as error:
    print(f"fedbridge: {error}", file=sys.stderr)
    code = 2
sys.exit(code)

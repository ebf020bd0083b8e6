"""Writes docs/parity.md: the parity matrix as this machine replays it.

python scripts/parity_docs.py
"""

import sys
from pathlib import Path

from fedbridge.bridge import parity, parity_tables
from fedbridge.bridge.files import replace_text

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# The parity matrix

Each cell is a few rounds of the real TFF 0.87.0, recorded with everything that they need, and
repeated on the JAX core from TFF's own states. A mark means that a cell agrees: after one local
step within 1e-6 of the update (5e-6 where an optimizer is adaptive), after the whole round within
1e-6 or ten times the noise floor, with equal counters, with TFF's names and dtypes in the state
and in the metrics, and with TFF's first state, but for the model's weights. Whether a list or a
tuple holds a part of a state, a trace does not tell: that is compared live, where TFF loads the
states of every algorithm and aggregator (`compat_tests/test_program_state.py`). An adaptive
optimizer on the server divides even rounding by itself, so the probes of such cells may be off by
ten times their own noise floor, and what decides is the server's step alone, on an update that
TFF's optimizer was given too: within 1e-6. Where a part is random, 20 draws of fedbridge's for
each of TFF's are compared by the two-sample Kolmogorov-Smirnov test, signed and in size, at
p > 1e-4.

`fedbridge parity` repeats all of it anywhere, without TensorFlow; `--json` and `--html` save the
errors of every cell. `make parity` also compares the tables of this page. `make traces` records all
rows anew from TFF and writes this page; every run of the project's tests repeats a fixed tenth of
them, and records a random tenth anew.

A row is named by its algorithm and its parts: `weighted_fedavg.client_adam`, `fedsgd.server_yogi`,
`weighted_mimelite.both_sgd_sgd.clipping_fixed.lstm`, `k_means.cases`. `fedbridge parity --only
TEXT` repeats the rows with TEXT in their names.

"""

result = parity.parity(on_event=lambda event: print(".", end="", flush=True))
page, text = ROOT / "docs" / "parity.md", HEAD + parity_tables.markdown(result)
print(f"\n{parity_tables.summary(result)}", *parity_tables.failures(result), sep="\n")
tables = lambda text: text[text.index("\n## ") :]
if "--check" not in sys.argv:
    replace_text(page, text)
elif tables(page.read_text(encoding="utf-8")) != tables(text):
    sys.exit(f"{page} is not what this run gives: write it with `scripts/parity_docs.py`.")
sys.exit(0 if all(cell.passed for cell in result.cells) else 1)

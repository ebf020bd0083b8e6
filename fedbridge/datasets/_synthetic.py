"""TFF's small synthetic data sets, which need no file: `get_synthetic` of every data set.

`synthetic.npz` and `synthetic.json` hold what TFF 0.87.0's functions of that name return
(simulation/datasets/*.py; copyright The TensorFlow Federated Authors, Apache-2.0).
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

_FOLDER = Path(__file__).parent


def images(name: str) -> np.ndarray:
    """An array of `synthetic.npz`."""
    with np.load(_FOLDER / "synthetic.npz", allow_pickle=False) as stored:
        return stored[name]


@functools.cache
def texts() -> dict[str, Any]:
    """The content of `synthetic.json`."""
    return json.loads((_FOLDER / "synthetic.json").read_text(encoding="utf-8"))

"""Rounds of one process of TFF and one of fedbridge, each round from TFF's own state.

What TFF starts from is its state after a conversion to fedbridge's and back.
"""

import numpy as np

import fedbridge as fb
from fedbridge import jax_core as fc
from fedbridge.bridge.structures import leaves

WEIGHTS = "global_model_weights"


def compare_rounds(theirs, ours, rounds, dataset, batches):
    """Runs the rounds and asserts that states and metrics are TFF's: trees, dtypes and numbers.

    Args:
        theirs: TFF's process.
        ours: The same of fedbridge.
        rounds: The clients of each round: columns of arrays each.
        dataset: From a client's columns to what TFF takes.
        batches: The pipeline that does the same.

    Returns:
        The largest error found in weights, in parts of the update.
    """
    state, worst = theirs.initialize(), 0.0
    mine = fb.from_tff_state(state, ours.initialize())
    for number, clients in enumerate(rounds):
        nobody = {name: column[:0] for name, column in rounds[0][0].items()}
        data = fb.from_clients({f"c{i}": c for i, c in enumerate(clients)} or {"nobody": nobody})
        cohort = data.cohort(data.client_ids if clients else [], batches)
        handed_over = fb.to_tff_state(mine, like=state)
        for path, leaf in leaves(state).items():
            np.testing.assert_array_equal(leaves(handed_over)[path], leaf, err_msg=path)
        expected = theirs.next(handed_over, [dataset(client) for client in clients])
        after, metrics = ours.next(mine, cohort)

        start, end = leaves(state), leaves(expected.state)
        weights = [path for path in end if path.startswith(WEIGHTS)]
        norm = np.linalg.norm([np.linalg.norm(_finite(end[k] - start[k])) for k in weights])
        # `from_tff_state` compares the trees; here the dtypes and the numbers.
        wanted = fb.from_tff_state(expected.state, after)
        for path, leaf in fc.named_leaves(wanted).items():
            scale = norm if path.startswith(WEIGHTS) else np.linalg.norm(_finite(leaf))
            error = same(fc.named_leaves(after)[path], leaf, scale, (number, path))
            worst = max(worst, error if path.startswith(WEIGHTS) else 0.0)
        found = fc.named_leaves(metrics)
        assert list(found) == list(leaves(expected.metrics)), number
        for path, value in leaves(expected.metrics).items():
            assert found[path].dtype == value.dtype, (number, path)
            same(found[path], value, np.abs(_finite(value)).max(initial=0), (number, path))
        # A state that TFF has turned into NaN for ever is looked at once, then left.
        if all(np.isfinite(leaf).all() for leaf in end.values()):
            state, mine = expected.state, wanted
    return worst


def same(ours, theirs, scale, where):
    """Asserts 1e-6 of the scale and 2 ulp, NaN where NaN is; returns the error in parts of it."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs)
    allowed = 1e-6 * scale + 2 * np.spacing(np.abs(theirs).astype(np.float32)).astype(float)
    nan = np.isnan(theirs)
    assert np.array_equal(np.isnan(ours), nan), (where, ours, theirs)
    error = np.abs(ours - theirs)[~nan]
    assert (error <= allowed[~nan]).all(), (where, ours, theirs)
    return float(error.max(initial=0) / scale) if scale else 0.0


def _finite(leaf):
    return np.nan_to_num(np.asarray(leaf, float), nan=0, posinf=0, neginf=0)

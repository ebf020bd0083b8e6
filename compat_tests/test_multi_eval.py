"""Evaluation that samples clients, against TFF's aggregation process.

TFF 0.87.0 has the factory, and its evaluation refuses it; so the process is run on its own. Which
clients are drawn is either side's own affair; here the sample holds them all.
"""

import collections

import jax
import numpy as np
import pytest
from test_fed_recon import _arrays, _dataset, _keras_model, _loss, _metrics

import fedbridge as fb
from fedbridge import jax_core as fc

SIZES = [[9, 0, 5], [13, 1]]


def test_samples_over_rounds_are_tffs(tff):
    import tensorflow as tf

    spec = _dataset(_arrays(1, 0)).element_spec

    def model_fn():
        return tff.learning.models.from_keras_model(
            _keras_model(), _loss(), spec, metrics=_metrics()
        )

    with tf.Graph().as_default():
        model = model_fn()
        found = model.report_local_unfinalized_metrics()
        finalizers = model.metric_finalizers()
        types = tf.nest.map_structure(lambda v: tff.types.TensorType(v.dtype.as_numpy_dtype), found)
    unfinalized = tff.types.StructWithPythonType(types, collections.OrderedDict)
    sample = tff.learning.metrics.FinalizeThenSampleFactory(9).create(finalizers, unfinalized)
    # Its state starts with shapes [0], and comes back with unknown ones.
    with pytest.raises(TypeError, match="must be assignable to its first input argument"):
        tff.learning.algorithms.build_fed_eval(model_fn, metrics_aggregation_process=sample)

    model = fb.from_keras(_keras_model(), _loss(), _metrics())
    ours = fb.algorithms.fed_eval(model, metrics_aggregator=fc.sample_over_rounds(9))
    alone = fb.algorithms.fed_eval(model)
    their_state, state = sample.initialize(), ours.initialize()
    fb.from_tff_state(their_state, state.client_work)  # raises where the trees or shapes differ
    for number, sizes in enumerate(SIZES):
        data = fb.from_clients(
            {f"c{i}": _arrays(size, 10 * number + i) for i, size in enumerate(sizes)}
        )
        cohorts = [data.cohort([client], fb.Batches(4)) for client in data.client_ids]
        totals = [alone.next(alone.initialize(), c).state.client_work[1] for c in cohorts]
        expected = sample.next(their_state, totals)
        output = ours.next(state, data.cohort(data.client_ids, fb.Batches(4)))
        their_state, state = expected.state, output.state
        fb.from_tff_state(their_state, state.client_work)
        metrics = output.metrics["client_work"]["eval"]
        names = ("current_round_metrics", "total_rounds_metrics")
        for name, theirs in zip(names, expected.result, strict=True):
            assert list(metrics[name]) == list(theirs)
            mine, first = (np.argsort(m["num_examples"]) for m in (metrics[name], theirs))
            for a, b in zip(jax.tree.leaves(metrics[name]), jax.tree.leaves(theirs), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a[mine], b[first], rtol=1e-6)

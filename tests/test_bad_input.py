"""Bad input of every kind: one sentence with the argument, its value, and what is allowed.

Where a process is built, if that is possible; else when the round begins that it would spoil. The
files of the single parts test more of each; here stand all kinds beside each other.
"""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from problems import CLASSES, INPUTS, clients, linear_model, partly_local

import fedbridge as fb
from fedbridge import algorithms, optimizers
from fedbridge.jax_core import aggregators as agg
from fedbridge.tff_io import from_keras_reconstruction

sgdm = optimizers.sgdm
BATCHES = fb.Batches(batch_size=4)
NAN = math.nan


def prox(strength):
    return algorithms.fed_prox(linear_model(), strength, sgdm(0.1))


def scheduled(rate):
    return algorithms.fed_avg_with_schedule(linear_model(), rate, sgdm)


def mime_scheduled(rate):
    return algorithms.mime_lite_with_schedule(linear_model(), rate, sgdm(0.1, 0.9))


def server_scheduled(rate):
    optimizer = optimizers.schedule_learning_rate(sgdm(), rate)
    return algorithms.fed_avg(linear_model(), sgdm(0.1), optimizer)


def fed_avg(**kwargs):
    return algorithms.fed_avg(linear_model(), sgdm(0.1), **kwargs)


def set_hparam(name, value):
    process = fed_avg()
    return process.set_hparams(process.initialize(), {"client_work": {name: value}})


def kmeans():
    return algorithms.fed_kmeans(3, (2,), (1, 2))


def cohort():
    return fb.from_clients(clients([4])).cohort(["c0"], BATCHES)


def divided(global_layers, local_layers):
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(3) for _ in range(2))])
    of = lambda numbers: [model.layers[number] for number in numbers]
    loss = keras.losses.MeanSquaredError()
    return from_keras_reconstruction(model, of(global_layers), of(local_layers), loss)


def divided_by(change):
    """What is given in place of the list of the global layers."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.MeanSquaredError()
    return from_keras_reconstruction(model, change(model.layers[0]), [], loss, metrics=None)


def with_function():
    """As optax.contrib.sophia, which not every optax has."""

    def update(updates, state, params=None, obj_fn=None, **kwargs):
        if obj_fn is None:
            raise ValueError("obj_fn must be provided to the update function.")
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


BUILT = {
    # Optimizers of optax that need more than gradients.
    "lbfgs": (lambda: fed_avg(server_optimizer=optax.lbfgs()), "server_optimizer: .*'value'"),
    "polyak_sgd": (
        lambda: algorithms.fed_avg(linear_model(), optax.polyak_sgd()),
        "client_optimizer: its update needs the argument 'value', and a step has the gradients",
    ),
    "a chain": (
        lambda: algorithms.mime_lite(
            linear_model(), optax.chain(optax.clip(1.0), optax.contrib.reduce_on_plateau())
        ),
        "base_optimizer: its update needs the argument 'value'",
    ),
    "a function": (
        lambda: algorithms.personalize(with_function()),
        "optimizer: its update needs the argument 'obj_fn'",
    ),
    # Hyperparameters that are negative, or no numbers.
    "rate -0.1": (lambda: sgdm(-0.1), "learning_rate is -0.1; it must be a number of at least 0"),
    "rate 'a'": (lambda: sgdm("0.1"), "learning_rate is '0.1'; it must be a number of at least 0"),
    "rate None": (lambda: sgdm(None), "learning_rate is None; it must be a number of at least 0"),
    "rate nan": (lambda: sgdm(NAN), "learning_rate is nan; it must be a number of at least 0"),
    "rate True": (lambda: sgdm(True), "learning_rate is True; it must be a number of at least 0"),
    "momentum": (lambda: sgdm(0.1, -0.9), "momentum is -0.9; it must be a number from 0 to 1"),
    "beta": (lambda: optimizers.adam(0.1, 1.5), "beta_1 is 1.5; it must be a number from 0 to 1"),
    "epsilon": (
        lambda: optimizers.yogi(0.1, epsilon=-1e-3),
        "epsilon is -0.001; it must be a number of at least 0",
    ),
    "decay": (
        lambda: optimizers.adamw(0.1, weight_decay="much"),
        "weight_decay is 'much'; it must be a number of at least 0",
    ),
    "hparam": (
        lambda: set_hparam("learning_rate", -1.0),
        r"hparams\['client_work'\]\['learning_rate'\] is -1.0; it must be a number of at",
    ),
    "hparam unknown": (
        lambda: set_hparam("momentum", 0.9),
        r"hparams\['client_work'\] has 'momentum', but this optimizer's state has learning_rate;",
    ),
    "hparam part": (
        lambda: fed_avg().set_hparams(fed_avg().initialize(), {"client": {"learning_rate": 1.0}}),
        "hparams has the part 'client'; its parts are 'client_work' and 'finalizer'",
    ),
    "client optimizer": (
        lambda: algorithms.fed_avg(linear_model(), 0.1),
        "client_optimizer is 0.1; it must be an optimizer: one of fedbridge.optimizers or optax's",
    ),
    "server optimizer": (
        lambda: fed_avg(server_optimizer=1),
        "server_optimizer is 1; it must be an optimizer",
    ),
    "base optimizer": (
        lambda: algorithms.mime_lite(linear_model(), 0.1),
        "base_optimizer is 0.1; it must be an optimizer",
    ),
    "recon optimizer": (
        lambda: algorithms.fed_recon(partly_local(linear_model()), None, None, 0.1),
        "reconstruction_optimizer is 0.1; it must be an optimizer",
    ),
    "recon client optimizer": (
        lambda: algorithms.fed_recon(partly_local(linear_model()), 0.1),
        "client_optimizer is 0.1; it must be an optimizer",
    ),
    "aggregator": (
        lambda: fed_avg(aggregator=agg.weighted_mean),
        r"aggregator is <function .*>; it must be one of fedbridge.aggregators, called",
    ),
    "full gradients": (
        lambda: algorithms.mime_lite(linear_model(), sgdm(0.1), full_gradient_aggregator=3),
        "full_gradient_aggregator is 3; it must be one of fedbridge.aggregators, called",
    ),
    "k-means' sums": (
        lambda: algorithms.fed_kmeans(2, (2,), sum_aggregator=agg.weighted_mean()),
        "sum_aggregator is a weighted aggregator; it must be an unweighted one",
    ),
    "metrics of training": (
        lambda: algorithms.fed_eval(linear_model(), metrics_aggregator=fb.per_client),
        r"metrics_aggregator is .*; it must be fb.sum_over_rounds or fb.sample_over_rounds",
    ),
    "pull": (
        lambda: algorithms.fed_prox(linear_model(), 0.1, sgdm(0.1), pull="away"),
        r"pull is 'away'; it must be a function of \(local weights, server's weights\)",
    ),
    "models in a list": (
        lambda: algorithms.fed_multi_eval([linear_model()]),
        "models is 'a list'; it must be at least one model, by its name",
    ),
    # A clip of zero or less, a quantile outside of (0, 1), noise without clipping.
    "clip 0": (
        lambda: agg.clipping(0.0, agg.weighted_mean()),
        "clipping_norm is 0.0; it must be a number above 0",
    ),
    "clip -1": (
        lambda: agg.zeroing(-1.0, agg.weighted_mean()),
        "zeroing_norm is -1.0; it must be a number above 0",
    ),
    "dp clip 0": (
        lambda: agg.gaussian_fixed(1.0, 10, 0.0),
        "clip is 0.0; it must be a finite number above 0",
    ),
    "quantile 1.5": (
        lambda: agg.quantile_estimation(1.0, 1.5, 0.1),
        "target_quantile is 1.5; it must be a number between 0 and 1, both excluded",
    ),
    "quantile 1": (
        lambda: agg.gaussian_adaptive(0.1, 10, target_unclipped_quantile=1.0),
        "target_unclipped_quantile is 1.0; it must be a number between 0 and 1, both excluded",
    ),
    "quantile of a query": (
        lambda: agg.quantile_adaptive_clip_sum(1.0, 1.0, 0.0, 0.2, 1.0, 10),
        "target_unclipped_quantile is 0.0; it must be a number between 0 and 1, both excluded",
    ),
    "noise, no clip": (
        lambda: agg.gaussian_fixed(1.0, 10, None),
        "clip is None; it must be a finite number above 0",
    ),
    "noise, infinite clip": (
        lambda: agg.gaussian_sum(math.inf, 1.0),
        "l2_norm_clip is inf; it must be a finite number above 0",
    ),
    "noise -1": (
        lambda: agg.gaussian_sum(1.0, -1.0),
        "stddev is -1.0; it must be a finite number of at least 0",
    ),
    "noise for nobody": (
        lambda: agg.normalized(agg.gaussian_sum(1.0, 1.0), 0),
        "denominator is 0; it must be a finite number above 0",
    ),
    # A schedule that gives no rate, from its first value on.
    "schedule nan": (
        lambda: scheduled(lambda k: NAN),
        r"client_learning_rate_fn\(0\) is nan; it must be a number of at least 0",
    ),
    "schedule inf": (
        lambda: mime_scheduled(lambda k: 0.1 / k),
        r"learning_rate_fn\(0\) is Array\(inf.*; it must be a number of at least 0",
    ),
    "schedule -1": (
        lambda: server_scheduled(lambda k: -1.0),
        r"schedule_fn\(0\) is -1.0; it must be a number of at least 0",
    ),
    "schedule 0.1": (
        lambda: scheduled(0.1),
        r"client_learning_rate_fn is 0.1; it must be a function of \(the round's number\)",
    ),
    "schedule of 0.1": (
        lambda: algorithms.fed_avg_with_schedule(linear_model(), lambda k: 0.1, sgdm(0.1)),
        r"client_optimizer_fn is GradientTransformation.*; it must be a function of \(a rate\)",
    ),
    "schedule, no optimizer": (
        lambda: algorithms.fed_avg_with_schedule(linear_model(), lambda k: 0.1, lambda rate: rate),
        r"client_optimizer_fn\(learning rate\) is 0.1; it must be an optimizer",
    ),
    "schedule of Adafactor": (
        lambda: algorithms.mime_lite_with_schedule(
            linear_model(), lambda k: 0.1, optimizers.adafactor(0.1)
        ),
        "base_optimizer has a state .* without learning_rate; it must be one of",
    ),
    # FedProx's strength.
    "prox -1": (
        lambda: prox(-1.0),
        "proximal_strength is -1.0; it must be a finite number of at least 0",
    ),
    "prox nan": (lambda: prox(NAN), "proximal_strength is nan; it must be a finite number"),
    "prox 'a'": (lambda: prox("0.1"), "proximal_strength is '0.1'; it must be a finite number"),
    "prox None": (lambda: prox(None), "proximal_strength is None; it must be a finite number"),
    "prox [2]": (lambda: prox(jnp.ones(2)), r"proximal_strength is Array\(.*; it must be a finite"),
    # K-means with more clusters than can be drawn, or with none.
    "clusters 2**30": (
        lambda: algorithms.fed_kmeans(2**30, (2,)),
        r"num_clusters is 1073741824; it must be at most 134217728: .* shape \(2,\) take more than",
    ),
    "clusters 0": (
        lambda: algorithms.fed_kmeans(0, (2,)),
        "num_clusters is 0; it must be a whole number above 0",
    ),
    "clusters 2.5": (
        lambda: algorithms.fed_kmeans(2.5, (2,)),
        "num_clusters is 2.5; it must be a whole number above 0",
    ),
    # A reconstruction whose variables overlap, or belong to nobody.
    "both": (lambda: divided([0, 1], [1]), "among the global_trainable and the local_trainable"),
    "one layer": (
        lambda: divided_by(lambda layer: layer),
        "global_layers is <Dense .*; it must be a list of layers of the model",
    ),
    "names of layers": (
        lambda: divided_by(lambda layer: [layer.name]),
        r"global_layers is \['dense.*'\]; it must be a list of layers of the model",
    ),
    "variables for layers": (
        lambda: divided_by(lambda layer: layer.weights),
        r"global_layers is \[<.*; it must be a list of layers of the model",
    ),
    "nobody's": (lambda: divided([0], []), "of the model is neither global nor local"),
    # Weights of another shape, and what is no state.
    "weights of a centroid less": (
        lambda: kmeans().set_model_weights(kmeans().initialize(), np.zeros((2, 2), "f")),
        r"the weights: the model has shape \(3, 2\), but \(2, 2\) was given; take the weights from",
    ),
    "weights None": (
        lambda: fed_avg().set_model_weights(fed_avg().initialize(), None),
        r"weight 'trainable/0': the model has shape \(4, 3\), but nothing was given",
    ),
    "weights as a state": (
        lambda: fed_avg().next(linear_model().initial_weights, cohort()),
        r"state is ModelWeights\(\.\.\.\); it must be a state of this process",
    ),
    # Sizes.
    "sample": (
        lambda: fb.finalize_then_sample(0),
        "sample_size is 0; it must be a whole number of at least 1",
    ),
}


@pytest.fixture(scope="module")
def said():
    """Kind to (class, text) of its error, without the type checks that tests run under.

    They would say it first, and users do not have them.
    """
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parent), *sys.path])
    script = f"import {here.stem}; {here.stem}.say()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def say():
    """Prints what `said` reads."""
    errors = {}
    for kind, (build, _) in BUILT.items():
        try:
            errors[kind] = "no error", repr(build())
        except (AttributeError, TypeError, ValueError) as error:
            errors[kind] = type(error).__name__, str(error)
    print(json.dumps(errors))


@pytest.mark.parametrize("kind", BUILT)
def test_it_is_refused_where_it_is_built(kind, said):
    name, text = said[kind]
    assert name in {"ArgumentError", "ModelError", "StateError"}, text
    assert re.search(BUILT[kind][1], text), text
    assert_one_sentence(text)


def assert_one_sentence(text):
    assert "\n" not in text
    assert ". " not in text.replace("e.g. ", "")


def falling_to(value):
    """0.1 in round 0 and 1, then what cannot be."""
    return lambda k: jnp.where(k < 2, 0.1, value)


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: scheduled(falling_to(NAN)), r"client_learning_rate_fn\(2\) is Array\(nan"),
        (lambda: mime_scheduled(falling_to(-1.0)), r"learning_rate_fn\(2\) is Array\(-1"),
        (
            lambda: server_scheduled(falling_to(math.inf)),
            "learning_rate of the optimizer's state, round_num 2, is inf",
        ),
    ],
    ids=["clients", "MimeLite", "server"],
)
def test_a_schedule_that_stops_being_one_is_refused_when_that_round_begins(build, words):
    process = build()
    state, some = process.initialize(), cohort()
    for _ in range(2):
        state, _ = process.next(state, some)
    with pytest.raises(fb.ArgumentError, match=words + ".*; it must be a number of at least 0"):
        process.next(state, some)
    # What was reached is not lost.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.global_model_weights))


WRONG_WEIGHTS = {
    "shape": (
        lambda: fb.ModelWeights([np.zeros((2, 2), "f"), np.zeros(CLASSES, "f")], []),
        rf"weight 'trainable/0': the model has shape \({INPUTS}, {CLASSES}\), but \(2, 2\) was",
    ),
    "one less": (
        lambda: fb.ModelWeights([np.zeros((INPUTS, CLASSES), "f")], []),
        rf"weight 'trainable/1': the model has shape \({CLASSES},\), but nothing was given",
    ),
    "whole numbers": (
        lambda: fb.ModelWeights([np.zeros((INPUTS, CLASSES), int), np.zeros(CLASSES, "f")], []),
        "weight 'trainable/0': the model has float32, but int64 was given; cast it with `.astype",
    ),
    "texts": (
        lambda: fb.ModelWeights([np.full((INPUTS, CLASSES), "a"), np.zeros(CLASSES, "f")], []),
        "weight 'trainable/0': the model has float32, but <U1 was given",
    ),
    "one more": (
        lambda: linear_model().initial_weights._replace(non_trainable=[np.zeros(3, "f")]),
        r"'non_trainable/0': the model has shape no such weight, but \(3,\) was given",
    ),
}


@pytest.mark.parametrize("kind", WRONG_WEIGHTS)
def test_weights_of_another_shape_are_not_set(kind):
    make, words = WRONG_WEIGHTS[kind]
    process = fed_avg()
    with pytest.raises(fb.StateError, match=words) as caught:
        process.set_model_weights(process.initialize(), make())
    assert_one_sentence(str(caught.value))


def test_weights_become_what_the_state_has():
    """Lists or tuples, of any precision, NaN too: the round's program is not compiled anew."""
    process = fed_avg()
    state = process.initialize()
    matrix, bias = state.global_model_weights.trainable
    given = fb.ModelWeights((np.full(matrix.shape, NAN), np.ones(bias.shape, np.float16)), ())
    after = process.set_model_weights(state, given)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.global_model_weights)} == {matrix.dtype}


PROCESSES = {
    "fed_avg": fed_avg,
    "fed_avg momentum": lambda: algorithms.fed_avg(linear_model(), sgdm(0.1, 0.9)),
    "fed_avg adam": lambda: fed_avg(server_optimizer=optimizers.adam(0.1)),
    "fed_avg robust": lambda: fed_avg(aggregator=agg.robust_aggregator()),
    "fed_prox": lambda: prox(0.1),
    "schedule": lambda: scheduled(lambda k: 0.1),
    "mime_lite": lambda: algorithms.mime_lite(linear_model(), sgdm(0.1, 0.9)),
    "fed_eval": lambda: algorithms.fed_eval(linear_model()),
    "fed_kmeans": lambda: algorithms.fed_kmeans(2, (INPUTS,), (1, 2)),
    "fed_avg unweighted": lambda: fed_avg(aggregator=fb.unweighted_mean()),
    "fed_avg clipping": lambda: fed_avg(aggregator=agg.clipping(1.0, fb.weighted_mean())),
    "fed_avg sum": lambda: fed_avg(aggregator=agg.sum_()),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_state_of_another_algorithm_is_refused(name, tmp_path):
    """By the round, before anything is compiled, and by `load`."""
    process = PROCESSES[name]()
    own, some = process.initialize(), cohort()
    for other, make in PROCESSES.items():
        if other == name:
            continue
        state = make().initialize()
        with pytest.raises(fb.StateError, match=r"the state (has|lacks) '[a-z_/0-9]+', unlike"):
            process.next(state, some)
        fb.save(tmp_path / "state", state)
        with pytest.raises(fb.StateError, match="in this process; load it with the process that"):
            fb.load(tmp_path / "state", like=own)


def evaluated(num_thresholds):
    metrics = {"auc": fb.metrics.auc(num_thresholds=num_thresholds)}
    return algorithms.fed_eval(linear_model()._replace(metrics=metrics))


def of_inputs(build):
    """Processes of the linear model, and of one with an input more."""
    model = linear_model()
    bias = model.initial_weights.trainable[1]
    wider = fb.ModelWeights([np.zeros((INPUTS + 1, CLASSES), "f"), bias], [])
    return build(model), build(model._replace(initial_weights=wider))


def part(name, build):
    """The state of a process, with this part of that of the other."""
    process, other = build()
    state = process.initialize()
    return process, state._replace(**{name: getattr(other.initialize(), name)})


def with_leaf(name, value):
    """FedAvg, and its state with another leaf."""
    process = fed_avg()
    state = process.initialize()
    leaves = fb.jax_core.named_leaves(state)
    return process, fb.jax_core.from_named_leaves(state, leaves | {name: value})


ADAM, MOMENTUM = optimizers.adam(0.1), sgdm(0.1, 0.9)
OTHER_STATES = {
    "thresholds": (
        lambda: part("client_work", lambda: (evaluated(200), evaluated(100))),
        r"'client_work/1/auc/0' is float32\[100\], and float32\[200\] in this process; go on from",
    ),
    "server optimizer": (
        lambda: part(
            "finalizer",
            lambda: of_inputs(lambda m: algorithms.fed_avg(m, sgdm(0.1), ADAM)),
        ),
        rf"'finalizer/[a-z_]+/0' is float32\[{INPUTS + 1}, {CLASSES}\], and float32\[{INPUTS}, ",
    ),
    "base optimizer": (
        lambda: part("client_work", lambda: of_inputs(lambda m: algorithms.mime_lite(m, MOMENTUM))),
        rf"'client_work/0/accumulator/0' is float32\[{INPUTS + 1}, {CLASSES}\], and float32",
    ),
    "estimates": (
        lambda: with_estimates(np.ones(2, "f")),
        r"'aggregator/[a-z_/0-9]+' is float32\[2\], and float32\[\] in this process",
    ),
    "clusters": (
        lambda: part("finalizer", lambda: (kmeans(), algorithms.fed_kmeans(2, (2,), (1, 2)))),
        r"'finalizer' is [a-z]+32\[2\], and [a-z]+32\[3\] in this process",
    ),
    "rate": (
        lambda: with_leaf("client_work/learning_rate", np.ones(3, "f")),
        r"'client_work/learning_rate' is float32\[3\], and float32\[\] in this process",
    ),
    "whole numbers": (
        lambda: with_leaf("global_model_weights/trainable/1", np.zeros(CLASSES, "i4")),
        rf"'global_model_weights/trainable/1' is int32\[{CLASSES}\], and float32\[{CLASSES}\] in",
    ),
    "text": (
        lambda: with_leaf("client_work/learning_rate", "0.1"),
        r"'client_work/learning_rate' is <U3\[\], and float32\[\] in this process",
    ),
}


def with_estimates(value):
    process = fed_avg(aggregator=agg.robust_aggregator())
    state = process.initialize()
    return process, state._replace(aggregator=jax.tree.map(lambda leaf: value, state.aggregator))


@pytest.mark.parametrize("kind", OTHER_STATES)
def test_a_state_of_other_shapes_or_kinds_is_refused(kind):
    make, words = OTHER_STATES[kind]
    process, state = make()
    for call in (
        lambda: process.next(state, cohort()),
        lambda: process.begin(state, [cohort()])(),
    ):
        with pytest.raises(fb.StateError, match=words) as caught:
            call()
        assert_one_sentence(str(caught.value))


def test_rounds_begin_with_a_cohort():
    process = fed_avg()
    with pytest.raises(fb.ArgumentError, match=r"cohorts is \[\]; it must be at least one cohort."):
        process.begin(process.initialize(), [])


@pytest.mark.parametrize("rate", [0.1, 1, np.float64(0.1), np.array(0.1, np.float16)], ids=repr)
def test_a_number_of_any_width_may_stand_in_a_state(rate):
    """Of Python and NumPy, as files and other programs give them."""
    process, state = with_leaf("client_work/learning_rate", rate)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.global_model_weights)
    after, _ = process.next(state._replace(global_model_weights=wide), cohort())
    process.next(after, cohort())


def test_a_file_tells_algorithms_of_equal_states_apart(tmp_path):
    """FedProx's and FedSGD's have the same leaves; `train` compares the names, `load` if told."""
    own, other = prox(0.1), algorithms.fed_sgd(linear_model())
    file, data = tmp_path / "state", fb.from_clients(clients([3]))
    state = fb.train(own, data, BATCHES, rounds=0).state
    fb.save(file, (np.int64(0), state), algorithm=own.name)
    like = np.int64(0), other.initialize()
    fb.load(file, like)
    with pytest.raises(fb.StateError, match="saved by fed_prox, and this is fed_sgd; load it"):
        fb.load(file, like, algorithm=other.name)
    with pytest.raises(fb.StateError, match="saved by fed_prox, and this is fed_sgd"):
        fb.train(other, data, BATCHES, rounds=1, checkpoint=file)
    assert fb.saved_round(own, file) == 0
    with pytest.raises(fb.ArgumentError, match="algorithm is 'a b'; it must be one word"):
        fb.save(file, state, algorithm="a b")


def test_a_server_step_that_is_not_finite_is_refused():
    """An optax schedule that turns NaN, which nothing can see before the round."""
    rate = lambda k: jnp.where(k == 1, jnp.nan, 0.1)
    process, some = fed_avg(server_optimizer=optax.sgd(rate)), cohort()
    state, _ = process.next(process.initialize(), some)
    with pytest.raises(fb.ArgumentError, match="server_optimizer: its step .*schedule.* is NaN"):
        process.next(state, some)
    base = optimizers.schedule_learning_rate(sgdm(0.1), rate)
    mime = algorithms.mime_lite(linear_model(), base)
    state, _ = mime.next(mime.initialize(), some)
    with pytest.raises(fb.ArgumentError, match="learning_rate of the optimizer's state, round_num"):
        mime.next(state, some)
    placed = process.place(some)
    with pytest.raises(fb.ArgumentError, match="server_optimizer: its step"):
        process.begin(process.initialize(), [placed, placed])()


@pytest.mark.parametrize(
    "rate, words",
    [
        (lambda k: jnp.where(k < 1, 0.1, jnp.nan), "in local step 1 is nan"),
        (lambda k: 0.1 - 0.11 * k, "in local step 1 is -0.0[0-9]+"),
    ],
    ids=["nan", "negative"],
)
def test_a_rate_of_a_clients_later_step_is_looked_at_before_the_round(rate, words):
    client_optimizer = optimizers.schedule_learning_rate(sgdm(), rate)
    process = algorithms.fed_prox(linear_model(), 0.1, client_optimizer)
    start, arrays = process.initialize(), {"x": np.ones((4, 4), "f"), "y": np.ones(4, "i4")}
    data = fb.from_clients({"a": arrays})
    process.next(start, data.cohort(["a"], fb.Batches(4)))  # one step alone
    with pytest.raises(fb.ArgumentError, match=f"the learning rate of client_optimizer {words}"):
        process.next(start, data.cohort(["a"], fb.Batches(2)))


def test_a_cohort_placed_by_another_process_is_refused():
    """It was checked with another model, and lies where another execution takes it."""
    ours, some = fed_avg(), cohort()
    for execution in (fb.sequential, fb.vmapped(2), fb.debug, fb.sharded()):
        other = algorithms.fed_avg(linear_model(), sgdm(0.1), execution=execution)
        placed = other.place(some)
        other.next(other.initialize(), placed)
        for misplaced in (placed, execution.place(some)):
            with pytest.raises(fb.ArgumentError, match="cohort was placed by another process"):
                ours.next(ours.initialize(), misplaced)


def test_a_round_is_not_traced():
    process, some = fed_avg(), cohort()
    with pytest.raises(fb.ArgumentError, match="state is traced; call the process outside of"):
        jax.jit(lambda state: process.next(state, some))(process.initialize())


@pytest.mark.parametrize("execution", [fb.sequential, fb.vmapped(2), fb.debug])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": jnp.ones(2)}, "Forward.objective of the model is .*; it must be one number"),
        ({"non_trainable": [jnp.ones(3)]}, r"non_trainable of the model is '0: float\[3\]'.*none"),
    ],
)
def test_a_model_whose_output_changes_shape_is_refused(execution, changes, words):
    model = linear_model()
    odd = lambda *args: model.forward(*args)._replace(**changes)
    process = algorithms.fed_avg(model._replace(forward=odd), sgdm(0.1), execution=execution)
    with pytest.raises((fb.ArgumentError, fb.ClientStepError), match=words):
        process.next(process.initialize(), cohort())


def test_what_a_forward_pass_raises_names_the_batch():
    data = fb.from_clients({"a": {"x": np.ones((4, 7), "f"), "y": np.ones(4, "i4")}})
    some = data.cohort(["a"], fb.Batches(4))
    for process in (fed_avg(), algorithms.fed_eval(linear_model())):
        with pytest.raises(TypeError) as caught:
            process.next(process.initialize(), some)
        words = r"on a batch of x float32\[4, 7\], y int32\[4\]."
        assert any(re.search(words, note) for note in caught.value.__notes__)


def test_a_round_that_is_too_large_for_the_device_says_so():
    model = linear_model()

    def hungry(weights, batch, *rest):
        rows, columns = jnp.arange(1 << 26, dtype=jnp.float32), jnp.arange(1 << 20)
        many = jnp.sin(
            batch["x"].sum() * rows[:, None] + columns[None]
        )  # 256 TB: no address is left
        forward = model.forward(weights, batch, *rest)
        return forward._replace(objective=forward.objective * jnp.sort(many, 0)[0, 0])

    process = algorithms.fed_avg(model._replace(forward=hungry), sgdm(0.1), execution=fb.vmapped(2))
    with pytest.raises(fb.DeviceMemoryError, match="the round needs more memory than its device"):
        process.next(process.initialize(), cohort())


# In a process without the tests' type checker, as a user's: expression -> what its error says.
NONE = {
    "agg.clipping(1.0, agg.sum_)": "inner is <function .*one of fedbridge.aggregators, called",
    "agg.zeroing(1.0, None)": "inner is None; it must be one of fedbridge.aggregators",
    "fb.weighted_mean(agg.sum_)": "value_sum is <function .*aggregators, called",
    "agg.robust_aggregator(debug_measurements_fn=lambda mean: None)":
        r"debug_measurements_fn\(mean\) is None; it must be one of fedbridge.aggregators",
    "agg.add_measurements(agg.sum_(), client_measurement_fn=lambda value: value)":
        "client_measurement_fn is <function .*must be a ClientMeasurement",
    "fb.algorithms.fed_avg_with_schedule(model, lambda k: 'a', sgdm)":
        r"client_learning_rate_fn\(0\) is 'a'; it must be a number",
    "fb.algorithms.fed_avg('m', sgdm(0.1))": "model is 'm'; it must be a model",
    "fb.models.softmax_regression(2, 3)": "shape is 2; it must be a tuple of whole numbers",
    "fb.models.softmax_regression((2,), 3, x=3)": "x is 3; it must be the name of a feature",
    "fb.models.emnist_cnn('a')": "only_digits is 'a'; it must be True or False",
    "fb.models.emnist_cnn(dropout=0.5)": "dropout is 0.5; it must be two rates",
    "fb.models.stackoverflow_lstm('a')": "vocab_size is 'a'; it must be a whole number",
    "fb.sharded(3)": "devices is 3; it must be a list of different devices",
    "fb.sharded('cpu')": "devices is 'cpu'; it must be a list of different devices",
    "fb.sharded(jax.devices()[:1] * 2)": "devices is .*; it must be a list of different devices",
    "fb.sharded(inner=fb.vmapped)": "inner is <function vmapped>; it must be fb.sequential or",
    "fb.samplers.uniform('a')": "size is 'a'; it must be a whole number of at least 0",
    "fb.samplers.uniform(1, seed='a')": "seed is 'a'; it must be a whole number",
    "fb.samplers.weighted_by_size(1, [3])": r"sizes is \[3\]; it must be a mapping",
    "fb.samplers.fixed(3)": "cohort is 3; it must be a list of client ids",
    "fb.samplers.fixed([['a']])": r"cohort is \[\['a'\]\]; it must be a list of client ids",
    "fb.samplers.uniform(1)(None, ['a'])": "round is None; it must be a whole number",
    "fb.samplers.round_robin(1)(1.5, ['a'])": "round is 1.5; it must be a whole number",
    **{
        f"fb.samplers.available({{'a': {given}}}, fb.samplers.all_clients)":
            r"client 'a': its trace is .*; give a list of intervals \(start, stop\)"
        for given in ("(0, 3)", "[(0,)]", "5", "None", "[(0, float('nan'))]", "['ab']")
    },
    "fb.tasks.emnist.create_autoencoder_task(None, use_synthetic_data=True)":
        "train_client_spec is None; it must be a fb.ClientSpec",
    "fb.tasks.emnist.create_autoencoder_task(fb.ClientSpec(1, 2), 5, use_synthetic_data=True)":
        "eval_client_spec is 5; it must be a fb.ClientSpec",
    "fb.read_tag_counts('tags', 2.5)": "vocab_size is 2.5; ask for at least one tag",
    "fb.convert(fb.__file__, 'out', preprocess=5)": "preprocess is 5; it must be a function",
    "fb.preprocessing.stackoverflow_word_prediction(text, vocab='abc')":
        "vocabulary is 'abc'; it must be a list of words",
    "fb.preprocessing.stackoverflow_word_prediction(text, vocab=5)":
        "vocabulary is 5; it must be a list of words",
    "fb.from_clients([1])": "clients: expected a dictionary of clients, got list",
    "data.client(['a'])": r"client \['a'\]: there is no such client",
    "fb.algorithms.fed_multi_eval({3: model})": "models is {3: 'Model'}; it must be at least one",
    "fb.algorithms.fed_eval(fb.models.emnist_cnn)": "model is <function .*it must be a model",
    "fb.algorithms.fed_recon(model)": "model is Model.*it must be a ReconstructionModel",
    "fed_avg(execution='vmapped')": "execution is 'vmapped'; it must be of the type Execution",
    "fed_avg(client_weight='num_examples')": "client_weight is 'num_examples'; it must be",
    "fed_avg(metrics_aggregator=fb.finalize_then_sample)":
        "metrics_aggregator is <function .*a MetricsAggregator, called",
    "sgdm(1e39)": r"learning_rate is 1e\+39; it must be .*, and finite as a float32",
    "fed_avg().set_hparams(fed_avg().initialize(), {'client_work': 0.1})":
        r"hparams\['client_work'\] is 0.1; it must be a mapping of names to values",
    "fb.algorithms.fed_avg(model, optax.MultiSteps(optax.sgd(0.1), 2))":
        r"client_optimizer is .*MultiSteps.*: give its \.gradient_transformation\(\)",
    "fb.algorithms.personalize(0.1)": "optimizer is 0.1; it must be an optimizer",
    "fb.algorithms.personalize(sgdm(0.1), evaluate=3)":
        r"evaluate is 3; it must be a function of \(model, weights, client\)",
    "fb.algorithms.personalization_eval(model, None)": "strategies is None; it must be a mapping",
    "fb.algorithms.personalization_eval(model, [1])": r"strategies is \[1\]; it must be a mapping",
    "fb.algorithms.personalization_eval(model, {'a': fb.algorithms.personalize})":
        r"strategies\['a'\] is <function personalize>; it must be called, with an optimizer",
    "fb.algorithms.personalization_eval(model, {'a': lambda: 0})":
        r"strategies\['a'\] is <function <lambda>>; it must be a function of \(model, wei",
    "fb.algorithms.fed_kmeans(10**9, (2,))": "num_clusters is 1000000000; it must be at most 13421",
    "fb.algorithms.fed_kmeans(2, (2,), sum_aggregator=fb.unweighted_mean())":
        "sum_aggregator gives for two equal clients what it gives for one; it must be a sum",
    "fb.algorithms.fed_kmeans(2, (2,), feature=3)": "feature is 3; it must be the name of a feat",
    "fb.algorithms.fed_prox(model, 0.1, sgdm(0.1), non_finite='keep')":
        r"non_finite is 'keep'; it must be a function of \(finite, values, zeros\)",
    "fb.algorithms.fed_sgd(model, metrics_aggregator=3)": "metrics_aggregator is 3",
    "fb.algorithms.mime_lite(model, sgdm(0.1, 0.9), non_finite='keep')": "non_finite is 'keep'",
    "fed_avg(aggregator=0)": "aggregator is 0; it must be one of fedbridge.aggregators, called",
    "fb.local_training(None, sgdm(0.1))": "model is None; it must be a model",
    "agg.differentially_private(None)": "query is None; it must be a DPQuery",
    "agg.robust_aggregator(debug_measurements_fn=3)":
        r"debug_measurements_fn is 3; it must be a function of \(the mean\)",
    "agg.robust_aggregator(zeroing='no')": "zeroing is 'no'; it must be True or False",
    "agg.weighted_mean(no_nan_division='no')": "no_nan_division is 'no'; it must be True or False",
    "sgdm(0.1, 0.9, nesterov='no')": "nesterov is 'no'; it must be True or False",
    "fb.Batches(2, drop_remainder='no')": "drop_remainder is 'no'; it must be True or False",
    "fb.build_dataset_split_fn(split_dataset='no')": "split_dataset is 'no'; it must be True",
    "fb.tasks.emnist.create_autoencoder_task(fb.ClientSpec(1, 2), use_synthetic_data='no')":
        "use_synthetic_data is 'no'; it must be True or False",
    "fb.metrics.auc(from_logits='no')": "from_logits is 'no'; it must be True or False",
    "agg.quantile_estimation(1.0, 0.5, 0.1, empty_round='nan')":
        r"empty_round is 'nan'; it must be a function of \(anybody, new estimate, old estimate\)",
    "agg.gaussian_adaptive(1.0, 10, -1.0)": "initial_l2_norm_clip is -1.0; it must be",
    "agg.gaussian_adaptive(1.0, 10, clipped_count_stddev=0.1)":
        "clipped_count_stddev is 0.1; with a noise_multiplier of 1.0 it must be above 0.5",
    "sgdm([0.1, [0.2]])": r"learning_rate is \[0.1, \[0.2\]\]; it must be a number of at least 0",
    "fb.optimizers.schedule_learning_rate(sgdm(0.1), lambda: 0.1)":
        r"schedule_fn is <function <lambda>>; it must be a function of \(the round's number\)",
    "fb.optimizers.set_hparams(sgdm(0.1).init(0.0), 3)": "hparams is 3; it must be a mapping",
    "fed_avg().set_model_weights(3, model.initial_weights)": "state is 3; it must be a state of",
    "fed_avg().next(fed_avg().initialize(), data)":
        r"cohort is FederatedArrays\(.*; it must be a cohort: data.cohort\(client_ids, batches\)",
    "data.cohort(['a'], fb.Batches(2), round=-1)": "round is -1; it must be a whole number from 0",
    "data.cohort(['a'], 3)": r"batches is 3; it must be fb.Batches\(...\)",
    "fb.train(fed_avg(), data, fb.Batches(2), rounds=-1)": "rounds is -1; it must be a whole num",
    "fb.metrics.confusion_count('tp')": r"which is 'tp'; it must be one of \('true_positives', ",
    "fb.metrics.precision(top_k=0)": "top_k is 0; it must be a whole number of at least 1",
    "fb.metrics.precision(thresholds='a')": "thresholds is 'a'; it must be numbers in",
    "fb.metrics.best_at(fb.metrics.recall_rate, fb.metrics.precision_rate, 1.5)":
        "at_least is 1.5; it must be a number from 0 to 1",
    "fb.metrics.mean_of(3)": r"values is 3; it must be a function of \(batch, forward, mask\)",
    "sgdm(0.1, momentum=[0.9, 0.9])": r"momentum is \[0.9, 0.9\]; it must be a number from 0 to 1",
    "sgdm(0.1, momentum=np.full(2, 0.9))": r"momentum is array.*; it must be a number from 0",
    "sgdm(0.1, momentum=False)": "momentum is False; it must be a number from 0 to 1",
    "fb.metrics.auc(thresholds=0.5)": "thresholds is 0.5; it must be a list of numbers in",
    "fb.algorithms.fed_avg(model._replace(metrics=None), sgdm(0.1))":
        "metrics of the model is None; it must be a mapping of names to fb.metrics, or {}",
    "fb.algorithms.fed_eval(model._replace(metrics=[fb.metrics.auc()]))":
        r"metrics of the model is \[Metric.*; it must be a mapping of names to fb.metrics, or {}",
    "fb.algorithms.fed_avg(model._replace(metrics={'a': 3}), sgdm(0.1))":
        r"metrics\['a'\] of the model is 3; it must be one of fb.metrics",
    "run(fb.algorithms.fed_avg(model._replace(metrics={'a': of_zz}), sgdm(0.1)))":
        "a metric compares with the feature 'zz', and batches have 'x', 'y'; write fb.metrics.out",
    "fb.algorithms.personalization_eval(model, {})(model.initial_weights, None)":
        "cohort is None; it must be data.cohort",
    "fb.algorithms.personalization_eval(model, {'a': fb.algorithms.personalize(sgdm(0.1), "
    "train='xx')})(model.initial_weights, data.cohort(['a'], {'train': two, 'test': two}))":
        "stream is 'xx'; it must be one of the cohort's: test, train",
    "fb.algorithms.personalize(sgdm(0.1), 10**400)":
        "num_epochs is 1000.*; it must be a whole number from 1 to 2147483647",
    "run(fb.algorithms.fed_recon(partly, dataset_split_fn=lambda n: n))":
        r"dataset_split_fn\(the number of batches\) is .*; it must be two Visits, as fb.build_da",
    "run(fed_avg(client_weight=lambda n: [1.0, 2.0]))":
        r"client_weight\(the number of examples\) is \[1.0, 2.0\]; it must be one number",
    "run(fed_avg(client_weight=lambda n: n * np.ones(2)))":
        r"client_weight\(the number of examples\) is .*; it must be one number",
    "run(fed_avg(client_weight=lambda n: 'a'))":
        r"client_weight\(the number of examples\) is 'a'; it must be one number",
    "run(fb.algorithms.fed_prox(model, 0.1, sgdm(0.1), pull=lambda a, b: 3))":
        r"pull\(local weights, server's weights\), at '0', has shape no such leaf, but the train",
    "run(fed_avg(aggregator=agg.add_measurements(fb.weighted_mean(), "
    "server_measurement_fn=lambda r: 3)))":
        r"server_measurement_fn\(result\) is 3; it must be a mapping of names to values",
    "run(fed_avg(aggregator=agg.add_measurements(fb.weighted_mean(), "
    "client_measurement_fn=agg.ClientMeasurement(lambda v, w: w, lambda s: 3))))":
        r"client_measurement_fn.server\(sum\) is 3; it must be a mapping of names to values",
    "run(fed_avg(aggregator=agg.add_measurements(fb.weighted_mean(), "
    "server_measurement_fn=lambda r: {'a': 'text'})))":
        r"server_measurement_fn\(result\), at 'a' is 'text'; it must be a number or an array",
    "run(fed_avg(aggregator=agg.add_measurements(fb.weighted_mean(), "
    "client_measurement_fn=agg.ClientMeasurement(lambda v, w: {'a': 'b'}, lambda s: s))))":
        r"client_measurement_fn.client\(...\), at 'a' is 'b'; it must be a number or an array",
    "fb.unweighted_mean(None, fb.unweighted_mean())":
        "count_sum does not sum whole numbers; it must be a sum, e.g. fb.aggregators.sum_",
    "agg.clipping(0.01, fb.weighted_mean(), agg.quantize_above_threshold(8, 0))":
        "clipped_count_sum does not sum whole numbers; it must be a sum",
    "agg.zeroing(0.01, fb.weighted_mean(), zeroed_count_sum=agg.zeroing(0.5, agg.sum_()))":
        "zeroed_count_sum does not sum whole numbers; it must be a sum",
    "longer(fb.algorithms.fed_recon(partly, None, None, late))":
        "the learning rate of reconstruction_optimizer in local step 1 is nan; it must be a number",
    "longer(fb.algorithms.fed_recon_eval(partly, late))":
        "the learning rate of reconstruction_optimizer in local step 1 is nan; it must be a number",
    "longer(fb.algorithms.fed_avg_with_schedule(model, lambda r: 0.1, lambda rate: late))":
        "the learning rate of client_optimizer in local step 1 is nan; it must be a number",
    "run(fb.algorithms.fed_avg_with_schedule(model, lambda k: 0.1 / (k + 1), "
    "lambda rate: sgdm(float(rate))))":
        r"client_optimizer_fn\(learning rate\) takes decisions in Python, or goes through NumPy",
    "run(fed_avg(client_weight=lambda n: 1.0 if n > 2 else 0.0))":
        r"client_weight\(the number of examples\) takes decisions in Python, or goes through",
    "run(fed_avg(aggregator=fb.weighted_mean()._replace(server=lambda state, summed, key: 3)))":
        r"aggregator.server\(state, summed, key\) is 3; it must be a MeasuredProcessOutput",
    "run(fed_avg(aggregator=fb.weighted_mean()._replace(client=lambda state: 3)))":
        r"aggregator.client is .*; it must be a function of \(state, value, weight, key\)",
    "fb.algorithms.fed_avg(model._replace(forward=None), sgdm(0.1))":
        "forward of the model is None; it must be a function of",
    "fb.algorithms.fed_avg(model._replace(initial_weights=None), sgdm(0.1))":
        "initial_weights of the model is None; it must be fb.ModelWeights",
    "fb.algorithms.fed_avg(model._replace(metrics={'m': fb.Metric(3, 4, 5)}), sgdm(0.1))":
        r"zero of metrics\['m'\] of the model is 3; it must be a function of \(\)",
    "run(measured(fb.metrics.sum_of(lambda b, f, m: {'n': m.sum()})))":
        r"terms\(batch, forward, mask\) is .*; it must be a tree like that of `zero`",
    "run(measured(fb.Metric(lambda: 0.0, lambda a, b, f, m: (a, a), lambda a: a)))":
        r"update\(...\) of the metric 'm' is .*; it must be of the form of its zero\(\)",
    "fb.algorithms.fed_avg(model, optax.sgd(lambda k: math.nan))":
        "client_optimizer: its first step, with gradients of 1, is not finite; its learning rate",
    "run(measured(fb.metrics.auc(fb.metrics.outcomes(), multi_label=True, num_labels=4)))":
        "predictions of shape .* are not .batch, labels. with the 4 labels of num_labels",
    "run(fed_avg(aggregator=scalars))":
        r"what the aggregator gives, at '0', has shape no such leaf, but the trainable weights",
    "run(fed_avg(aggregator=rows))":
        r"what the aggregator gives, at '0', has shape \(1, 3\), but the .* have \(2, 3\); it must",
    "agg.gaussian_adaptive(1e-200, 10)":
        "noise_multiplier is 1e-200; it must be 0, or a finite number of at least 1e-30",
    "agg.quantile_estimation(1.0, 0.5, math.inf)": "learning_rate is inf; it must be a finite numb",
    "agg.quantile_estimation(math.inf, 0.5, 0.1)": "initial_estimate is inf; it must be a finite",
    "data.cohort(['a'], two, round=2**40)":
        "round is 1099511627776; it must be a whole number from 0 to 4294967295",
    "data.cohort(['a'], two).at_round(-1)": "round is -1; it must be a whole number from 0 to",
    "fb.weights_to_npz({'a': max}, 'never')":
        "weights, at 'a', is <built-in function max>; it must be an array of numbers",
    "fb.weights_to_npz(max, 'never')": "weights is <built-in function max>; it must be an array",
    "fb.weights_to_safetensors({'a': 'b'}, 'never')": "weights, at 'a', is 'b'; it must be an",
    "fb.save('never', {'a': max})": "state, at 'a', is <built-in function max>; it must be an arr",
    "fb.save('never', {'a': jax.random.key(0)})": "state, at 'a', is .*; it must be an array",
    "fb.save_program_state('never', {'a': 1}, 'a')": "version is 'a'; it must be a whole number of",
    "fb.save_program_state('never', {'a': 1}, -1)": "version is -1; it must be a whole number of",
    "fb.save_program_state('never', {'a': 1}, 1.5)": "version is 1.5; it must be a whole number of",
    "fb.save_program_state('never', None, 1)": "state is None; it must be a tree of arrays",
    **{
        f"fb.{call}": f"{name} is (None|3); it must be a text or a pathlib.Path"
        for name, calls in {
            "path": (
                "save(None, model.initial_weights)", "load(3, 3)", "from_sql(None)",
                "from_hdf5(None)", "weights_to_npz(model.initial_weights, None)",
                "weights_from_npz(3, 3)", "weights_to_safetensors(model.initial_weights, None)",
                "weights_from_safetensors(3, 3)", "read_word_counts(3)",
                "tff_io.write_sql(None, {})",
            ),
            "cache_dir": (
                "datasets.emnist.load_data(cache_dir=3)",
                "datasets.stackoverflow.load_word_counts(cache_dir=3)",
            ),
            "out": ("tff_io.generate_emnist(2, None)",),
            "mirror": ("tff_io.fetch('emnist', mirror=3)",),
            "root": ("save_program_state(None, 3, 1)", "load_program_state(3, 1, 3)"),
            "folder": (
                "from_leaf(None)", "from_converted(3)", "tff_io.fetch('emnist', 3)",
            ),
            "checkpoint": (
                "train(fed_avg(), data, two, rounds=1, checkpoint=3)",
                "saved_round(fed_avg(), None)",
            ),
        }.items()
        for call in calls
    },
    "fb.tff_io.verify_cache(3)": "cache is 3; it must be True, False or a folder",
    "fb.metrics.f_beta_score('a')": "num_classes is 'a'; it must be a whole number of at least 1",
}  # fmt: skip
_TELL = """
import sys, json, math, jax, numpy as np, optax, fedbridge as fb
agg, sgdm = fb.aggregators, fb.optimizers.sgdm
model = fb.models.softmax_regression((2,), 3, x="x", y="y")
text = fb.from_clients({"a": {"tokens": ["to be"]}})
data = fb.from_clients({"a": {"x": [[1.0, 2.0]], "y": [0]}})
fed_avg = lambda **more: fb.algorithms.fed_avg(model, sgdm(0.1), **more)
two = fb.Batches(2)
run = lambda process: process.next(process.initialize(), data.cohort(["a"], two))
eight = fb.from_clients({"a": {"x": np.ones((8, 2), "f"), "y": np.zeros(8, "i4")}})
longer = lambda process: process.next(process.initialize(), eight.cohort(["a"], fb.Batches(1)))
late = fb.optimizers.schedule_learning_rate(
    sgdm(0.1), lambda k: jax.numpy.where(k < 1, 0.1, math.nan))
measured = lambda metric: fb.algorithms.fed_avg(model._replace(metrics={"m": metric}), sgdm(0.1))
of_zz = fb.metrics.auc(fb.metrics.outcomes("zz"))
partly = fb.ReconstructionModel(
    model.initial_weights, lambda key: fb.ModelWeights(np.ones(2)),
    lambda ours, own, *rest: model.forward(ours, *rest), model.metrics)
mean = fb.weighted_mean()
def giving(change):
    def server(*args):
        output = mean.server(*args)
        return output._replace(result=change(output.result))
    return mean._replace(server=server)
scalars = giving(lambda result: result[0].sum())
rows = giving(lambda result: [leaf[:1] for leaf in result])
told = {}
for expression in json.loads(sys.argv[1]):
    try:
        eval(expression)
    except Exception as error:
        told[expression] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""


def test_parts_that_are_none():
    command = [sys.executable, "-c", _TELL, json.dumps(list(NONE))]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for expression, words in NONE.items():
        text = told.get(expression, "nothing")
        assert re.match(f"(?s)(Argument|ClientData|Model)Error: {words}", text), (expression, text)
        assert len(text) < 250, text
        assert_one_sentence(text)

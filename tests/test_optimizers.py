"""TFF's optimizers: the formulas against NumPy and optax, states, hyperparameters, schedules."""

import re
from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from problems import clients, linear_model

import fedbridge as fb
from fedbridge.jax_core import ArgumentError, named_leaves, optimizers
from fedbridge.tff_io import keras_legacy_adagrad, keras_rmsprop, keras_sgd_nesterov

STEPS = 30
# float32 against float64: some 8 roundings of half an ulp (6e-8) a step, over 30 steps, independent
# of each other: √240 · 6e-8 = 9e-7 of the size of a weight, or of the way that it went.
TOLERANCE = 1e-6


# The formulas, each for one array, in NumPy float64 and in the papers' order: a = βa + (1−β)g.


def sgdm(w, gradients, learning_rate, momentum=0.0, nesterov=False):
    a = np.zeros_like(w)
    for g in gradients:
        a = momentum * a + g
        w = w - learning_rate * (g + momentum * a if nesterov else a)
        yield w


def adagrad(w, gradients, learning_rate, initial_preconditioner_value, epsilon):
    squares = np.full_like(w, initial_preconditioner_value)
    for g in gradients:
        squares = squares + g**2
        w = w - learning_rate * g / (squares + epsilon) ** 0.5
        yield w


def rmsprop(w, gradients, learning_rate, decay, epsilon):
    p = np.zeros_like(w)
    for g in gradients:
        p = decay * p + (1 - decay) * g**2
        w = w - learning_rate * g / (p**0.5 + epsilon)
        yield w


def adam(w, gradients, learning_rate, beta_1, beta_2, epsilon, weight_decay=0.0):
    a, p = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        a = beta_1 * a + (1 - beta_1) * g
        p = beta_2 * p + (1 - beta_2) * g**2
        corrected = (1 - beta_2**t) ** 0.5 / (1 - beta_1**t) * a / (p**0.5 + epsilon)
        w = w - learning_rate * (corrected + weight_decay * w)
        yield w


def fed_adam(w, gradients, learning_rate, beta_1, beta_2, epsilon):
    """Reddi et al., Algorithm 2: m, v and τ; v starts from τ²."""
    m, v = np.zeros_like(w), np.full_like(w, epsilon**2)
    for g in gradients:
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        w = w - learning_rate * m / (v**0.5 + epsilon)
        yield w


def yogi(w, gradients, learning_rate, beta_1, beta_2, epsilon, initial_preconditioner_value):
    a, p = np.zeros_like(w), np.full_like(w, initial_preconditioner_value)
    for t, g in enumerate(gradients, 1):
        a = beta_1 * a + (1 - beta_1) * g
        p = np.where(p < g**2, p + (1 - beta_2) * g**2, p - (1 - beta_2) * g**2)
        w = w - learning_rate * (1 - beta_2**t) ** 0.5 / (1 - beta_1**t) * a / (p**0.5 + epsilon)
        yield w


def adafactor(
    w, gradients, learning_rate, beta_2_decay, epsilon_1, epsilon_2, clip_threshold, relative_step
):
    rms = lambda x: np.mean(x**2) ** 0.5
    rows, columns, whole = 0.0, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        beta, q = 1 - t**beta_2_decay, g**2 + epsilon_1
        if w.ndim < 2:
            whole = beta * whole + (1 - beta) * q
        else:
            rows = beta * rows + (1 - beta) * q.mean(-1)
            columns = beta * columns + (1 - beta) * q.mean(-2)
            share = rows / rows.mean(-1, keepdims=True)
            whole = np.einsum("...r,...c->...rc", share, columns)
        u = g / whole**0.5
        u = u / max(1, rms(u) / clip_threshold)
        rate = min(learning_rate, t**-0.5) if relative_step else learning_rate
        w = w - max(epsilon_2, rms(w)) * min(rate, t**0.5) * u
        yield w


# An ε that is seen where it stands, and a β₂ whose 1 − β₂ᵗ keeps its digits in float32.
MOMENTS = {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 0.02}
FACTORED = {
    "learning_rate": 0.3,
    "beta_2_decay": -0.7,
    "epsilon_1": 1e-6,
    "epsilon_2": 0.05,
    "clip_threshold": 0.9,
}
CASES = [
    ("sgdm", sgdm, {"learning_rate": 0.1}),
    ("sgdm", sgdm, {"learning_rate": 0.1, "momentum": 0.9}),
    ("sgdm", sgdm, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    (
        "adagrad",
        adagrad,
        {"learning_rate": 0.1, "initial_preconditioner_value": 0.3, "epsilon": 0.02},
    ),
    ("rmsprop", rmsprop, {"learning_rate": 0.1, "decay": 0.8, "epsilon": 0.02}),
    ("adam", adam, MOMENTS),
    ("adamw", adam, {**MOMENTS, "weight_decay": 0.03}),
    ("fed_adam", fed_adam, MOMENTS),
    ("yogi", yogi, {**MOMENTS, "initial_preconditioner_value": 0.01}),
    ("adafactor", adafactor, {**FACTORED, "relative_step": True}),
    ("adafactor", adafactor, {**FACTORED, "relative_step": False}),
    ("adafactor", adafactor, {**FACTORED, "learning_rate": 2.0, "relative_step": False}),
]
cases = pytest.mark.parametrize(
    "name, formula, hparams", CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)]
)

ALL = [
    optimizers.sgdm,
    partial(optimizers.sgdm, momentum=0.9),
    partial(optimizers.sgdm, momentum=0.9, nesterov=True),
    optimizers.adagrad,
    optimizers.rmsprop,
    optimizers.adam,
    optimizers.adamw,
    optimizers.fed_adam,
    optimizers.yogi,
    optimizers.adafactor,
]
every_builder = pytest.mark.parametrize("build", ALL, ids=range(len(ALL)))
# Adafactor's rate stands elsewhere in its state: TFF refuses to schedule it too.
schedulable = pytest.mark.parametrize("build", ALL[:-1], ids=range(len(ALL) - 1))


def problem(seed=0):
    """Weights of rank 3 to 0, and 30 gradients whose entries differ in size by six decades."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 4), "b": [(2, 3, 2), (5,)], "c": ()}
    over = partial(jax.tree.map, is_leaf=lambda shape: isinstance(shape, tuple))
    weights = over(lambda s: np.asarray(rng.normal(size=s), np.float32), shapes)
    scales = over(lambda s: 10 ** rng.uniform(-4, 2, s), shapes)
    draw = lambda scale: np.asarray(rng.normal(size=scale.shape) * scale, np.float32)
    return weights, [jax.tree.map(draw, scales) for _ in range(STEPS)]


def trajectory(optimizer, weights, gradients):
    """The weights after each step, as NumPy float64."""

    @jax.jit
    def step(weights, state, gradient):
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    weights = jax.tree.map(jnp.asarray, weights)
    state, steps = optimizer.init(weights), []
    for gradient in gradients:
        weights, state = step(weights, state, gradient)
        steps.append(jax.tree.map(lambda w: np.asarray(w, np.float64), weights))
    return steps


def error(ours, theirs, start):
    """The largest difference, in units of the weight's size or of the way that it went."""
    worst = 0.0
    for leaf, others, first in zip(*map(by_leaf, (ours, theirs, [start])), strict=True):
        way = np.cumsum(np.abs(np.diff(np.concatenate([first, others]), axis=0)), axis=0)
        worst = max(worst, np.max(np.abs(leaf - others) / np.maximum(np.abs(others), way)))
    return worst


def by_leaf(steps):
    return [np.stack(values) for values in zip(*map(jax.tree.leaves, steps), strict=True)]


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@cases
@pytest.mark.parametrize("seed", [0, 1])
def test_the_formula_in_numpy(name, formula, hparams, seed):
    weights, gradients = problem(seed)
    # In the state a hyperparameter is float32.
    exact = {k: v if isinstance(v, bool) else np.float64(np.float32(v)) for k, v in hparams.items()}
    leaves = zip(*map(jax.tree.leaves, gradients), strict=True)
    expected = [
        list(formula(w.astype(np.float64), [g.astype(np.float64) for g in leaf], **exact))
        for w, leaf in zip(jax.tree.leaves(weights), leaves, strict=True)
    ]
    ours = trajectory(getattr(optimizers, name)(**hparams), weights, gradients)
    theirs = [list(step) for step in zip(*expected, strict=True)]
    assert error(ours, theirs, weights) < TOLERANCE


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (optimizers.sgdm(0.1), optax.sgd(0.1)),
        (optimizers.sgdm(0.1, 0.9), optax.sgd(0.1, 0.9)),
        (optimizers.sgdm(0.1, 0.9, nesterov=True), optax.sgd(0.1, 0.9, nesterov=True)),
        (
            optimizers.adagrad(0.1),
            optax.adagrad(0.1, initial_accumulator_value=0.1, eps=1e-7),
        ),
    ],
    ids=["sgd", "momentum", "nesterov", "adagrad"],
)
def test_optax_has_the_same_formula(ours, theirs):
    weights, gradients = problem()
    theirs = trajectory(theirs, weights, gradients)
    assert error(trajectory(ours, weights, gradients), theirs, weights) < TOLERANCE


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (optimizers.adam(0.1, epsilon=1e-2), optax.adam(0.1, eps=1e-2)),
        (optimizers.adamw(0.1, epsilon=1e-2), optax.adamw(0.1, eps=1e-2, weight_decay=0.004)),
        (optimizers.yogi(0.1), optax.yogi(0.1)),
    ],
    ids=["adam", "adamw", "yogi"],
)
def test_optax_places_epsilon_elsewhere(ours, theirs):
    weights, gradients = problem()
    theirs = trajectory(theirs, weights, gradients)
    assert error(trajectory(ours, weights, gradients), theirs, weights) > 1e-2


@every_builder
def test_steps_keep_the_state_and_are_traced_once(build):
    weights, gradients = problem()
    optimizer = (
        optimizers.schedule_learning_rate(build(0.1), lambda k: 0.1 / (k + 1))
        if (build is not optimizers.adafactor)
        else build(0.1)
    )
    traces = []

    @jax.jit
    def step(state, gradient):
        traces.append(1)
        return optimizer.update(gradient, state, weights)[1]

    first = state = optimizer.init(weights)
    for gradient in gradients[:3]:
        state = step(state, gradient)
    assert len(traces) == 1
    assert jax.tree.structure(first) == jax.tree.structure(state)
    kind = lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type)
    assert jax.tree.leaves(jax.tree.map(kind, first)) == jax.tree.leaves(jax.tree.map(kind, state))


SLOTS = {
    "accumulator/0": "float32",
    "accumulator/1": "float32",
    "preconditioner/0": "float32",
    "preconditioner/1": "float32",
}
RATE = {"learning_rate": "float32"}
ADAM = {**RATE, **dict.fromkeys(["beta_1", "beta_2", "epsilon"], "float32"), "step": "int32"}
TREES = [
    (optimizers.sgdm(0.1), RATE),
    (optimizers.sgdm(0.1, momentum=0.0), RATE),
    (
        optimizers.sgdm(0.1, 0.9),
        {**RATE, "momentum": "float32", **dict(list(SLOTS.items())[:2])},
    ),
    (
        optimizers.adagrad(0.1),
        {**RATE, "epsilon": "float32", **dict(list(SLOTS.items())[2:])},
    ),
    (
        optimizers.rmsprop(0.1),
        {**RATE, "decay": "float32", "epsilon": "float32", **dict(list(SLOTS.items())[2:])},
    ),
    (optimizers.adam(0.1), {**ADAM, **SLOTS}),
    (optimizers.yogi(0.1), {**ADAM, **SLOTS}),
    (optimizers.adamw(0.1), {**ADAM, **SLOTS, "weight_decay": "float32"}),
    (
        optimizers.adafactor(0.1),
        {
            "steps": "float32",
            **{f"moments/{i}/{part}": "float32" for i in (0, 1) for part in "rcv"},
            **{
                f"hparams/{name}": "float32"
                for name in [
                    "learning_rate",
                    "beta_2_decay",
                    "epsilon_1",
                    "epsilon_2",
                    "clip_threshold",
                ]
            },
            "hparams/relative_step": "bool",
        },
    ),
    (
        optimizers.schedule_learning_rate(optimizers.adagrad(0.1), lambda k: 0.2),
        {
            "round_num": "int32",
            "optimizer/learning_rate": "float32",
            "optimizer/epsilon": "float32",
            "optimizer/preconditioner/0": "float32",
            "optimizer/preconditioner/1": "float32",
        },
    ),
]


@pytest.mark.parametrize("optimizer, expected", TREES, ids=range(len(TREES)))
def test_the_state_has_tffs_names_in_tffs_order(optimizer, expected):
    state = optimizer.init([jnp.zeros((3, 2)), jnp.zeros(2)])
    dtypes = {name: str(leaf.dtype) for name, leaf in named_leaves(state).items()}
    assert list(dtypes.items()) == list(expected.items())


def test_an_adafactor_moment_is_factored_over_the_last_two_axes():
    state = optimizers.adafactor(0.1).init([jnp.zeros((5, 3, 2)), jnp.zeros(4), jnp.zeros(())])
    shapes = [[part.shape for part in moment] for moment in state["moments"]]
    assert shapes == [[(5, 3), (5, 2), (5, 3, 2)], [(0,), (0,), (4,)], [(0,), (0,), ()]]


@pytest.mark.parametrize(
    "name", ["adafactor", "adagrad", "adam", "adamw", "rmsprop", "sgdm", "yogi"]
)
def test_tffs_names_are_the_same_optimizers(name):
    assert getattr(optimizers, f"build_{name}") is getattr(optimizers, name)


# Hyperparameters.

fractions, positive = st.floats(0, 1), st.floats(0, 1e6)
BETAS = {"beta_1": fractions, "beta_2": fractions, "epsilon": positive}
HPARAMS = {
    "sgdm": {"learning_rate": positive, "momentum": st.floats(0.01, 1)},
    "adagrad": {"learning_rate": positive, "epsilon": positive},
    "rmsprop": {"learning_rate": positive, "decay": fractions, "epsilon": positive},
    "adam": {"learning_rate": positive, **BETAS},
    "adamw": {"learning_rate": positive, **BETAS, "weight_decay": positive},
    # It starts from ε², and an ε that is set later does not change that.
    "fed_adam": {"learning_rate": positive, **BETAS, "epsilon": st.just(1e-3)},
    "yogi": {"learning_rate": positive, **BETAS},
    "adafactor": {
        "learning_rate": positive,
        "beta_2_decay": st.floats(-2, 0),
        "epsilon_1": positive,
        "epsilon_2": positive,
        "clip_threshold": st.floats(1e-3, 1e3),
        "relative_step": st.booleans(),
    },
}


@pytest.mark.parametrize("name", list(HPARAMS))
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_hyperparameters_that_are_set_equal_those_built_in(name, data):
    hparams = data.draw(st.fixed_dictionaries(HPARAMS[name]))
    build, weights = getattr(optimizers, name), [jnp.ones((2, 2))]
    built = build(**hparams).init(weights)
    assert list(optimizers.get_hparams(built)) == list(HPARAMS[name])
    default = build(0.5, momentum=0.5) if name == "sgdm" else build(0.5)
    state = default.init(weights)
    assert same(optimizers.set_hparams(state, hparams), built)
    assert same(optimizers.set_hparams(state, optimizers.get_hparams(built)), built)
    others = {k: v for k, v in hparams.items() if k != "learning_rate"}
    rest = optimizers.set_hparams(built, {"learning_rate": 0.5})
    assert same(optimizers.set_hparams(state, others), rest)


def test_a_state_without_hyperparameters_has_none():
    for optimizer in (
        optax.adam(0.1),
        optimizers.schedule_learning_rate(optimizers.adam(0.1), lambda k: 0.1),
    ):
        state = optimizer.init(jnp.zeros(3))
        assert optimizers.get_hparams(state) == OrderedDict()
        assert same(optimizers.set_hparams(state, {}), state)
        with pytest.raises(
            ArgumentError, match=r"hparams has 'learning_rate', but .* has no hyperparameters;"
        ):
            optimizers.set_hparams(state, {"learning_rate": 0.1})


def test_hyperparameters_of_adafactor_are_set_on_clients_between_rounds():
    data = fb.from_clients(clients([4, 4]))
    process = fb.algorithms.fed_avg(linear_model(), optimizers.adafactor(0.1))
    state, batches = process.initialize(), fb.Batches(4)
    frozen = process.set_hparams(state, {"client_work": {"learning_rate": 0.0}})
    after, _ = process.next(frozen, data.cohort(["c0", "c1"], batches))
    moved, _ = process.next(state, data.cohort(["c0", "c1"], batches))
    assert same(after.global_model_weights, state.global_model_weights)
    assert not same(moved.global_model_weights, state.global_model_weights)
    hparams = process.get_hparams(frozen)["client_work"]
    assert hparams["relative_step"].dtype == jnp.bool_
    assert float(hparams["learning_rate"]) == 0.0


@every_builder
def test_a_rate_may_be_traced(build):
    weights, (gradient, *_) = problem()

    def step(rate):
        optimizer = build(rate)
        return optimizer.update(gradient, optimizer.init(weights), weights)

    traced, known = jax.jit(step)(0.25), jax.jit(lambda: step(0.25))()
    assert jax.tree.structure(traced) == jax.tree.structure(known)
    for ours, theirs in zip(jax.tree.leaves(traced), jax.tree.leaves(known), strict=True):
        # The compiler may fold constants in another order: an ulp.
        np.testing.assert_allclose(ours, theirs, rtol=2e-7)


def test_all_hyperparameters_may_be_traced():
    def hparams_of(values):
        state = optimizers.sgdm(*values).init(jnp.zeros(()))
        return optimizers.set_hparams(state, {"momentum": values[1] / 2})

    state = jax.jit(hparams_of)((0.5, 0.5))
    assert {k: float(v) for k, v in state.items()} == {
        "learning_rate": 0.5,
        "momentum": 0.25,
        "accumulator": 0.0,
    }


# Schedules.


def test_step_k_has_the_rate_of_k():
    optimizer = optimizers.schedule_learning_rate(optimizers.sgdm(9.0), lambda k: 0.5**k)
    state, moves = optimizer.init(jnp.zeros(())), []
    for k in range(5):
        assert int(state["round_num"]) == k
        assert float(state["optimizer"]["learning_rate"]) == 0.5**k
        move, state = optimizer.update(jnp.ones(()), state)
        moves.append(float(move))
    assert moves == [-1.0, -0.5, -0.25, -0.125, -0.0625]


@schedulable
def test_a_constant_schedule_changes_nothing(build):
    weights, gradients = problem()
    scheduled = optimizers.schedule_learning_rate(build(7.0), lambda k: 0.1)
    ours = trajectory(scheduled, weights, gradients[:5])
    theirs = trajectory(build(0.1), weights, gradients[:5])
    assert error(ours, theirs, weights) < TOLERANCE


def test_optax_schedules_count_alike():
    weights, gradients = problem()
    schedule = optax.exponential_decay(0.1, transition_steps=2, decay_rate=0.5, staircase=True)
    scheduled = optimizers.schedule_learning_rate(optimizers.sgdm(momentum=0.9), schedule)
    ours = trajectory(scheduled, weights, gradients)
    theirs = trajectory(optax.sgd(schedule, momentum=0.9), weights, gradients)
    assert error(ours, theirs, weights) < TOLERANCE


def test_a_clients_schedule_starts_anew_in_each_round_and_the_servers_goes_on():
    only_first = lambda k: jnp.where(k == 0, 0.1, 0.0)
    schedule = partial(optimizers.schedule_learning_rate, optimizers.sgdm())
    scheduled = fb.algorithms.fed_avg(
        linear_model(), schedule(only_first), schedule(lambda k: 1.0 / (k + 1))
    )
    plain = fb.algorithms.fed_avg(linear_model(), optimizers.sgdm(0.1))
    data = fb.from_clients(clients([4]))
    state, expected = scheduled.initialize(), plain.initialize()
    for round in range(2):
        # Two epochs of one batch: the second has the rate 0.
        state, _ = scheduled.next(state, data.cohort(["c0"], fb.Batches(4, num_epochs=2)))
        before = expected.global_model_weights
        expected, _ = plain.next(expected, data.cohort(["c0"], fb.Batches(4)))
        shortened = jax.tree.map(
            lambda old, new: old + (new - old) / (round + 1), before, expected.global_model_weights
        )
        expected = plain.set_model_weights(expected, shortened)
        assert int(state.finalizer["round_num"]) == round + 1
    for ours, theirs in zip(
        jax.tree.leaves(state.global_model_weights),
        jax.tree.leaves(expected.global_model_weights),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)  # a few roundings of weights near 1


# Weights that the loss does not depend on: jax gives them zeros, TFF None, and leaves them alone.


@every_builder
def test_a_gradient_of_zeros_leaves_weights_but_adamws(build):
    weights, gradients = problem()
    zeros = [jax.tree.map(np.zeros_like, gradient) for gradient in gradients[:3]]
    last = trajectory(build(0.1), weights, zeros)[-1]
    if build is not optimizers.adamw:
        assert jax.tree.all(jax.tree.map(np.array_equal, last, weights))
    else:
        expected = jax.tree.map(lambda w: w * (1 - 0.1 * 0.004) ** 3, weights)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=TOLERANCE), last, expected)


# Errors: the argument, its value, what is allowed.

NAN = float("nan")
sgd = optimizers.sgdm(0.1)
schedule = optimizers.schedule_learning_rate
BAD = [
    (lambda: optimizers.sgdm(-0.1), "learning_rate is -0.1; it must be a number of at least 0."),
    (lambda: optimizers.sgdm(NAN), "learning_rate is nan; it must be a number of at least 0."),
    (lambda: optimizers.adam(float("inf")), "learning_rate is inf; it must be"),
    (lambda: optimizers.adam(1e39), "learning_rate is 1e+39; it must be"),
    (lambda: optimizers.sgdm("0.1"), "learning_rate is '0.1'; it must be a number of at least 0."),
    (lambda: optimizers.rmsprop(None), "learning_rate is None; it must be"),
    (lambda: optimizers.yogi(True), "learning_rate is True; it must be"),
    (lambda: optimizers.adagrad(1j), "learning_rate is 1j; it must be"),
    (lambda: optimizers.adamw([0.1]), "learning_rate is [0.1]; it must be"),
    (lambda: optimizers.adam(np.ones(2)), "learning_rate is array([1., 1.]); it must be"),
    (lambda: optimizers.sgdm(jnp.float32(-1)), "learning_rate is Array(-1., dtype=float32); it"),
    (lambda: optimizers.sgdm(0.1, 1.5), "momentum is 1.5; it must be a number from 0 to 1."),
    (lambda: optimizers.sgdm(0.1, -0.5), "momentum is -0.5; it must be a number from 0 to 1."),
    (lambda: optimizers.sgdm(0.1, NAN), "momentum is nan; it must be a number from 0 to 1."),
    (lambda: optimizers.sgdm(0.1, nesterov=True), "momentum with nesterov=True is None; it must"),
    (lambda: optimizers.sgdm(0.1, 0.0, nesterov=True), "momentum with nesterov=True is 0.0; it"),
    (lambda: optimizers.adam(0.1, beta_1=1.1), "beta_1 is 1.1; it must be a number from 0 to 1."),
    (lambda: optimizers.yogi(0.1, beta_2=-1), "beta_2 is -1; it must be a number from 0 to 1."),
    (lambda: optimizers.adamw(0.1, epsilon=-1e-7), "epsilon is -1e-07; it must be a number of at"),
    (lambda: optimizers.adamw(0.1, weight_decay=-1), "weight_decay is -1; it must be a number of"),
    (lambda: optimizers.rmsprop(0.1, decay=2), "decay is 2; it must be a number from 0 to 1."),
    (lambda: optimizers.adagrad(0.1, -0.1), "initial_preconditioner_value is -0.1; it must be a"),
    (
        lambda: optimizers.yogi(0.1, initial_preconditioner_value=NAN),
        "initial_preconditioner_value is nan; it must be a number of at least 0.",
    ),
    (lambda: optimizers.adafactor(-1.0), "learning_rate is -1.0; it must be"),
    (lambda: optimizers.adafactor(1, beta_2_decay=0.8), "beta_2_decay is 0.8; it must be a number"),
    (lambda: optimizers.adafactor(1, epsilon_1=-1), "epsilon_1 is -1; it must be a number of at"),
    (lambda: optimizers.adafactor(1, epsilon_2=NAN), "epsilon_2 is nan; it must be a number of at"),
    (
        lambda: optimizers.adafactor(1, clip_threshold=0.0),
        "clip_threshold is 0.0; it must be a number above 0.",
    ),
    (
        lambda: optimizers.adafactor(1, relative_step=0.5),
        "relative_step is 0.5; it must be True or False.",
    ),
    (lambda: keras_sgd_nesterov(0.1, 0.0), "momentum with nesterov=True is 0.0; it must be"),
    (lambda: keras_rmsprop(-0.1), "learning_rate is -0.1; it must be"),
    (lambda: keras_legacy_adagrad(0.1, -1), "initial_preconditioner_value is -1; it must be"),
    (lambda: schedule(sgd, lambda k: 0.1 / k), "schedule_fn(0) is Array(inf, dtype=float32"),
    (lambda: schedule(sgd, lambda k: jnp.log(k)), "schedule_fn(0) is Array(-inf, dtype=float32"),
    (
        lambda: schedule(sgd, lambda k: NAN),
        "schedule_fn(0) is nan; it must be a number of at least",
    ),
    (
        lambda: schedule(sgd, lambda k: -0.1),
        "schedule_fn(0) is -0.1; it must be a number of at lea",
    ),
    (
        lambda: schedule(sgd, lambda k: None),
        "schedule_fn(0) is None; it must be a number of at lea",
    ),
    (
        lambda: schedule(sgd, lambda k: 0.1 if k < 5 else 0.01),
        "schedule_fn takes decisions in Python, or goes through NumPy, but",
    ),
    (
        lambda: schedule(sgd, lambda k: np.array([0.1, 0.2])[k]),
        "write it with jnp.where and jnp.asarray(rates)[k], or take one of optax's schedules.",
    ),
    (
        lambda: schedule(schedule(sgd, lambda k: 0.1), lambda k: 0.1),
        "optimizer has a state (round_num, optimizer) without learning_rate; it must be one of",
    ),
    (
        lambda: schedule(optimizers.adafactor(0.1), lambda k: 0.1),
        "optimizer has a state (steps, moments, hparams) without learning_rate; it must",
    ),
    (
        lambda: schedule(optax.sgd(0.1), lambda k: 0.1),
        "(tuple) without learning_rate; it must be one of fedbridge.optimizers (not Adafactor, and",
    ),
    (
        lambda: optimizers.set_hparams(sgd.init(0.0), {"momentum": 0.9}),
        "hparams has 'momentum', but this optimizer's state has learning_rate; build",
    ),
    (
        lambda: optimizers.set_hparams(sgd.init(0.0), {"learning_rate": -1.0}),
        "hparams['learning_rate'] is -1.0; it must be a number of at least 0.",
    ),
    (
        lambda: optimizers.set_hparams(optimizers.adafactor(1).init(0.0), {"clip_threshold": -1}),
        "hparams['clip_threshold'] is -1; it must be a number above 0.",
    ),
    (
        lambda: optimizers.set_hparams(optimizers.adamw(1).init(jnp.zeros(2)), {"step": 0}),
        "hparams has 'step', but this optimizer's state has learning_rate, beta_1, beta_2, epsilon",
    ),
    (
        lambda: optimizers.adamw(1).update(1.0, optimizers.adamw(1).init(jnp.zeros(()))),
        "params is None, but this optimizer's step depends on the weights; call update(gradients,",
    ),
    (
        lambda: optimizers.adafactor(1).update(1.0, optimizers.adafactor(1).init(jnp.zeros(()))),
        "params is None, but",
    ),
]


@pytest.mark.parametrize("wrong, words", BAD, ids=range(len(BAD)))
def test_what_cannot_be_meant_is_refused(wrong, words):
    with pytest.raises(ArgumentError, match=re.escape(words)):
        wrong()


def test_a_traced_argument_of_another_shape_is_refused():
    with pytest.raises(ArgumentError, match=r"learning_rate is .*; it must be a number"):
        jax.jit(lambda rate: optimizers.sgdm(rate).init(jnp.zeros(2)))(jnp.ones(2))


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, np.float64(0.5), np.int32(1), jnp.ones(())])
def test_the_bounds_are_allowed_and_every_real_number_is_one(value):
    state = optimizers.adam(value, beta_1=value, beta_2=value, epsilon=value).init(jnp.zeros(2))
    for hparam in optimizers.get_hparams(state).values():
        assert hparam.dtype == jnp.float32
        assert float(hparam) == float(value)


def test_an_optimizer_that_knows_the_weights_by_their_tree_is_a_clients():
    model = softmax_model()
    kernels = jax.tree.map(lambda leaf: leaf.ndim > 1, model.initial_weights.trainable)
    masked = optax.chain(optax.masked(optax.set_to_zero(), kernels), optax.sgd(0.1))
    process = fb.algorithms.fed_avg(model, masked)
    data = fb.from_clients({"a": {"x": np.ones((4, 2), "f"), "y": np.zeros(4, "i4")}})
    start = process.initialize()
    end = process.next(start, data.cohort(["a"], fb.Batches(2))).state
    pairs = zip(*(jax.tree.leaves(s.global_model_weights) for s in (start, end)), strict=True)
    assert [bool((old != new).any()) for old, new in pairs] == [False, True]


def test_a_state_does_not_follow_the_array_that_it_began_with():
    model, own = softmax_model(), np.zeros(100_000, np.float32)
    start = model.initial_weights._replace(trainable=[own])
    process = fb.algorithms.fed_sgd(model._replace(initial_weights=start))
    state = process.initialize()
    own[:] = 1.0
    assert not np.asarray(state.global_model_weights.trainable[0]).any()


def softmax_model():
    return fb.models.softmax_regression((2,), 3, x="x", y="y")

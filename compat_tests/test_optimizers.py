"""The optimizers against TFF's own, called as a process calls them: tensors in, tensors out."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedbridge.jax_core import ArgumentError, from_named_leaves, named_leaves, optimizers

STEPS = 30
# Both sides compute the same operations in float32, but jax's compiler makes one rounding of a
# product and a sum, and roots and powers may differ in their last bit: half an ulp (6e-8) in about
# two operations of a step, over 30 steps and independent of each other, √60 · 6e-8 = 4.6e-7. In
# units of an entry's size, or of the way that it went where that is longer.
TRAJECTORY = 5e-7
# The bound of a probe (`fedbridge check`): one step from TFF's own state is off by at most 1e-6 of
# the step's norm and two units in the last place of the weight.
STEP = 1e-6

WEIGHTS = {
    "list": lambda draw: [draw((6, 5)), draw((2, 3, 4)), draw((7,)), draw(())],
    "nested": lambda draw: OrderedDict(a=draw((3, 2)), b=(draw((4,)), [draw((1, 5))])),
    "one": lambda draw: draw((8,)),
    "none": lambda draw: [],
}
structures = pytest.mark.parametrize("structure", WEIGHTS)

CASES = [
    ("build_sgdm", {"learning_rate": 0.1}),
    ("build_sgdm", {"learning_rate": 0.1, "momentum": 0.0}),
    ("build_sgdm", {"learning_rate": 0.1, "momentum": 0.9}),
    ("build_adagrad", {"learning_rate": 0.1}),
    ("build_adagrad", {"learning_rate": 0.1, "initial_preconditioner_value": 0.0, "epsilon": 0.01}),
    ("build_rmsprop", {"learning_rate": 0.1}),
    ("build_rmsprop", {"learning_rate": 0.1, "decay": 0.5, "epsilon": 0.01}),
    ("build_adam", {"learning_rate": 0.1}),
    ("build_adam", {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.01}),
    ("build_adamw", {"learning_rate": 0.1}),
    ("build_adamw", {"learning_rate": 0.1, "epsilon": 0.01, "weight_decay": 0.5}),
    ("build_yogi", {"learning_rate": 0.1}),
    ("build_yogi", {"learning_rate": 0.1, "initial_preconditioner_value": 0.5}),
    # At the unit level only: no process of TFF's runs with it, see below.
    ("build_adafactor", {"learning_rate": 0.1}),
    ("build_adafactor", {"learning_rate": 2.0, "relative_step": False, "clip_threshold": 0.1}),
    ("build_adafactor", {"learning_rate": 0.5, "clip_threshold": 0.5, "beta_2_decay": -0.5}),
]
cases = pytest.mark.parametrize(
    "name, arguments", CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)]
)
DEFAULTS = ["sgdm", "adagrad", "rmsprop", "adam", "adamw", "yogi", "adafactor"]


def problem(structure, steps=STEPS, seed=0):
    """Weights, and gradients whose entries differ in size by six decades."""
    rng = np.random.default_rng(seed)
    weights = WEIGHTS[structure](lambda shape: rng.normal(size=shape).astype(np.float32))
    scales = jax.tree.map(lambda w: 10 ** rng.uniform(-4, 2, w.shape), weights)
    draw = lambda scale: (rng.normal(size=scale.shape) * scale).astype(np.float32)
    return weights, [jax.tree.map(draw, scales) for _ in range(steps)]


def tensors(tree):
    """As a process passes a state: every number a tensor of its own dtype."""
    import tensorflow as tf

    return tf.nest.map_structure(tf.convert_to_tensor, tree)


def start(theirs, weights):
    import tensorflow as tf

    spec = lambda w: tf.TensorSpec(w.shape, w.dtype)
    return tensors(theirs.initialize(tf.nest.map_structure(spec, weights)))


def named(state, path=""):
    """TFF's state, or weights, as NumPy arrays under the names that fedbridge gives the leaves."""
    if isinstance(state, dict):
        parts = state.items()
    elif hasattr(state, "_asdict"):
        parts = state._asdict().items()
    elif isinstance(state, list | tuple):
        parts = enumerate(state)
    else:
        return {path.lstrip("/"): np.asarray(state)}
    return {k: v for key, part in parts for k, v in named(part, f"{path}/{key}").items()}


def arrays(state):
    return {name: jnp.asarray(leaf) for name, leaf in named(state).items()}


def kinds(leaves):
    return [(name, str(leaf.dtype), leaf.shape) for name, leaf in leaves.items()]


def check_trajectory(ours, theirs, weights, gradients):
    """Takes all steps on both sides, and each one also from TFF's state."""

    @jax.jit
    def step(weights, state, gradient):
        updates, state = ours.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    their_weights, their_state = tensors(weights), start(theirs, weights)
    weights = jax.tree.map(jnp.asarray, weights)
    state = ours.init(weights)
    first = kinds(named(their_state))
    if first[0] == ("steps", "int32", ()):  # Adafactor: float32 after its first step
        first[0] = ("steps", "float32", ())
    assert kinds(named_leaves(state)) == first
    way = {}
    old = {**named(their_weights), **named(their_state, "state")}
    for gradient in gradients:
        restart = from_named_leaves(weights, arrays(their_weights))
        probe, _ = step(restart, from_named_leaves(state, arrays(their_state)), gradient)
        weights, state = step(weights, state, gradient)
        their_state, their_weights = theirs.next(their_state, their_weights, tensors(gradient))
        new = {**named(their_weights), **named(their_state, "state")}
        moved = {k: new[k].astype(np.float64) - old[k].astype(np.float64) for k in new}
        norm = np.sqrt(sum(np.sum(moved[k] ** 2) for k in named(their_weights)))
        for k, leaf in named_leaves(probe).items():
            allowed = STEP * norm + 2 * np.spacing(np.abs(new[k]))
            assert np.all(np.abs(np.asarray(leaf, np.float64) - new[k]) <= allowed), k
        way = {k: way.get(k, 0.0) + np.abs(change) for k, change in moved.items()}
        mine = {**named_leaves(weights), **named(state, "state")}
        assert kinds(mine) == kinds(new)
        for k, value in new.items():
            error = np.abs(np.asarray(mine[k], np.float64) - value)
            assert np.all(error <= TRAJECTORY * np.maximum(np.abs(value), way[k])), k
        old = new


@structures
@cases
def test_thirty_steps_equal_tffs(tff, name, arguments, structure):
    ours = getattr(optimizers, name)(**arguments)
    theirs = getattr(tff.learning.optimizers, name)(**arguments)
    weights, gradients = problem(structure)
    check_trajectory(ours, theirs, weights, gradients)


SCHEDULED = {
    "sgdm": {"momentum": 0.9},
    "adagrad": {},
    "rmsprop": {},
    "adam": {},
    "adamw": {},
    "yogi": {},
}


@pytest.mark.parametrize("name", SCHEDULED)
def test_schedules_equal_tffs(tff, name):
    import tensorflow as tf

    modules = optimizers, tff.learning.optimizers
    inner = [getattr(m, f"build_{name}")(learning_rate=7.0, **SCHEDULED[name]) for m in modules]
    ours = optimizers.schedule_learning_rate(inner[0], lambda k: 0.1 / (k + 1.0))
    theirs = tff.learning.optimizers.schedule_learning_rate(
        inner[1], lambda k: 0.1 / (tf.cast(k, tf.float32) + 1.0)
    )
    weights, gradients = problem("list")
    check_trajectory(ours, theirs, weights, gradients)
    state = start(theirs, weights)
    assert theirs.get_hparams(state) == optimizers.get_hparams(ours.init(weights)) == {}


def test_nesterov_equals_keras(tff):
    """TFF 0.87.0 has none; its later formula is Keras'."""
    import tensorflow as tf

    with pytest.raises(TypeError, match="nesterov"):
        tff.learning.optimizers.build_sgdm(0.1, momentum=0.9, nesterov=True)
    weights, gradients = problem("list")
    ours, theirs = optimizers.sgdm(0.1, 0.9, nesterov=True), tf.keras.optimizers.SGD(0.1, 0.9, True)
    variables, state = [tf.Variable(w) for w in weights], ours.init(weights)
    way = [np.zeros(w.shape) for w in weights]
    for gradient in gradients:
        updates, state = ours.update(gradient, state)
        weights = optax.apply_updates(weights, updates)
        before = [v.numpy() for v in variables]
        theirs.apply_gradients(zip(map(tf.constant, gradient), variables, strict=True))
        for i, (w, v, b) in enumerate(zip(weights, variables, before, strict=True)):
            way[i] += np.abs(v.numpy() - b)
            # Keras has the rate inside its accumulator: it rounds elsewhere, which doubles the
            # number of roundings that differ.
            allowed = 2 * TRAJECTORY * np.maximum(np.abs(v.numpy()), way[i])
            assert np.all(np.abs(np.asarray(w, np.float64) - v.numpy()) <= allowed)


def build_both(tff, name):
    modules = optimizers, tff.learning.optimizers
    arguments = {"momentum": 0.9} if name == "sgdm" else {}
    return [getattr(module, f"build_{name}")(learning_rate=0.1, **arguments) for module in modules]


@pytest.mark.parametrize("name", DEFAULTS)
def test_hyperparameters_are_read_and_set_as_in_tff(tff, name):
    ours, theirs = build_both(tff, name)
    weights, _ = problem("list")
    state, their_state = ours.init(weights), start(theirs, weights)
    hparams, their_hparams = optimizers.get_hparams(state), theirs.get_hparams(their_state)
    assert kinds(hparams) == kinds(named(their_hparams))
    assert all(hparams[k] == v for k, v in named(their_hparams).items())
    halved = {k: v / 2 for k, v in hparams.items() if k != "relative_step"}
    state = optimizers.set_hparams(state, halved)
    their_state = theirs.set_hparams(their_state, tensors(halved))
    # Adafactor loses all but the hyperparameters, for which no process of TFF's runs with it.
    mine = optimizers.get_hparams(state) if name == "adafactor" else state
    assert kinds(named_leaves(mine)) == kinds(named(their_state))
    for k, value in named(their_state).items():
        np.testing.assert_array_equal(named_leaves(mine)[k], value)


def test_what_is_no_hyperparameter_cannot_be_set(tff):
    modules = optimizers, tff.learning.optimizers
    weights, _ = problem("list")
    ours, theirs = (module.build_sgdm(0.1, momentum=0.0) for module in modules)
    assert list(optimizers.get_hparams(ours.init(weights))) == ["learning_rate"]
    assert list(theirs.get_hparams(start(theirs, weights))) == ["learning_rate"]
    with pytest.raises(ArgumentError, match="hparams has 'momentum'"):
        optimizers.set_hparams(ours.init(weights), {"momentum": 0.5})
    with pytest.raises(KeyError, match="momentum"):
        theirs.set_hparams(start(theirs, weights), {"momentum": 0.5})


REFUSED = [
    *[(name, {"learning_rate": -0.1}) for name in DEFAULTS],
    *[(name, {"learning_rate": "0.1"}) for name in DEFAULTS],
    *[(name, {"learning_rate": None}) for name in DEFAULTS],
    ("sgdm", {"learning_rate": 0.1, "momentum": 1.5}),
    ("sgdm", {"learning_rate": 0.1, "momentum": -0.5}),
    ("adagrad", {"learning_rate": 0.1, "initial_preconditioner_value": -1.0}),
    ("adagrad", {"learning_rate": 0.1, "epsilon": -1.0}),
    ("rmsprop", {"learning_rate": 0.1, "decay": 1.5}),
    ("rmsprop", {"learning_rate": 0.1, "decay": -0.5}),
    ("rmsprop", {"learning_rate": 0.1, "epsilon": -1.0}),
    *[
        (name, {"learning_rate": 0.1, argument: value})
        for name in ("adam", "adamw", "yogi")
        for argument, value in [
            ("beta_1", 1.5),
            ("beta_1", -0.5),
            ("beta_2", 1.5),
            ("beta_2", -0.5),
            ("epsilon", -1.0),
        ]
    ],
    ("adamw", {"learning_rate": 0.1, "weight_decay": -1.0}),
    ("yogi", {"learning_rate": 0.1, "initial_preconditioner_value": -1.0}),
]


def test_what_tff_refuses_is_refused(tff):
    for name, arguments in REFUSED:
        with pytest.raises((ValueError, TypeError)):
            getattr(tff.learning.optimizers, f"build_{name}")(**arguments)
        with pytest.raises(ArgumentError, match=list(arguments)[-1]):
            getattr(optimizers, f"build_{name}")(**arguments)


def test_the_bounds_are_tffs(tff):
    for value in (0.0, 1.0):
        betas = {"beta_1": value, "beta_2": value, "epsilon": value}
        for module in (optimizers, tff.learning.optimizers):
            module.build_sgdm(value, momentum=value)
            module.build_adagrad(value, value, value)
            module.build_rmsprop(value, value, value)
            module.build_adam(value, **betas)
            module.build_adamw(value, **betas, weight_decay=value)
            module.build_yogi(value, **betas, initial_preconditioner_value=value)
            module.build_adafactor(value)


def test_tff_does_not_schedule_these_either(tff):
    weights, _ = problem("list")
    for inner in ("adafactor", "schedule"):
        for module in (optimizers, tff.learning.optimizers):
            optimizer = module.build_adafactor(0.1)
            if inner == "schedule":
                optimizer = module.schedule_learning_rate(module.build_sgdm(0.1), lambda k: 0.1)
            with pytest.raises((ArgumentError, KeyError), match="learning.rate"):
                start(module.schedule_learning_rate(optimizer, lambda k: 0.1), weights)


# Known differences, each a test that fails when it stops being true.


def test_tff_takes_a_rate_that_is_not_a_number(tff):
    """fedbridge refuses it when it is built."""
    tff.learning.optimizers.build_sgdm(float("nan"))
    tff.learning.optimizers.build_adafactor(0.1, clip_threshold=-1.0)


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_weight_without_a_gradient_stays_in_tff(tff, name):
    """Its gradient is None there and zeros here: AdamW decays it, Adafactor's moments see ε₁."""
    ours, theirs = build_both(tff, name)
    weights, _ = problem("list")
    zeros = jax.tree.map(np.zeros_like, weights)
    updates, state = ours.update(zeros, ours.init(weights), weights)
    first = start(theirs, weights)
    their_state, their_weights = theirs.next(first, tensors(weights), [None] * len(weights))
    moved = [np.any(np.asarray(update)) for update in updates]
    assert moved == [name == "adamw"] * len(weights)
    for w, v in zip(weights, their_weights, strict=True):
        np.testing.assert_array_equal(w, v)
    slots = [k for k in named(their_state) if k.startswith(("accumulator", "precond", "moments"))]
    changed = [
        k for k in slots if not np.array_equal(named_leaves(state)[k], named(their_state)[k])
    ]
    assert bool(changed) == (name == "adafactor")


@pytest.fixture(scope="module")
def fed_avg(tff):
    """Builds TFF's FedAvg of a linear model with two optimizers."""
    import tensorflow as tf

    def model_fn():
        layer = tf.keras.layers.Dense(1, input_shape=(2,))
        return tff.learning.models.from_keras_model(
            tf.keras.Sequential([layer]),
            loss=tf.keras.losses.MeanSquaredError(),
            input_spec=(tf.TensorSpec((None, 2)), tf.TensorSpec((None, 1))),
        )

    return lambda *two: tff.learning.algorithms.build_weighted_fed_avg(model_fn, *two)


def test_adafactor_runs_in_no_process_of_tffs(tff, fed_avg):
    """On a client `set_hparams` loses all but the hyperparameters; on the server `steps` changes
    its dtype. So fedbridge's is compared step by step only."""
    sgd, adafactor = (getattr(tff.learning.optimizers, f"build_{n}") for n in ("sgdm", "adafactor"))
    with pytest.raises(KeyError, match="steps"):
        fed_avg(adafactor(0.1), sgd(1.0))
    with pytest.raises(TypeError, match=r"int32 in the main branch, but dtype float32 in the else"):
        fed_avg(sgd(0.1), adafactor(0.1))


def test_an_int_rate_is_int32_in_tffs_state(tff, fed_avg):
    """And can be set to no fraction there; fedbridge's hyperparameters are float32 always."""
    sgd = tff.learning.optimizers.build_sgdm
    state = fed_avg(sgd(0.1), sgd(1)).initialize.type_signature.result.member
    assert str(state.finalizer) == "<learning_rate=int32>"
    assert str(state.client_work) == "<learning_rate=float32>"
    assert optimizers.sgdm(1).init(np.zeros(2))["learning_rate"].dtype == jnp.float32
    with pytest.raises(TypeError):
        fed_avg(sgd(0.1), sgd(1, momentum=0.9))

"""Keras optimizers turned into TFF's: 0.87.0 refuses what nearly every older script passes.

`tff.learning.optimizers` has the formula of Keras' SGD, Adam and Adagrad and of the legacy RMSprop.
Three are missing there and stand below, from `keras/src/optimizers` 2.14: SGD with Nesterov's
momentum, RMSprop (epsilon *under* the root), and the legacy Adagrad (epsilon *outside* the root).
TensorFlow is imported only when something is converted.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedbridge.jax_core import ScriptError


class Converted(NamedTuple):
    """A TFF optimizer, and how a trace names it."""

    optimizer: Any
    name: str
    arguments: dict[str, float | None]


_AROUND = ("clipnorm", "clipvalue", "global_clipnorm", "decay")
_MUST_BE_OFF = ("weight_decay", "clip_value", "use_ema", "amsgrad", "centered")
_CURE = "give TFF one of tff.learning.optimizers"


def is_keras(value: Any) -> bool:
    """Whether `value` is an instance of a Keras optimizer, new or legacy.

    Example:
        >>> is_keras(type("SGD", (), {"__module__": "tf_keras.src.optimizers.sgd"})())
        True
    """
    names = {f"{base.__module__}.{base.__name__}" for base in type(value).__mro__}
    homes = ("keras.", "tf_keras.")  # the second one is tf.keras where TF_USE_LEGACY_KERAS=1
    return any(name.startswith(homes) and "optimizers" in name for name in names)


def convert(optimizer: Any) -> Converted:
    """A TFF optimizer of the same formula.

    Raises:
        ScriptError: As `formula`.
    """
    name, arguments = formula(optimizer)
    return Converted(_make(name, arguments), name, arguments)


def formula(optimizer: Any) -> tuple[str, dict[str, Any]]:
    """The name of the formula of a Keras optimizer, as traces have it, and its arguments.

    Raises:
        ScriptError: the optimizer has no counterpart, or an option that has none.
    """
    config = optimizer.get_config()
    _refuse(optimizer, config, _AROUND)
    if isinstance(config.get("learning_rate"), dict):
        raise ScriptError(
            f"{_shown(optimizer)} with a learning-rate schedule has no counterpart in TFF 0.87.0; "
            "give a number as learning rate."
        )
    return step_formula(optimizer)


def step_formula(optimizer: Any) -> tuple[str, dict[str, Any]]:
    """The same without what stands around the step: `clips` before it, a `schedule` of its rate.

    The rate of a scheduled one is 0.

    Raises:
        ScriptError: as `formula`.
    """
    kind, config, shown = type(optimizer).__name__, optimizer.get_config(), _shown(optimizer)
    _refuse(optimizer, config, _MUST_BE_OFF)
    if kind == "RMSprop" and config["momentum"]:
        raise ScriptError(
            f"{shown}(momentum=...) has no counterpart in TFF 0.87.0, which refuses Keras "
            f"optimizers; leave momentum out or {_CURE}."
        )
    if kind not in _CONVERSIONS:
        raise ScriptError(
            f"{shown} cannot be given to TFF 0.87.0, which refuses Keras optimizers, and has no "
            f"counterpart there; use SGD, Adam, Adagrad or RMSprop, or {_CURE}."
        )
    if isinstance(config["learning_rate"], dict):
        _refuse(optimizer, config, ("decay",))
        config["learning_rate"] = 0.0
    if schedule(optimizer) is not None:  # Keras' momentum keeps the rates of the steps before
        _refuse(optimizer, config, ("momentum",))
    return _CONVERSIONS[kind](config, _is_legacy(optimizer))


def clips(optimizer: Any) -> list[tuple[str, float]]:
    """How it clips gradients, in Keras' order: the option's name and its value.

    The legacy optimizers do all that is asked for, the newer ones the first of it.

    Example:
        >>> from types import SimpleNamespace
        >>> clips(SimpleNamespace(get_config=lambda: {"clipvalue": 0.5, "clipnorm": 1}))
        [('clipnorm', 1.0)]
    """
    config = optimizer.get_config()
    if _is_legacy(optimizer):
        order = ("clipvalue", "clipnorm", "global_clipnorm")
    else:
        order = ("clipnorm", "global_clipnorm", "clipvalue")
    asked = [(option, float(config[option])) for option in order if config.get(option)]
    return asked if _is_legacy(optimizer) else asked[:1]


def schedule(optimizer: Any) -> Callable[[Any], Any] | None:
    """The rate of its steps, counted from 0, where it is not the same for all; else None."""
    config = optimizer.get_config()
    if isinstance(config["learning_rate"], dict):
        return _own_schedule(optimizer)
    if not config.get("decay"):
        return None
    rate, decay = np.float32(_number(config["learning_rate"])), np.float32(config["decay"])
    return lambda number: rate / (1 + decay * number)


def _own_schedule(optimizer: Any) -> Callable[[Any], Any]:
    if not _is_legacy(optimizer):
        return optimizer._learning_rate
    import tensorflow as tf

    own = optimizer._hyper["learning_rate"]
    return lambda number: own(tf.cast(number, tf.float32))


def _refuse(optimizer: Any, config: dict[str, Any], options: Sequence[str]) -> None:
    for option in options:
        if config.get(option):
            raise ScriptError(
                f"{_shown(optimizer)}({option}={config[option]!r}) has no counterpart in TFF "
                f"0.87.0, which refuses Keras optimizers; leave {option} out or {_CURE}."
            )


def _shown(optimizer: Any) -> str:
    legacy = "legacy." if _is_legacy(optimizer) else ""
    return f"tf.keras.optimizers.{legacy}{type(optimizer).__name__}"


def _is_legacy(optimizer: Any) -> bool:
    return ".legacy." in type(optimizer).__module__


def described(optimizer: Any) -> str:
    """A Keras optimizer as the script may have written it, for the list of adaptations.

    It names the learning rate and what makes a difference to plain SGD.
    """
    config = optimizer.get_config()
    rate, parts = config.get("learning_rate"), []
    if rate is not None:  # one of a script's own may have none
        shown = rate["class_name"] if isinstance(rate, dict) else _number(rate)
        parts.append(f"learning_rate={shown}")
    if config.get("momentum"):
        parts.append(f"momentum={_number(config['momentum'])}")
    on = [option for option in ("nesterov", *_AROUND, *_MUST_BE_OFF) if config.get(option)]
    parts += [f"{option}={config[option]!r}" for option in on]
    return f"{_shown(optimizer)}({', '.join(parts)})"


def _number(value: Any) -> float:
    # Keras keeps hyperparameters as float32 variables: 0.02 comes back as 0.019999999552965164.
    return float(str(np.float32(value)))


def _sgd(config: dict[str, Any], legacy: bool) -> tuple[str, dict[str, Any]]:
    rate, momentum = _number(config["learning_rate"]), _number(config["momentum"])
    if momentum and config["nesterov"]:
        return "keras_sgd_nesterov", {"learning_rate": rate, "momentum": momentum}
    return "build_sgdm", {"learning_rate": rate, "momentum": momentum or None}


def _adam(config: dict[str, Any], legacy: bool) -> tuple[str, dict[str, Any]]:
    return "build_adam", {
        "learning_rate": _number(config["learning_rate"]),
        "beta_1": _number(config["beta_1"]),
        "beta_2": _number(config["beta_2"]),
        "epsilon": _epsilon(config),
    }


def _adagrad(config: dict[str, Any], legacy: bool) -> tuple[str, dict[str, Any]]:
    return "keras_legacy_adagrad" if legacy else "build_adagrad", {
        "learning_rate": _number(config["learning_rate"]),
        "initial_preconditioner_value": _number(config["initial_accumulator_value"]),
        "epsilon": _epsilon(config),
    }


def _rmsprop(config: dict[str, Any], legacy: bool) -> tuple[str, dict[str, Any]]:
    return "build_rmsprop" if legacy else "keras_rmsprop", {
        "learning_rate": _number(config["learning_rate"]),
        "decay": _number(config["rho"]),
        "epsilon": _epsilon(config),
    }


def _epsilon(config: dict[str, Any]) -> float:
    return 1e-7 if config["epsilon"] is None else _number(config["epsilon"])


_CONVERSIONS: dict[str, Callable[[dict[str, Any], bool], tuple[str, dict[str, Any]]]] = {
    "SGD": _sgd,
    "Adam": _adam,
    "Adagrad": _adagrad,
    "RMSprop": _rmsprop,
}


def _make(name: str, arguments: dict[str, Any]) -> Any:
    """The optimizer called `name`: one of TFF's own, or one of the three below."""
    import tensorflow as tf
    import tensorflow_federated as tff

    if name.startswith("build_"):
        return getattr(tff.learning.optimizers, name)(**arguments)

    def nesterov(state, w, a, g):  # w ← w - lr (g + m a),  a ← m a + g
        a = state["momentum"] * a + g
        return w - state["learning_rate"] * (g + state["momentum"] * a), a

    def rmsprop(state, w, v, g):  # v ← ρ v + (1 - ρ) g²,  w ← w - lr g / √(v + ε)
        v = state["decay"] * v + (1 - state["decay"]) * tf.square(g)
        return w - state["learning_rate"] * g * tf.math.rsqrt(v + state["epsilon"]), v

    def adagrad(state, w, p, g):  # p ← p + g²,  w ← w - lr g / (√p + ε)
        p = p + tf.square(g)
        return w - state["learning_rate"] * g / (tf.sqrt(p) + state["epsilon"]), p

    step, slot, first = {
        "keras_sgd_nesterov": (nesterov, "accumulator", 0.0),
        "keras_rmsprop": (rmsprop, "preconditioner", 0.0),
        "keras_legacy_adagrad": (
            adagrad, "preconditioner", arguments.get("initial_preconditioner_value")
        ),
    }[name]  # fmt: skip
    hparams = {k: v for k, v in arguments.items() if k != "initial_preconditioner_value"}

    class KerasFormula(tff.learning.optimizers.Optimizer):
        """One slot per weight, a step written as (state, w, slot, gradient) -> (w, slot)."""

        def initialize(self, specs):
            slots = tf.nest.map_structure(
                lambda s: tf.fill(s.shape, tf.cast(first, s.dtype)), specs
            )
            return collections.OrderedDict(hparams, **{slot: slots})

        def next(self, state, weights, gradients):
            gradients = tff.learning.optimizers.handle_indexed_slices_gradients(gradients)
            tff.learning.optimizers.check_weights_gradients_match(weights, gradients)
            pairs = [
                (w, s) if g is None else step(state, w, s, g)
                for w, s, g in zip(
                    tf.nest.flatten(weights),
                    tf.nest.flatten(state[slot]),
                    tf.nest.flatten(gradients),
                    strict=True,
                )
            ]
            new = tf.nest.pack_sequence_as(weights, [w for w, _ in pairs])
            slots = tf.nest.pack_sequence_as(state[slot], [s for _, s in pairs])
            return collections.OrderedDict(state, **{slot: slots}), new

        def get_hparams(self, state):
            return collections.OrderedDict((key, state[key]) for key in hparams)

        def set_hparams(self, state, hparams):
            return collections.OrderedDict(state, **hparams)

    return KerasFormula()

"""Results as a replay would make them, for the tests of what shows them."""

import math

from fedbridge.bridge.result import EvaluationResult, Result, RoundResult, TensorError

REASONS = {
    "match": "3 rounds agree with TFF.",
    "differs": "round 2, tensor trainable/1: the probe differs by 2.0e-03.",
    "not comparable": "the model has a Dropout layer, whose random bits differ.",
}


def result(verdict="match", *, nan=False, rounds=3, script="train.py --model softmax"):
    """A result with this verdict; with `nan` every number that can be NaN is."""
    training = tuple(one_round(n, verdict != "differs" or n < 2, nan) for n in range(1, rounds + 1))
    none = verdict == "not comparable"
    return Result(
        verdict=verdict,
        reason=REASONS[verdict],
        adapted=("tf.keras.optimizers.SGD(learning_rate=0.02) -> build_sgdm(learning_rate=0.02)",),
        notes=("accuracy of <b>empty</b> & other clients: see docs/differences",),
        rounds=() if none else training,
        evaluations=()
        if none
        else (EvaluationResult(1, 1.5, 1.5, {"eval": {"loss": 1.5}}, {"eval": {}}, True, None),),
        speedup=None if none else math.nan if nan else 12.34,
        speedup_with_compile=None if none else 3.0,
        seconds={"build": 4.1, "compile": None},
        versions={"tensorflow_federated": "0.87.0", "jax": "0.10.2"},
        script=script,
    )


def one_round(number, passed=True, nan=False):
    loss = math.nan if nan else 4.0 / number
    error = math.nan if nan else 3e-8 if passed else 2e-3
    tensors = tuple(TensorError(f"trainable/{i}", error, error, 1e-8) for i in (1, 0))
    return RoundResult(
        round=number,
        loss_reference=loss,
        loss=loss,
        probe_error=error,
        round_error=error,
        noise_floor=1e-8,
        seconds_reference=None if nan else 3.2,
        seconds=0.25,
        passed=passed,
        failure=None if passed else "the probe differs by 2.0e-03 in trainable/1.",
        tensors=tensors,
        metrics_reference={"client_work": {"train": {"loss": loss, "num_examples": 40}}},
        metrics={"client_work": {"train": {"loss": loss, "num_examples": 40}}},
        drift=math.inf if nan else 0.0,
    )

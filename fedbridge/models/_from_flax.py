"""A flax module and a loss as a `Model`."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from fedbridge.jax_core import (
    Batch,
    ClientDataError,
    Cohort,
    Forward,
    Metric,
    Model,
    ModelError,
    ModelWeights,
    check_argument,
    check_labels,
    is_whole,
    metrics as building_blocks,
)
from fedbridge.models._losses import (
    PerExample,
    accuracy,
    clipped_cross_entropy,
    cross_entropy,
)


def in_dtype(dtype: Any, tree: Any) -> Any:
    """The tree, with its floating-point leaves in this dtype."""
    cast = lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    return jax.tree.map(cast, jax.tree.map(jnp.asarray, tree))


def initial_variables(module: nn.Module, seed: int, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """A module's variables as NumPy arrays, in the order in which it makes them."""
    check_argument(is_whole(seed, -(2**63)), "seed", seed, "a whole number")

    @jax.jit
    def initialize(key: Any) -> OrderedDict[tuple[str, ...], Any]:
        variables = module.init(key, *args, **kwargs)
        return OrderedDict(flatten_dict(variables))  # jax would sort a plain dict

    flat = initialize(jax.random.key(seed))
    return unflatten_dict({name: np.asarray(leaf) for name, leaf in flat.items()})


def check_features(x: object, y: object) -> None:
    """Refuses what is no name of a feature."""
    for name, feature in (("x", x), ("y", y)):
        check_argument(isinstance(feature, str), name, feature, "the name of a feature")


def from_flax(
    module: nn.Module,
    sample: Any,
    loss: PerExample = cross_entropy,
    *,
    x: str = "x",
    y: str = "y",
    metrics: Mapping[str, PerExample] | None = None,
    prepare: Callable[[Any], Any] = lambda inputs: inputs,
    reduction: Callable[[Any, Any], Any] = lambda total, count: total / count,
    compute_dtype: Any = jnp.float32,
    seed: int = 0,
) -> Model:
    """Makes a `Model` of a flax module and a loss per example.

    Args:
        module: Called as `module.apply(variables, inputs, train=..., rngs=...)`.
        sample: Inputs of one example or more, `[batch, ...]`, to initialize with.
        loss: Per example.
        x: The feature that holds the inputs.
        y: The feature that holds the labels.
        metrics: Name to value per example; reported as means over examples.
        prepare: From the feature `x` to the module's inputs, e.g. to add an axis.
        reduction: From the sum of the losses of a batch's examples, and their number, to the
            batch's loss; the mean unless another is given.
        compute_dtype: In which the module computes, e.g. `jnp.bfloat16`; weights, loss, gradients
            and sums are float32 all the same.
        seed: Of the initial weights.

    Raises:
        ModelError: The module keeps statistics across batches, which masks would not protect.
    """
    check_features(x, y)
    inputs = prepare(jnp.asarray(sample))
    variables = initial_variables(module, seed, inputs, train=False)
    others = sorted(set(variables) - {"params"})
    if others:
        raise ModelError(
            f"{type(module).__name__}: it keeps {others} besides its parameters, which is not "
            "supported yet; use a normalization without statistics across batches."
        )

    def forward(
        weights: ModelWeights, batch: Batch, mask: Any, key: Any, training: bool
    ) -> Forward:
        params, inputs = in_dtype(compute_dtype, (weights.trainable, prepare(batch[x])))
        outputs = module.apply({"params": params}, inputs, train=training, rngs={"dropout": key})
        predictions = in_dtype(jnp.float32, outputs)
        losses = loss(batch[y], predictions)
        real = jnp.ones(losses.shape, bool) if mask is None else mask
        count = real.sum(dtype=jnp.int32)
        total = jnp.where(real, losses, 0.0).sum()
        of_batch = reduction(total, jnp.maximum(count, 1).astype(losses.dtype))
        return Forward(of_batch, predictions, of_batch, count, weights.non_trainable)

    def reported(value: PerExample) -> Metric:
        return building_blocks.mean_of(lambda batch, out, mask: value(batch[y], out.predictions))

    def num_classes(batch: Batch) -> int:
        check_inputs(batch)
        apply = lambda variables: module.apply(variables, inputs, train=False)
        return jax.eval_shape(apply, variables).shape[-1]

    def check_inputs(batch: Batch) -> None:
        if x not in batch:
            raise ClientDataError(
                f"the cohort's batches have the features {sorted(batch)}, and the model wants "
                f"{x!r}; name them so with `data.map_batches`."
            )
        if prepare(batch[x]).shape[1:] != inputs.shape[1:]:
            raise ClientDataError(
                f"feature {x!r} of the cohort: an example has the shape {batch[x].shape[1:]}, and "
                f"the model was made for {jnp.shape(sample)[1:]}; reshape it with "
                "`data.map_batches`, or make the model for this shape."
            )

    def check(cohort: Cohort) -> None:
        if loss in (cross_entropy, clipped_cross_entropy):
            check_labels(cohort, y, num_classes)

    named = {"accuracy": accuracy} if metrics is None else metrics
    return Model(
        ModelWeights(variables["params"], {}),
        forward,
        OrderedDict(
            [(name, reported(value)) for name, value in named.items()],
            loss=building_blocks.mean_loss(),
            num_examples=building_blocks.num_examples_counter(),
            num_batches=building_blocks.num_batches_counter(),
        ),
        check=check,
    )

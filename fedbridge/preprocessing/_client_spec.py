"""How a client's elements become batches, in the words of TFF's baseline tasks."""

import dataclasses
from typing import Any, SupportsInt

from fedbridge.jax_core import ArgumentError, Batches, Pipeline
from fedbridge.jax_core._errors import check_argument

SHUFFLE_BUFFER_SIZES = {"emnist": 418, "stackoverflow": 1000, "shakespeare": 50, "cifar100": 500}
"""What a `ClientSpec` without a `shuffle_buffer_size` means, by data set."""


@dataclasses.dataclass(frozen=True)
class ClientSpec:
    """TFF's `ClientSpec` (simulation/baselines/client_spec.py).

    Attributes:
        num_epochs: How many times a client goes through its elements.
        batch_size: The rows of a batch; the last one of a client may be smaller.
        max_elements: The most elements a client uses, counted after the epochs. None: all.
        shuffle_buffer_size: The buffer of the shuffle; 1 is none. None: the data set's own, see
            `SHUFFLE_BUFFER_SIZES`.

    Raises:
        ArgumentError: A number that is no positive integer.

    Example:
        >>> spec = ClientSpec(num_epochs=2, batch_size=2, max_elements=5, shuffle_buffer_size=1)
        >>> spec.pipeline("emnist").plan(size=3).rows.tolist()
        [[0, 1], [2, 0], [1, 1]]
    """

    num_epochs: SupportsInt | str  # TFF converts these two: 2.0 and "2" are 2
    batch_size: SupportsInt | str
    max_elements: int | None = None
    shuffle_buffer_size: int | None = None

    def __post_init__(self):
        for name in ("num_epochs", "batch_size"):
            object.__setattr__(self, name, _as_int(name, getattr(self, name)))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            allowed = "a positive integer" + (" or None" if field.default is None else "")
            good = isinstance(value, int) and value > 0
            check_argument(good, f"ClientSpec: {field.name}", value, allowed)

    def pipeline(self, data_set: str, seed: int | None = None) -> Pipeline:
        """The pipeline: shuffle, repeat, take, batch.

        Args:
            data_set: "emnist", "stackoverflow", "shakespeare" or "cifar100".
            seed: The shuffle's seed, as TFF's `debug_seed`; without one every plan has an order of
                its own.

        Raises:
            ArgumentError: Another data set.
        """
        known = ", ".join(map(repr, SHUFFLE_BUFFER_SIZES))
        check_argument(data_set in SHUFFLE_BUFFER_SIZES, "data_set", data_set, f"one of {known}")
        buffer = self.shuffle_buffer_size or SHUFFLE_BUFFER_SIZES[data_set]
        return Batches(
            int(self.batch_size),
            num_epochs=int(self.num_epochs),
            shuffle_buffer=buffer,
            seed=seed,
            max_elements=self.max_elements,
        )


def _as_int(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(
            f"ClientSpec: {name} is {value!r}; it must be a positive integer."
        ) from None

"""Clients are rows: the data of all clients as one column per feature."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from fedbridge.jax_core._columns import (
    Column,
    decode_column,
    describe,
    num_rows,
    take_rows,
)
from fedbridge.jax_core._errors import ClientDataError, check_bool, check_function, check_whole

if TYPE_CHECKING:
    from fedbridge.jax_core._residence import Residence

BUFFER_BYTES = 256 << 20


def identity(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """The batch itself."""
    return batch


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FederatedArrays:
    """The data of many clients: all rows packed by feature, client after client.

    Attributes:
        client_ids: In the order in which the rows lie.
        offsets: Client c owns the elements `offsets[c]:offsets[c + 1]`.
        features: Feature name to column.
        element_offsets: Where one element of a data set has become several rows: element e owns
            the rows `element_offsets[e]:element_offsets[e + 1]`. None: an element is a row.
        decode: From a batch of decoded features to the batch that a model sees; pure, and run
            inside the compiled program.
        structure: The element of the TensorFlow data set that this came from, with feature names
            for leaves, e.g. `("x", "y")`. None: an ordered dictionary of the features.
        on_device: See `resident`.
        buffer_bytes: See `resident`.
        source: The file or folder that they were read from, for errors.

    Raises:
        ClientDataError: Duplicate client ids, or offsets that do not fit the features.

    Example:
        >>> data = FederatedArrays(("a", "b"), np.array([0, 2, 3]), {"y": np.array([7, 8, 9])})
        >>> data
        FederatedArrays(2 clients, 3 examples: y int64[])
        >>> data.client("a")
        {'y': array([7, 8])}
    """

    client_ids: tuple[str, ...]
    offsets: Int64[np.ndarray, " edges"]
    features: dict[str, Column]
    element_offsets: Int64[np.ndarray, " element_edges"] | None = None
    decode: Callable[[Mapping[str, Any]], Mapping[str, Any]] = identity
    structure: Any = None
    on_device: bool | None = None
    buffer_bytes: int = BUFFER_BYTES
    source: str = ""

    def __post_init__(self):
        if len(self._positions) != len(self.client_ids):
            seen: set[str] = set()
            twice = next(i for i in self.client_ids if i in seen or seen.add(i))
            raise ClientDataError(
                f"client {twice!r}: this id occurs more than once; give every client its own id."
            )
        if len(self.offsets) != len(self.client_ids) + 1:
            raise ClientDataError(
                f"offsets: {len(self.offsets)} of them for {len(self.client_ids)} clients; "
                "there must be one more than clients."
            )
        rows = int(self.offsets[-1])
        if self.element_offsets is not None:
            rows = int(self.element_offsets[-1])
        for name, column in self.features.items():
            if num_rows(column) != rows:
                raise ClientDataError(
                    f"feature {name!r}: it has {num_rows(column)} rows where the offsets promise "
                    f"{rows}; every feature needs the same rows."
                )

    def __repr__(self) -> str:
        features = ", ".join(f"{k} {describe(v)}" for k, v in self.features.items())
        return (
            f"FederatedArrays({self.num_clients} clients, {int(self.offsets[-1])} examples: "
            f"{features})"
        )

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        return {client_id: i for i, client_id in enumerate(self.client_ids)}

    @functools.cached_property
    def residence(self) -> "Residence":
        """The columns as rounds take them, and where they lie."""
        from fedbridge.jax_core._residence import Residence

        return Residence(
            self.features, self.on_device, self.buffer_bytes, self.client_ids, self.offsets
        )

    @property
    def num_clients(self) -> int:
        """The number of clients."""
        return len(self.client_ids)

    def client_element_offsets(self, client_id: str) -> Int64[np.ndarray, " edges"] | None:
        """Which of its rows a client's elements own, counted from its first; None: one each."""
        if self.element_offsets is None:
            return None
        c = self._position(client_id)
        offsets = self.element_offsets[int(self.offsets[c]) : int(self.offsets[c + 1]) + 1]
        return offsets - offsets[0]

    def num_examples(self, client_id: str) -> int:
        """The number of elements of a client."""
        c = self._position(client_id)
        return int(self.offsets[c + 1] - self.offsets[c])

    def client_rows(self, client_id: str) -> slice:
        """Where the rows of a client lie in the columns."""
        c = self._position(client_id)
        start, stop = int(self.offsets[c]), int(self.offsets[c + 1])
        if self.element_offsets is not None:
            start, stop = int(self.element_offsets[start]), int(self.element_offsets[stop])
        return slice(start, stop)

    def client(self, client_id: str) -> dict[str, np.ndarray]:
        """The rows of one client, decoded feature by feature (without `decode`)."""
        rows = self.client_rows(client_id)
        return {k: decode_column(take_rows(v, rows)) for k, v in self.features.items()}

    def select(self, client_ids: Iterable[str]) -> "FederatedArrays":
        """The data of these clients only, in this order.

        Raises:
            ClientDataError: An unknown client, or the same one twice.
        """
        ids = tuple(client_ids)
        slices = [self.client_rows(client_id) for client_id in ids]
        rows = _join(slices)
        sizes = [self.num_examples(client_id) for client_id in ids]
        element_offsets = None
        if self.element_offsets is not None:
            positions = [self._position(client_id) for client_id in ids]
            elements = _join(
                [slice(int(self.offsets[c]), int(self.offsets[c + 1])) for c in positions]
            )
            element_offsets = _offsets(np.diff(self.element_offsets)[elements])
        return dataclasses.replace(
            self,
            client_ids=ids,
            offsets=_offsets(sizes),
            features={name: take_rows(column, rows) for name, column in self.features.items()},
            element_offsets=element_offsets,
        )

    def map_batches(
        self, fn: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> "FederatedArrays":
        """The same rows; `fn` changes every batch, inside the compiled program.

        Args:
            fn: Pure; from features to features, each `[batch, ...]`. Give the result a name and
                keep it: every call of `map_batches` makes a new function to compile.

        Example:
            >>> data = FederatedArrays(("a",), np.array([0, 1]), {"label": np.array([3])})
            >>> data.map_batches(lambda batch: {"y": batch["label"]}).decode({"label": 3})
            {'y': 3}
        """
        check_function("fn", fn, "(batch)")
        before = self.decode
        after = fn if before is identity else lambda batch: fn(before(batch))
        mapped = dataclasses.replace(self, decode=after)
        mapped.__dict__["residence"] = self.residence  # the columns are on the device once
        return mapped

    def resident(
        self, on_device: bool | None = True, buffer_bytes: int = BUFFER_BYTES
    ) -> "FederatedArrays":
        """The same data, which lies on the device while rounds run, or does not.

        Args:
            on_device: True puts all columns on the device once; a round then moves no more than
                its plan. False moves the rows of its clients in every round. None, the default of
                all data, is True where the columns take up to half of the memory that is free (on a
                CPU nothing is copied where the columns are memory-mapped).
            buffer_bytes: The most rows that move at once, in bytes; a cohort with more of them runs
                in parts, and while one is computed the next is gathered.

        Raises:
            ClientDataError: In the first round, where they are to be there and do not fit.

        Example:
            >>> data = FederatedArrays(("a",), np.array([0, 1]), {"label": np.array([3])})
            >>> data.resident(False).on_device
            False
        """
        if on_device is not None:
            check_bool("on_device", on_device)
        check_whole("buffer_bytes", buffer_bytes)
        return dataclasses.replace(self, on_device=on_device, buffer_bytes=buffer_bytes)

    def pooled(self, client_id: str = "all") -> "FederatedArrays":
        """The data of all clients as that of one; no row is copied.

        Example:
            >>> data = FederatedArrays(("a", "b"), np.array([0, 2, 3]), {"y": np.array([7, 8, 9])})
            >>> data.pooled()
            FederatedArrays(1 clients, 3 examples: y int64[])
        """
        edges = self.offsets[[0, -1]]
        pooled = dataclasses.replace(self, client_ids=(client_id,), offsets=edges)
        pooled.__dict__["residence"] = self.residence
        return pooled

    def cohort(
        self, client_ids: Sequence[str], batches: Any, *, round: int = 1, seed: int = 0
    ) -> Any:
        """The cohort of these clients in one round.

        Args:
            client_ids: Who takes part, in this order; the same client may come twice.
            batches: A `Pipeline`: how a client's examples become batches. Or one for each named
                stream: personalization has "train" and "test".
            round: With `seed` and the client's id it fixes the order of shuffles without a seed of
                their own, the keys of dropout, of samples and of the noise of differential
                privacy. A loop counts it up, as `fb.train` does: rounds
                of one number draw the same, and noise that is drawn twice hides nothing.
            seed: See `round`.

        Raises:
            ClientDataError: An unknown client, or a feature that no program can hold.

        Example:
            >>> from fedbridge.jax_core import Batches
            >>> data = FederatedArrays(("a",), np.array([0, 3]), {"y": np.array([7, 8, 9], "i4")})
            >>> data.cohort(["a"], Batches(batch_size=2)).streams["train"].sizes[:3].tolist()
            [2, 1, 0]
        """
        from fedbridge.jax_core._cohort import cohort_of

        if isinstance(client_ids, str):
            raise ClientDataError(
                f"cohort: {client_ids!r} is one client id, not a list of them; pass "
                f"[{client_ids!r}]."
            )

        return cohort_of(self, client_ids, batches, round=round, seed=seed)

    def to_client_data(self) -> Any:
        """A `tff.simulation.datasets.ClientData` of the same elements (needs TFF)."""
        from fedbridge.tff_io import to_client_data

        return to_client_data(self)

    def _position(self, client_id: str) -> int:
        try:
            return self._positions[client_id]
        except (KeyError, TypeError):  # a list, say, is no key
            some = ", ".join(map(repr, self.client_ids[:3])) + (
                ", ..." if len(self.client_ids) > 3 else ""
            )
            raise ClientDataError(
                f"client {client_id!r}: there is no such client; `client_ids` lists the "
                f"{len(self.client_ids)} there are ({some})."
            ) from None


def _offsets(sizes: Any) -> Int64[np.ndarray, " edges"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _join(slices: Sequence[slice]) -> Any:
    """The rows of all slices; a slice itself where they lie side by side."""
    if slices and all(a.stop == b.start for a, b in itertools.pairwise(slices)):
        return slice(slices[0].start, slices[-1].stop)
    pieces = [np.arange(s.start, s.stop) for s in slices]
    return np.concatenate([np.zeros(0, np.int64), *pieces])

"""Which rows of a client form which batch: `tf.data`'s steps, run on row numbers alone.

    fb.pipeline.repeat(5).shuffle(100, seed=1).batch(20).plan(size=460)

Every step turns a source of numbers into a source of numbers. A *source* makes iterators, and an
iterator is a function `pull(n)` that returns the next n numbers, fewer only at the end. `pull(n)`
does what n calls of TensorFlow's `GetNext` do and no more: how far a step has read decides how many
iterators were made upstream, and every iterator of a reshuffling shuffle takes the next pair of
seeds. So the order is TensorFlow's in the first iteration and in those that follow. (An exception:
where two shuffles stand directly before a repeat that a take cuts short, TensorFlow reads ahead
into epochs that nobody sees, and later iterations differ.)

Sources: tensorflow/core/kernels/data/{shuffle,repeat,take,skip,batch}_dataset_op.cc (TF 2.14.1).
"""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Int32, Int64

from fedbridge.jax_core._errors import ClientDataError, check_bool
from fedbridge.jax_core._philox import philox_words

Pull = Callable[[int], list[int]]
Source = Callable[[], Pull]
Size = int | float  # a count of rows, or infinity

_NO_GLOBAL_SEED = 87654321  # what TensorFlow takes where tf.random.set_seed was not called
_MAX_INT32 = 2**31 - 1


class ClientPlan(NamedTuple):
    """The batches of one client, as numbers of its rows.

    Attributes:
        rows: The rows of every batch; a partial batch is filled up with its own rows, repeated.
        sizes: How many rows of each batch are real.
    """

    rows: Int32[np.ndarray, "steps batch"]
    sizes: Int32[np.ndarray, " steps"]


def _elements(size: int) -> Source:
    def make() -> Pull:
        position = 0

        def pull(n: int) -> list[int]:
            nonlocal position
            numbers = list(range(position, min(position + n, size)))
            position += len(numbers)
            return numbers

        return pull

    return make


# The steps are no tuples: take(5) and skip(5) would be equal then, and plans are cached.
@dataclasses.dataclass(frozen=True)
class _Repeat:
    times: Size
    fused: bool

    def cardinality(self, upstream: Size) -> Size:
        return self.times * upstream if upstream else 0

    def source(self, upstream: Source, rng: np.random.Generator) -> Source:
        def make() -> Pull:
            if not self.times:
                return lambda n: []
            pull_epoch, started, ended = upstream(), 1, False

            def pull(n: int) -> list[int]:
                nonlocal pull_epoch, started, ended
                numbers: list[int] = []
                while not ended:
                    epoch = pull_epoch(n - len(numbers))
                    numbers += epoch
                    if len(numbers) == n:
                        break
                    # TensorFlow makes one iterator more than it needs, which costs a shuffle
                    # further up a pair of seeds; but it turns shuffle().repeat() into one step,
                    # and that one does not.
                    ended = started == self.times or (self.times == math.inf and not epoch)
                    if not ended or (not self.fused and self.times < math.inf):
                        pull_epoch, started = upstream(), started + 1
                return numbers

            return pull

        return make


@dataclasses.dataclass(frozen=True)
class _Shuffle:
    buffer_size: int
    seeds: tuple[int, int] | None
    reshuffle_each_iteration: bool

    def cardinality(self, upstream: Size) -> Size:
        return upstream

    def source(self, upstream: Source, rng: np.random.Generator) -> Source:
        first, second = self.seeds or rng.integers(1, _MAX_INT32, 2).tolist()
        iterations = 0

        def make() -> Pull:
            nonlocal iterations
            seed, seed2 = first, second
            if self.reshuffle_each_iteration:
                seed, seed2 = philox_words(first, second, 2 * iterations, 2).tolist()
            iterations += 1
            return self._iterator(upstream, seed, seed2)

        return make

    def _iterator(self, upstream: Source, seed: int, seed2: int) -> Pull:
        pull_upstream: Pull | None = None  # made at the first call, as TensorFlow does
        ended = False
        drawn = 0  # by this iterator, all calls together
        held: list[int] = []  # read and not yet drawn

        def pull(n: int) -> list[int]:
            nonlocal pull_upstream, ended, drawn, held
            if n == 0:
                return []
            pull_upstream = pull_upstream or upstream()
            missing = self.buffer_size + n - 1 - len(held)
            if not ended:
                more = pull_upstream(missing)
                held += more
                ended = len(more) < missing
            count = min(n, len(held))
            turns = np.arange(count)
            # A draw chooses among the first buffer_size of the numbers held; the first of them
            # moves to the place that becomes free.
            choices = np.minimum(self.buffer_size, len(held) - turns)
            places = turns + philox_words(seed, seed2, drawn, count) % choices
            numbers = []
            for turn, place in enumerate(places.tolist()):
                numbers.append(held[place])
                held[place] = held[turn]
            drawn += count
            held = held[count:]
            return numbers

        return pull


@dataclasses.dataclass(frozen=True)
class _Take:
    number: int

    def cardinality(self, upstream: Size) -> Size:
        return min(self.number, upstream)

    def source(self, upstream: Source, rng: np.random.Generator) -> Source:
        def make() -> Pull:
            if not self.number:
                return lambda n: []
            pull_upstream, left = upstream(), self.number

            def pull(n: int) -> list[int]:
                nonlocal left
                numbers = pull_upstream(min(n, left))
                left -= min(n, left)
                return numbers

            return pull

        return make


@dataclasses.dataclass(frozen=True)
class _Skip:
    number: int

    def cardinality(self, upstream: Size) -> Size:
        return max(upstream - self.number, 0)

    def source(self, upstream: Source, rng: np.random.Generator) -> Source:
        def make() -> Pull:
            pull_upstream, left = upstream(), self.number

            def pull(n: int) -> list[int]:
                nonlocal left
                numbers = pull_upstream(n + left)[left:] if n else []
                left = 0 if n else left
                return numbers

            return pull

        return make


@dataclasses.dataclass(frozen=True)
class _Batch:
    size: int
    drop_remainder: bool

    def plan(self, numbers: Sequence[int] | Int64[np.ndarray, " rows"]) -> ClientPlan:
        steps, rest = divmod(len(numbers), self.size)
        full = np.array(numbers[: steps * self.size], np.int32).reshape(steps, self.size)
        sizes = np.full(steps, self.size, np.int32)
        if rest and not self.drop_remainder:
            last = np.resize(np.array(numbers[-rest:], np.int32), (1, self.size))
            full = np.concatenate([full, last])
            sizes = np.append(sizes, np.int32(rest))
        for array in (full, sizes):
            array.flags.writeable = False  # plans are cached and shared
        return ClientPlan(full, sizes)


class Pipeline(NamedTuple):
    """What happens to a client's rows between its data and its batches, as in `tf.data`.

    Build one from `fedbridge.pipeline`, the one without steps; every method returns a new pipeline,
    and `batch` comes last. The order of a seeded pipeline is TensorFlow's, bit for bit.

    Attributes:
        steps: The steps, first to last.

    Example:
        >>> plan = pipeline.shuffle(12, seed=5).batch(8).plan(size=12)
        >>> plan.rows.tolist()
        [[1, 0, 7, 11, 9, 10, 3, 5], [4, 8, 6, 2, 4, 8, 6, 2]]
        >>> plan.sizes.tolist()
        [8, 4]
    """

    steps: tuple[Any, ...] = ()

    def repeat(self, count: int | None = None) -> "Pipeline":
        """Repeats everything before it `count` times; without a count (or with -1) for ever."""
        count = -1 if count is None else _integer("repeat", "count", count, least=-1)
        fused = bool(self.steps) and isinstance(self.steps[-1], _Shuffle)
        return self._then("repeat", _Repeat(math.inf if count == -1 else count, fused), count == 1)

    def shuffle(
        self,
        buffer_size: int,
        seed: int | None = None,
        reshuffle_each_iteration: bool = True,
        *,
        global_seed: int | None = None,
    ) -> "Pipeline":
        """Draws each row from a buffer of the next `buffer_size` rows.

        Args:
            buffer_size: The rows to choose among; 1 changes nothing.
            seed: As in `tf.data`. Without one, every plan has an order of its own.
            reshuffle_each_iteration: Whether every repetition has an order of its own.
            global_seed: What `tf.random.set_seed` was called with; without it, it was not called.

        Raises:
            ClientDataError: `global_seed` without `seed`: TensorFlow then counts the operations
                that the program made before.
        """
        check_bool("reshuffle_each_iteration", reshuffle_each_iteration)
        buffer_size = _integer("shuffle", "buffer_size", buffer_size, least=1)
        return self._then(
            "shuffle",
            _Shuffle(buffer_size, _tensorflow_seeds(global_seed, seed), reshuffle_each_iteration),
        )

    def take(self, count: int) -> "Pipeline":
        """Ends after `count` rows; -1 takes them all."""
        count = _integer("take", "count", count, least=-1)
        return self._then("take", _Take(count), count == -1)

    def skip(self, count: int) -> "Pipeline":
        """Leaves out the first `count` rows."""
        count = _integer("skip", "count", count, least=0)
        return self._then("skip", _Skip(count), count == 0)

    def batch(self, size: int, drop_remainder: bool = False) -> "Pipeline":
        """Forms batches of `size` rows; the last may be smaller, or is dropped."""
        check_bool("drop_remainder", drop_remainder)
        return self._then("batch", _Batch(_integer("batch", "size", size, least=1), drop_remainder))

    @property
    def seeded(self) -> bool:
        """Whether every shuffle has a seed, so that a plan is always the same."""
        return all(step.seeds for step in self.steps if isinstance(step, _Shuffle))

    def plan(
        self,
        size: SupportsIndex,
        rng: np.random.Generator | None = None,
        *,
        element_offsets: Int64[np.ndarray, " edges"] | None = None,
    ) -> ClientPlan:
        """The batches of a client with `size` rows, in the first iteration over its data.

        That is the iteration that matters: TFF makes a client's data set anew in every round, so a
        seeded shuffle restarts with it.

        Args:
            size: How many rows the client has.
            rng: Where shuffles without a seed take theirs; a new generator without it.
            element_offsets: Where an element has become several rows: `size` is then the number of
                elements, element e owns the rows `element_offsets[e]:element_offsets[e + 1]`, and
                all steps but `batch` are taken by elements.

        Returns:
            The plan. Its arrays are read-only: seeded plans are cached.

        Raises:
            ClientDataError: The pipeline never ends, or does not end in `batch`.

        Example:
            >>> plan = pipeline.take(2).batch(2).plan(3, element_offsets=np.array([0, 1, 3, 9]))
            >>> plan.rows.tolist(), plan.sizes.tolist()
            ([[0, 1], [2, 2]], [2, 1])
        """
        size = _integer("plan", "size", size, least=0)
        if element_offsets is not None:
            elements = np.array(next(self._orders(size, rng)), np.int64)
            starts, counts = element_offsets[elements], np.diff(element_offsets)[elements]
            ends = np.cumsum(counts)
            rows = np.repeat(starts - ends + counts, counts) + np.arange(counts.sum())
            return self.steps[-1].plan(rows)
        if self.seeded:
            return _first_plan(self, size)
        return next(self.plans(size, rng))

    def plans(
        self, size: SupportsIndex, rng: np.random.Generator | None = None
    ) -> Iterator[ClientPlan]:
        """The batches of a client with `size` rows, in one iteration after another.

        As iterating over one `tf.data.Dataset` object several times: a shuffle that reshuffles has
        another order in each iteration.

        Args:
            size: How many rows the client has.
            rng: Where shuffles without a seed take theirs; a new generator without it.

        Raises:
            ClientDataError: The pipeline never ends, or does not end in `batch`.
        """
        size = _integer("plans", "size", size, least=0)
        orders = self._orders(size, rng)
        return (self.steps[-1].plan(numbers) for numbers in orders)

    def _orders(self, size: int, rng: np.random.Generator | None) -> Iterator[list[int]]:
        """What comes to be batched, in one iteration after another."""
        total = self._cardinality(size)
        rng = np.random.default_rng() if rng is None else rng
        source = _elements(size)
        for step in self.steps[:-1]:
            source = step.source(source, rng)
        # One more than there are: a step that repeats must come to see its end.
        return (source()(total + 1) for _ in itertools.count())

    def _then(self, method: str, step: Any, changes_nothing: bool = False) -> "Pipeline":
        if self.steps and isinstance(self.steps[-1], _Batch):
            raise ClientDataError(f"Pipeline.{method}: called after batch; let batch come last.")
        # TensorFlow drops such steps too, before it looks for a shuffle followed by a repeat.
        return self if changes_nothing else Pipeline((*self.steps, step))

    def _cardinality(self, size: int) -> int:
        if not self.steps or not isinstance(self.steps[-1], _Batch):
            raise ClientDataError(
                "Pipeline.plan: the pipeline does not form batches; end it with .batch(size)."
            )
        for total in (1, size):  # a pipeline without an end is refused for empty clients too
            for step in self.steps[:-1]:
                total = step.cardinality(total)
            if total == math.inf:
                raise ClientDataError(
                    "Pipeline.plan: repeat() without a count never ends; give it a count or follow "
                    "it with .take(n)."
                )
        return int(total)


pipeline = Pipeline()
"""The pipeline without steps, from which others are built."""


def Batches(  # noqa: N802 - reads as the noun it returns
    batch_size: int,
    num_epochs: int = 1,
    shuffle_buffer: int = 1,
    seed: int | None = None,
    max_elements: int | None = None,
    drop_remainder: bool = False,
) -> Pipeline:
    """The pipeline of TFF's baseline tasks: shuffle, repeat, take, batch.

    As `tff.simulation.baselines` preprocesses its data (baselines/*/..._preprocessing.py).

    Args:
        batch_size: The rows of a batch.
        num_epochs: How many times a client goes through its rows.
        shuffle_buffer: The buffer of the shuffle; 1 is none.
        seed: The shuffle's seed; without one every plan has an order of its own.
        max_elements: The most rows a client trains on, epochs together.
        drop_remainder: Whether to drop a last, smaller batch.

    Example:
        >>> Batches(2, num_epochs=2).plan(size=3).rows.tolist()
        [[0, 1], [2, 0], [1, 2]]
    """
    num_epochs = _integer("Batches", "num_epochs", num_epochs, least=1)
    shuffle_buffer = _integer("Batches", "shuffle_buffer", shuffle_buffer, least=1)
    if seed is not None:
        _integer("Batches", "seed", seed)
    result = pipeline.shuffle(shuffle_buffer, seed) if shuffle_buffer > 1 else pipeline
    result = result.repeat(num_epochs)
    if max_elements is not None:
        result = result.take(_integer("Batches", "max_elements", max_elements, least=0))
    return result.batch(_integer("Batches", "batch_size", batch_size, least=1), drop_remainder)


@functools.lru_cache(maxsize=1024)
def _first_plan(pipeline: Pipeline, size: int) -> ClientPlan:
    return next(pipeline.plans(size))


def _tensorflow_seeds(global_seed: int | None, seed: int | None) -> tuple[int, int] | None:
    """The pair that `tf.data` hands to its kernels (tensorflow/python/framework/random_seed.py)."""
    if seed is None:
        if global_seed is not None:
            raise ClientDataError(
                f"Pipeline.shuffle: global_seed={global_seed} without a seed gives an order that "
                "depends on the program's earlier operations; give the shuffle a seed of its own."
            )
        return None
    first = (
        _NO_GLOBAL_SEED if global_seed is None else _integer("shuffle", "global_seed", global_seed)
    )
    seeds = first % _MAX_INT32, _integer("shuffle", "seed", seed) % _MAX_INT32
    return (0, _MAX_INT32) if seeds == (0, 0) else seeds


def _integer(method: str, argument: str, value: Any, least: int | None = None) -> int:
    allowed = "an integer" if least is None else f"an integer of at least {least}"
    where = method if method == "Batches" else f"Pipeline.{method}"
    # An int is one, too; the test of a protocol takes ten times as long.
    whole = isinstance(value, int | SupportsIndex) and not isinstance(value, bool)
    if whole and (least is None or operator.index(value) >= least):
        return operator.index(value)
    raise ClientDataError(f"{where}: {argument}={value!r} is not {allowed}.")

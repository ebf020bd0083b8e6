"""Release managers of `tff.program` that pass on to others: some values, to several, now and then.

What they pass on to may be a script's own, with coroutines for methods: so these are coroutines.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedbridge import jax_core as fc
from fedbridge.tff._program_bases import ReleaseManager

_LEFT_OUT = object()


class NotFilterableError(fc.ArgumentError):
    """Fields of a named tuple would have to be left out."""


class FilteringReleaseManager(ReleaseManager):
    """Releases the leaves whose path passes.

    Args:
        release_manager: Where to.
        filter_fn: Of a path: `("client_work", "train", "loss")`.
    """

    def __init__(self, release_manager: Any, filter_fn: Callable[[tuple[Any, ...]], bool]):
        self._release_manager, self._passes = release_manager, filter_fn

    async def release(self, value: Any, key: Any) -> None:
        """Releases what is left of a value, if anything is.

        Raises:
            NotFilterableError: A field of a named tuple does not pass, and another does.
        """
        left = self._left(value, ())
        if left is not _LEFT_OUT:
            await self._release_manager.release(left, key=key)

    def _left(self, value: Any, path: tuple[Any, ...]) -> Any:
        fields = getattr(value, "_fields", None)
        if isinstance(value, Mapping):
            names = list(value)
        elif isinstance(value, list | tuple):
            names = list(fields or range(len(value)))
        else:
            return value if self._passes(path) else _LEFT_OUT
        values = value.values() if isinstance(value, Mapping) else value
        parts = [self._left(part, (*path, name)) for name, part in zip(names, values, strict=True)]
        kept = [(n, part) for n, part in zip(names, parts, strict=True) if part is not _LEFT_OUT]
        if not kept:
            return _LEFT_OUT
        make: Any = type(value)
        if isinstance(value, Mapping):
            return make(kept)
        if fields and len(kept) < len(parts):
            raise NotFilterableError(
                f"the fields of {make.__name__} cannot be left out one by one: let all of "
                f"{list(fields)} pass, or none."
            )
        return make(*parts) if fields else make([part for _, part in kept])


class GroupingReleaseManager(ReleaseManager):
    """Releases to several others.

    Args:
        release_managers: Where to, at least one.

    Raises:
        ArgumentError: There is none.
    """

    def __init__(self, release_managers: Sequence[Any]):
        some = len(release_managers) > 0
        fc.check_argument(some, "release_managers", release_managers, "at least one of them")
        self._release_managers = release_managers

    async def release(self, value: Any, key: Any) -> None:
        """Releases a value to all, one after the other."""
        for manager in self._release_managers:
            await manager.release(value, key=key)


class PeriodicReleaseManager(ReleaseManager):
    """Releases every so many values, or so much time after the one before.

    Args:
        release_manager: Where to.
        periodicity: A number, or a `datetime.timedelta`.

    Raises:
        ArgumentError: A periodicity below 1, or below a second.
    """

    def __init__(self, release_manager: Any, periodicity: int | datetime.timedelta):
        least: Any = 1 if isinstance(periodicity, int) else datetime.timedelta(seconds=1)
        long = periodicity >= least
        fc.check_argument(long, "periodicity", periodicity, "at least 1, or a second")
        self._release_manager, self._periodicity = release_manager, periodicity
        self._count, self._last = 0, datetime.datetime.now()

    async def release(self, value: Any, key: Any) -> None:
        """Releases a value, if it is its turn."""
        self._count += 1
        if isinstance(self._periodicity, int):
            turn = self._count % self._periodicity == 0
        else:
            turn = datetime.datetime.now() >= self._last + self._periodicity
        if turn:
            self._last = datetime.datetime.now()
            await self._release_manager.release(value, key=key)


class DelayedReleaseManager(ReleaseManager):
    """Releases from the so-manyth value on.

    Args:
        release_manager: Where to.
        delay: The number of the first value that is released, from 1.

    Raises:
        ArgumentError: A delay below 1.
    """

    def __init__(self, release_manager: Any, delay: int):
        fc.check_argument(delay >= 1, "delay", delay, "at least 1")
        self._release_manager, self._delay, self._count = release_manager, delay, 0

    async def release(self, value: Any, key: Any) -> None:
        """Releases a value, if it is late enough."""
        self._count += 1
        if self._count >= self._delay:
            await self._release_manager.release(value, key=key)

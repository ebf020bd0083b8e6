"""What a script's own classes of `tff.program` are derived from, and the names of their types.

Reference: TFF's program/program_state_manager.py, release_manager.py, structure_utils.py.
"""

import abc
from typing import Any, Generic, TypeVar

from fedbridge.tff_io import ProgramStateNotFoundError

MaterializableStructure = TypeVar("MaterializableStructure")
MaterializedStructure = TypeVar("MaterializedStructure")
ProgramStateStructure = TypeVar("ProgramStateStructure")
ReleasableStructure = TypeVar("ReleasableStructure")
_Key = TypeVar("_Key")


class ProgramStateManager(abc.ABC, Generic[ProgramStateStructure]):
    """The base of a script's own; its methods are coroutines."""

    @abc.abstractmethod
    def get_versions(self) -> Any:
        """The versions that there are; None for none."""

    @abc.abstractmethod
    def load(self, version: int, structure: Any) -> Any:
        """The state of a version, of the structure of another."""

    @abc.abstractmethod
    def save(self, program_state: Any, version: int) -> Any:
        """Saves a state."""

    @abc.abstractmethod
    def remove_all(self) -> Any:
        """Removes all states."""

    async def load_latest(self, structure: Any) -> tuple[Any, int]:
        """(state, version) of the latest; (None, 0) where there is none."""
        versions = await self.get_versions()
        if versions is None:
            return None, 0
        try:
            return await self.load(max(versions), structure), max(versions)
        except ProgramStateNotFoundError:
            return None, 0


class ReleaseManager(Generic[ReleasableStructure, _Key]):
    """The base of a script's own."""

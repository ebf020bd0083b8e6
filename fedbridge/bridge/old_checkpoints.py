"""`tff.simulation.FileCheckpointManager` of TFF 0.18 and 0.19, over today's program states."""

import os
from typing import Any


class OldCheckpointManager:
    """Keeps the states of rounds in a folder; subclasses say in which program states.

    Args:
        root_dir: The folder.
        prefix: Of the names in it.
        step: Only rounds that are a multiple of it are saved.
        keep_total: How many of the latest stay.
        keep_first: Whether the first one stays too.
    """

    manager: Any
    """A `tff.program.FileProgramStateManager`, TFF's or fedbridge's."""
    wait: Any
    """What its methods return, which is awaitable, as a value."""

    def __init__(
        self,
        root_dir: str | os.PathLike[str],
        prefix: str = "ckpt_",
        step: int = 1,
        keep_total: int = 1,
        keep_first: bool = True,
    ):
        self._manager = self.manager(root_dir, prefix, keep_total + int(keep_first), keep_first)
        self._step = step

    def load_latest_checkpoint_or_default(self, default: Any) -> tuple[Any, int]:
        """(state, round) of the latest; where there is none, the default, which is saved as 0."""
        state, round_num = self.load_latest_checkpoint(default)
        if state is None:
            self.save_checkpoint(default, 0)
            return default, 0
        return state, round_num

    def load_latest_checkpoint(self, structure: Any) -> tuple[Any, int]:
        """(state, round) of the latest; (None, 0) where there is none."""
        state, round_num = self.wait(self._manager.load_latest(structure))
        return state, round_num

    def load_checkpoint(self, structure: Any, round_num: int) -> Any:
        """The state of that round."""
        return self.wait(self._manager.load(round_num, structure))

    def save_checkpoint(self, state: Any, round_num: int) -> None:
        """Saves the state of a round, if it is its turn."""
        if round_num % self._step == 0:
            self.wait(self._manager.save(state, round_num))

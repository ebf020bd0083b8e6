"""`tff.simulation.FileCheckpointManager` of TFF 0.18 and 0.19."""

from fedbridge.bridge.old_checkpoints import OldCheckpointManager
from fedbridge.tff.program import FileProgramStateManager


class FileCheckpointManager(OldCheckpointManager):
    """Keeps the states of rounds in a folder, as fedbridge's program states."""

    manager = FileProgramStateManager
    wait = staticmethod(lambda done: done.value)

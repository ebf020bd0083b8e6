"""`tff.learning.templates`: a process, its state, its output."""

from fedbridge.tff._arguments import BROADCAST
from fedbridge.tff._errors import missing
from fedbridge.tff._process import (
    LearningAlgorithmState as LearningAlgorithmState,
    LearningProcess as LearningProcess,
    LearningProcessOutput as LearningProcessOutput,
)


def build_broadcast_process(value_type: object = None) -> str:
    """The model is sent as it is."""
    return BROADCAST


__getattr__ = missing("tff.learning.templates")

"""`tff.simulation.baselines`: TFF's tasks, with data sets of `tf.data` and models on JAX."""

from fedbridge.preprocessing import ClientSpec as ClientSpec
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.baselines import (
    cifar100 as cifar100,
    emnist as emnist,
    shakespeare as shakespeare,
    stackoverflow as stackoverflow,
)
from fedbridge.tff.simulation.baselines._task import (
    BaselineTask as BaselineTask,
    BaselineTaskDatasets as BaselineTaskDatasets,
)

__getattr__ = missing("tff.simulation.baselines")

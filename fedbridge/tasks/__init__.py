"""TFF's baseline tasks: data, preprocessing and model of an experiment, by name. Imports flax.

    task = fb.tasks.emnist.create_character_recognition_task(fb.ClientSpec(1, 20))

Names and arguments are those of `tff.simulation.baselines`.
"""

from fedbridge.tasks import (
    cifar100 as cifar100,
    emnist as emnist,
    shakespeare as shakespeare,
    stackoverflow as stackoverflow,
)
from fedbridge.tasks._baseline_task import (
    BaselineTask as BaselineTask,
    BaselineTaskDatasets as BaselineTaskDatasets,
)

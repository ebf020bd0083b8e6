from fedbridge.tff_io._keras_graph import random_layers as random_layers
from fedbridge.tff_io._keras_model import (
    from_keras as from_keras,
    from_keras_config as from_keras_config,
)
from fedbridge.tff_io._keras_objects import describe_keras as describe_keras

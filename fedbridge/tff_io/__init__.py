from fedbridge.tff_io._cache import cache_folder as cache_folder, verify_cache as verify_cache
from fedbridge.tff_io._client_data import (
    from_client_data as from_client_data,
    from_clients as from_clients,
    from_datasets as from_datasets,
    to_client_data as to_client_data,
)
from fedbridge.tff_io._data_folder import DataFolder as DataFolder, find_data as find_data
from fedbridge.tff_io._generate_emnist import generate_emnist as generate_emnist
from fedbridge.tff_io._keras_graph import random_layers as random_layers
from fedbridge.tff_io._keras_model import (
    from_keras as from_keras,
    from_keras_config as from_keras_config,
)
from fedbridge.tff_io._keras_objects import describe_keras as describe_keras
from fedbridge.tff_io._keras_optimizers import (
    keras_legacy_adagrad as keras_legacy_adagrad,
    keras_rmsprop as keras_rmsprop,
    keras_sgd_nesterov as keras_sgd_nesterov,
)
from fedbridge.tff_io._sql import from_sql as from_sql, write_sql as write_sql

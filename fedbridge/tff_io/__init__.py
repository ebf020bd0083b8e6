from fedbridge.tff_io._cache import cache_folder as cache_folder, verify_cache as verify_cache
from fedbridge.tff_io._client_data import (
    from_client_data as from_client_data,
    from_clients as from_clients,
    from_datasets as from_datasets,
    to_client_data as to_client_data,
)
from fedbridge.tff_io._convert import (
    convert as convert,
    convert_once as convert_once,
    from_converted as from_converted,
    verify_converted as verify_converted,
)
from fedbridge.tff_io._data_folder import (
    DataFolder as DataFolder,
    data_at_hand as data_at_hand,
    find_data as find_data,
    find_file as find_file,
    generated_data as generated_data,
    no_reader as no_reader,
)
from fedbridge.tff_io._fetch import REMOTE_FILES as REMOTE_FILES, fetch as fetch
from fedbridge.tff_io._functional import as_functional as as_functional
from fedbridge.tff_io._generate_emnist import generate_emnist as generate_emnist
from fedbridge.tff_io._generate_stackoverflow import (
    generate_stackoverflow as generate_stackoverflow,
)
from fedbridge.tff_io._hdf5 import from_hdf5 as from_hdf5
from fedbridge.tff_io._keras_constraints import (
    Constraint as Constraint,
    ignore_constraints as ignore_constraints,
)
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
from fedbridge.tff_io._keras_reconstruction import (
    Partition as Partition,
    check_names as check_names,
    from_keras_reconstruction as from_keras_reconstruction,
    from_keras_reconstruction_config as from_keras_reconstruction_config,
    from_keras_reconstruction_variables as from_keras_reconstruction_variables,
    partition_of as partition_of,
    partly_local as partly_local,
)
from fedbridge.tff_io._leaf import from_leaf as from_leaf
from fedbridge.tff_io._program_state import (
    ProgramStateExistsError as ProgramStateExistsError,
    ProgramStateNotFoundError as ProgramStateNotFoundError,
    load_latest_program_state as load_latest_program_state,
    load_program_state as load_program_state,
    program_state_versions as program_state_versions,
    save_program_state as save_program_state,
)
from fedbridge.tff_io._sql import from_sql as from_sql
from fedbridge.tff_io._sql_write import write_sql as write_sql
from fedbridge.tff_io._tensorflow_model import (
    Body as Body,
    Computed as Computed,
    from_tensorflow as from_tensorflow,
    on_host_in_32_bits as on_host_in_32_bits,
)
from fedbridge.tff_io._tensorflow_optimizer import (
    from_tensorflow_optimizer as from_tensorflow_optimizer,
)
from fedbridge.tff_io._tfds import from_tfds as from_tfds
from fedbridge.tff_io._tff_state import (
    from_tff_state as from_tff_state,
    to_tff_state as to_tff_state,
)
from fedbridge.tff_io._vocabularies import (
    read_tag_counts as read_tag_counts,
    read_word_counts as read_word_counts,
)
from fedbridge.tff_io._weights import (
    weights_from_keras as weights_from_keras,
    weights_from_npz as weights_from_npz,
    weights_from_safetensors as weights_from_safetensors,
    weights_to_keras as weights_to_keras,
    weights_to_npz as weights_to_npz,
    weights_to_safetensors as weights_to_safetensors,
)

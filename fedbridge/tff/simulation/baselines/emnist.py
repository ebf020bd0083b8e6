"""`tff.simulation.baselines.emnist`: recognize characters, or reconstruct images."""

import enum

from fedbridge import jax_core as fc
from fedbridge.preprocessing import ClientSpec
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.baselines import _preprocessing
from fedbridge.tff.simulation.baselines._task import BaselineTask, as_tff_names, task
from fedbridge.tff.simulation.datasets import ClientData, emnist


class CharacterRecognitionModel(enum.Enum):
    """The models of `create_character_recognition_task`."""

    CNN_DROPOUT = "cnn_dropout"
    CNN = "cnn"
    TWO_LAYER_DNN = "2nn"


def create_character_recognition_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    model_id: str | CharacterRecognitionModel = "cnn_dropout",
    only_digits: bool = False,
    cache_dir: str | None = None,
    use_synthetic_data: bool = False,
    debug_seed: int | None = None,
) -> BaselineTask:
    """See `fb.tasks.emnist`; the weights of a debug seed are not those of TFF.

    Raises:
        ArgumentError: Another model.
    """
    name: str = model_id.value if isinstance(model_id, enum.Enum) else model_id
    known = [model.value for model in CharacterRecognitionModel]
    fc.check_argument(name in known, "model_id", name, f"one of {', '.join(known)}")

    def model(seed: int) -> fc.Model:
        from fedbridge import tasks

        return as_tff_names(tasks.emnist.character_recognition_model(name, only_digits, seed))

    return task(
        _data(only_digits, cache_dir, use_synthetic_data),
        lambda spec: _preprocessing.characters(spec, debug_seed),
        train_client_spec,
        eval_client_spec,
        64,
        model,
        debug_seed,
    )


def create_autoencoder_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    only_digits: bool = False,
    cache_dir: str | None = None,
    use_synthetic_data: bool = False,
) -> BaselineTask:
    """See `fb.tasks.emnist`."""

    def model(seed: int) -> fc.Model:
        from fedbridge import models

        return models.emnist_autoencoder(seed=seed)

    data = _data(only_digits, cache_dir, use_synthetic_data)
    return task(data, _preprocessing.ink, train_client_spec, eval_client_spec, 64, model)


def _data(
    only_digits: bool, cache_dir: str | None, synthetic: bool
) -> tuple[ClientData, ClientData, None]:
    if synthetic:
        return emnist.get_synthetic(), emnist.get_synthetic(), None
    train, test = emnist.load_data(only_digits, cache_dir)
    return train, test, None


__getattr__ = missing("tff.simulation.baselines.emnist")

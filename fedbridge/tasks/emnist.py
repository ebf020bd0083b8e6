"""Tasks on EMNIST: recognize characters, or reconstruct images.

Reference: TFF's simulation/baselines/emnist/{char_recognition,autoencoder}_tasks.py.
"""

import os

from fedbridge import datasets, models, preprocessing
from fedbridge.jax_core import FederatedArrays, Model, check_bool
from fedbridge.preprocessing import ClientSpec
from fedbridge.tasks._baseline_task import (
    BaselineTask,
    BaselineTaskDatasets,
    check_model_id,
    pipelines,
)

_MODELS = {
    "cnn_dropout": models.emnist_cnn,
    "cnn": models.emnist_original_fedavg_cnn,
    "2nn": models.emnist_2nn,
}


def create_character_recognition_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    model_id: str = "cnn_dropout",
    only_digits: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    use_synthetic_data: bool = False,
    debug_seed: int | None = None,
    *,
    seed: int = 0,
) -> BaselineTask:
    """Recognize 62 characters, or 10 digits.

    Args:
        train_client_spec: How a client's examples become batches in training.
        eval_client_spec: How they do in an evaluation; default batches of 64, in order.
        model_id: "cnn_dropout", the CNN of Reddi et al. (2021); "cnn" or "2nn", that of McMahan et
            al. (2017) and their two hidden layers.
        only_digits: The digits only.
        cache_dir: As in `fb.datasets.emnist.load_data`.
        use_synthetic_data: TFF's synthetic data, in place of a file.
        debug_seed: Of the shuffles, and of the weights in place of `seed`. None: an order of its
            own in every round.
        seed: Of the model's initial weights.

    Raises:
        ArgumentError: Another model.
        ClientDataError: As `fb.datasets.emnist.load_data`.

    Example:
        >>> import fedbridge as fb
        >>> task = create_character_recognition_task(
        ...     fb.ClientSpec(num_epochs=1, batch_size=20), model_id="2nn", use_synthetic_data=True)
        >>> task.datasets.train_data
        FederatedArrays(2 clients, 20 examples: label int32[], pixels float32[28, 28])
        >>> process = fb.algorithms.fed_avg(task.model, fb.optimizers.sgdm(0.1))
        >>> cohort = task.datasets.sample_train_clients(1, random_seed=1)
        >>> state, metrics = process.next(process.initialize(), cohort)
        >>> int(metrics["client_work"]["train"]["num_examples"])
        10
    """
    train, test = _data(only_digits, cache_dir, use_synthetic_data)
    return create_character_recognition_task_from_datasets(
        train_client_spec,
        eval_client_spec,
        model_id,
        only_digits,
        train,
        test,
        debug_seed,
        seed=seed,
    )


def create_character_recognition_task_from_datasets(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    model_id: str,
    only_digits: bool,
    train_data: FederatedArrays,
    test_data: FederatedArrays,
    debug_seed: int | None = None,
    *,
    seed: int = 0,
) -> BaselineTask:
    """`create_character_recognition_task` on data with EMNIST's features."""
    check_model_id(model_id, _MODELS)
    prepare = preprocessing.emnist_character_recognition
    seed = seed if debug_seed is None else debug_seed
    batches = pipelines("emnist", train_client_spec, eval_client_spec, 64, debug_seed)
    data = BaselineTaskDatasets(prepare(train_data), prepare(test_data), None, *batches)
    return BaselineTask(data, character_recognition_model(model_id, only_digits, seed))


def character_recognition_model(model_id: str, only_digits: bool, seed: int) -> Model:
    """The model of the task, on batches of "x" and "y"."""
    loss = models.clipped_cross_entropy
    return _MODELS[model_id](only_digits, x="x", y="y", loss=loss, seed=seed)


def create_autoencoder_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    only_digits: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    use_synthetic_data: bool = False,
    *,
    seed: int = 0,
) -> BaselineTask:
    """Reconstruct images through a bottleneck of 30 numbers.

    Args:
        train_client_spec: As in `create_character_recognition_task`, and so are all arguments.
        eval_client_spec: How the examples become batches in an evaluation.
        only_digits: The digits only.
        cache_dir: Where the data are.
        use_synthetic_data: TFF's synthetic data.
        seed: Of the model's initial weights.
    """
    train, test = _data(only_digits, cache_dir, use_synthetic_data)
    return create_autoencoder_task_from_datasets(
        train_client_spec, eval_client_spec, train, test, seed=seed
    )


def create_autoencoder_task_from_datasets(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    train_data: FederatedArrays,
    test_data: FederatedArrays,
    *,
    seed: int = 0,
) -> BaselineTask:
    """`create_autoencoder_task` on data with EMNIST's features."""
    prepare = preprocessing.emnist_autoencoder
    batches = pipelines("emnist", train_client_spec, eval_client_spec, 64)
    data = BaselineTaskDatasets(prepare(train_data), prepare(test_data), None, *batches)
    return BaselineTask(data, models.emnist_autoencoder(seed=seed))


def _data(
    only_digits: bool, cache_dir: str | os.PathLike[str] | None, synthetic: bool
) -> tuple[FederatedArrays, FederatedArrays]:
    check_bool("use_synthetic_data", synthetic)
    if synthetic:
        return datasets.emnist.get_synthetic(), datasets.emnist.get_synthetic()
    return datasets.emnist.load_data(only_digits, cache_dir)

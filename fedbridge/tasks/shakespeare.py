"""The task on Shakespeare: predict the next character of a line.

Reference: TFF's simulation/baselines/shakespeare/char_prediction_tasks.py.
"""

import os

from fedbridge import datasets, models, preprocessing
from fedbridge.jax_core import FederatedArrays, Model, check_bool
from fedbridge.preprocessing import ClientSpec
from fedbridge.tasks._baseline_task import BaselineTask, BaselineTaskDatasets, pipelines

DEFAULT_SEQUENCE_LENGTH = 80


def create_character_prediction_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    sequence_length: int = DEFAULT_SEQUENCE_LENGTH,
    cache_dir: str | os.PathLike[str] | None = None,
    use_synthetic_data: bool = False,
    *,
    seed: int = 0,
) -> BaselineTask:
    """Predict the next character.

    Args:
        train_client_spec: How a client's snippets become batches in training.
        eval_client_spec: How they do in an evaluation; default batches of 32, in order.
        sequence_length: The characters of a row.
        cache_dir: As in `fb.datasets.shakespeare.load_data`.
        use_synthetic_data: TFF's synthetic data, in place of a file.
        seed: Of the model's initial weights.

    Raises:
        ArgumentError: A sequence length below 1.
        ClientDataError: As `fb.datasets.shakespeare.load_data`.

    Example:
        >>> import fedbridge as fb
        >>> task = create_character_prediction_task(
        ...     fb.ClientSpec(num_epochs=1, batch_size=4), use_synthetic_data=True)
        >>> task.datasets.train_data
        FederatedArrays(3 clients, 13 examples: tokens int16[81])
    """
    source = datasets.shakespeare
    check_bool("use_synthetic_data", use_synthetic_data)
    if use_synthetic_data:
        train = test = source.get_synthetic()
    else:
        train, test = source.load_data(cache_dir)
    return create_character_prediction_task_from_datasets(
        train_client_spec, eval_client_spec, sequence_length, train, test, seed=seed
    )


def create_character_prediction_task_from_datasets(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    sequence_length: int,
    train_data: FederatedArrays,
    test_data: FederatedArrays,
    *,
    seed: int = 0,
) -> BaselineTask:
    """`create_character_prediction_task` on data with the feature "snippets"."""
    prepare = lambda data: preprocessing.shakespeare_character_prediction(data, sequence_length)
    batches = pipelines("shakespeare", train_client_spec, eval_client_spec, 32)
    data = BaselineTaskDatasets(prepare(train_data), prepare(test_data), None, *batches)
    return BaselineTask(data, character_prediction_model(seed))


def character_prediction_model(seed: int) -> Model:
    """The model of the task, on batches of "x" and "y"."""
    return models.shakespeare_lstm(loss=models.mean_over_positions, mask_zero=True, seed=seed)

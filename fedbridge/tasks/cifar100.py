"""The task on CIFAR-100: classify images, by a ResNet with group normalization.

Reference: TFF's simulation/baselines/cifar100/image_classification_tasks.py.
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

DEFAULT_CROP_HEIGHT = 24
DEFAULT_CROP_WIDTH = 24
_MODELS = {
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
}


def create_image_classification_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    model_id: str = "resnet18",
    crop_height: int = DEFAULT_CROP_HEIGHT,
    crop_width: int = DEFAULT_CROP_WIDTH,
    distort_train_images: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    use_synthetic_data: bool = False,
    *,
    seed: int = 0,
) -> BaselineTask:
    """Classify images of 100 classes.

    Args:
        train_client_spec: How a client's images become batches in training.
        eval_client_spec: How they do in an evaluation; default batches of 64, in order.
        model_id: "resnet18", "resnet34" or "resnet50".
        crop_height: The middle of an image that is seen, at most 32.
        crop_width: See `crop_height`.
        distort_train_images: In training, a random crop that is mirrored half of the time.
        cache_dir: As in `fb.datasets.cifar100.load_data`.
        use_synthetic_data: TFF's synthetic data, in place of a file.
        seed: Of the model's initial weights.

    Raises:
        ArgumentError: Another model, or a crop that does not fit.
        ClientDataError: As `fb.datasets.cifar100.load_data`.
    """
    source = datasets.cifar100
    check_bool("use_synthetic_data", use_synthetic_data)
    if use_synthetic_data:
        train = test = source.get_synthetic()
    else:
        train, test = source.load_data(cache_dir)
    return create_image_classification_task_with_datasets(
        train_client_spec,
        eval_client_spec,
        model_id,
        crop_height,
        crop_width,
        distort_train_images,
        train,
        test,
        seed=seed,
    )


def create_image_classification_task_with_datasets(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None,
    model_id: str,
    crop_height: int,
    crop_width: int,
    distort_train_images: bool,
    train_data: FederatedArrays,
    test_data: FederatedArrays,
    *,
    seed: int = 0,
) -> BaselineTask:
    """`create_image_classification_task` on data with the features "image" and "label"."""
    check_model_id(model_id, _MODELS)
    crop = (crop_height, crop_width, 3)
    check_bool("distort_train_images", distort_train_images)
    if distort_train_images:  # the model crops, also the test data
        prepare = preprocessing.cifar100_whole_images
    else:
        prepare = lambda data: preprocessing.cifar100_image_classification(data, crop)
    batches = pipelines("cifar100", train_client_spec, eval_client_spec, 64)
    data = BaselineTaskDatasets(prepare(train_data), prepare(test_data), None, *batches)
    model = image_classification_model(model_id, crop, seed)
    if distort_train_images:
        model = preprocessing.random_crops(model, crop)
    return BaselineTask(data, model)


def image_classification_model(model_id: str, crop: tuple[int, int, int], seed: int) -> Model:
    """The model of the task, on batches of cropped images "x" and labels "y"."""
    return _MODELS[model_id](crop, 100, loss=models.clipped_cross_entropy, seed=seed)

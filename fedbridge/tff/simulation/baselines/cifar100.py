"""`tff.simulation.baselines.cifar100`: classify images."""

import enum

from fedbridge import jax_core as fc
from fedbridge.preprocessing import ClientSpec
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.baselines import _preprocessing
from fedbridge.tff.simulation.baselines._task import BaselineTask, as_tff_names, task
from fedbridge.tff.simulation.datasets import cifar100

DEFAULT_CROP_HEIGHT = 24
DEFAULT_CROP_WIDTH = 24
_MODELS = ("resnet18", "resnet34", "resnet50")


class ResnetModel(enum.Enum):
    """The models of `create_image_classification_task`; the two largest are not here."""

    RESNET18 = "resnet18"
    RESNET34 = "resnet34"
    RESNET50 = "resnet50"
    RESNET101 = "resnet101"
    RESNET152 = "resnet152"


def create_image_classification_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    model_id: str | ResnetModel = "resnet18",
    crop_height: int = DEFAULT_CROP_HEIGHT,
    crop_width: int = DEFAULT_CROP_WIDTH,
    distort_train_images: bool = False,
    cache_dir: str | None = None,
    use_synthetic_data: bool = False,
) -> BaselineTask:
    """See `fb.tasks.cifar100`; distorted images are made by TensorFlow, as in TFF.

    Raises:
        ArgumentError: Another model, or a crop that does not fit.
    """
    name: str = model_id.value if isinstance(model_id, enum.Enum) else model_id
    fc.check_argument(name in _MODELS, "model_id", name, f"one of {', '.join(_MODELS)}")
    for argument, size in {"crop_height": crop_height, "crop_width": crop_width}.items():
        fc.check_argument(1 <= size <= 32, argument, size, "between 1 and 32")
    crop = (crop_height, crop_width, 3)
    if use_synthetic_data:
        train = test = cifar100.get_synthetic()
    else:
        train, test = cifar100.load_data(cache_dir)

    def model(seed: int) -> fc.Model:
        from fedbridge import tasks

        return as_tff_names(tasks.cifar100.image_classification_model(name, crop, seed))

    return task(
        (train, test, None),
        lambda spec: _preprocessing.crops(spec, crop, distort_train_images),
        train_client_spec,
        eval_client_spec,
        64,
        model,
        preprocess_test=lambda spec: _preprocessing.crops(spec, crop),
    )


__getattr__ = missing("tff.simulation.baselines.cifar100")

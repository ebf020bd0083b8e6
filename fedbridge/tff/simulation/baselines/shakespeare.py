"""`tff.simulation.baselines.shakespeare`: predict the next character."""

from fedbridge import jax_core as fc
from fedbridge.preprocessing import SHAKESPEARE_CHARACTERS, ClientSpec
from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.baselines import _preprocessing
from fedbridge.tff.simulation.baselines._task import BaselineTask, task
from fedbridge.tff.simulation.datasets import shakespeare

DEFAULT_SEQUENCE_LENGTH = 80
VOCAB_LENGTH = len(SHAKESPEARE_CHARACTERS) + 4


def create_character_prediction_task(
    train_client_spec: ClientSpec,
    eval_client_spec: ClientSpec | None = None,
    sequence_length: int = DEFAULT_SEQUENCE_LENGTH,
    cache_dir: str | None = None,
    use_synthetic_data: bool = False,
) -> BaselineTask:
    """See `fb.tasks.shakespeare`.

    Raises:
        ArgumentError: A sequence length below 1.
    """
    good = sequence_length > 0
    fc.check_argument(good, "sequence_length", sequence_length, "a positive integer")
    if use_synthetic_data:
        train = test = shakespeare.get_synthetic()
    else:
        train, test = shakespeare.load_data(cache_dir)

    def model(seed: int) -> fc.Model:
        from fedbridge import tasks

        return tasks.shakespeare.character_prediction_model(seed)

    preprocess = lambda spec: _preprocessing.snippets(spec, sequence_length)
    return task((train, test, None), preprocess, train_client_spec, eval_client_spec, 32, model)


__getattr__ = missing("tff.simulation.baselines.shakespeare")

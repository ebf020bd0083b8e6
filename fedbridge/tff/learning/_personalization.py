"""`build_personalization_eval_computation`: strategies are functions of the script, in TensorFlow.

They run there, client after client, as in TFF's learning/algorithms/personalization_eval.py: a
client's strategies have one model, whose weights are the server's before each. What its metrics
have seen stays in it, unless a strategy resets them.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fedbridge import jax_core as fc
from fedbridge.tff import _arguments as arguments
from fedbridge.tff._errors import note
from fedbridge.tff._pipelines import restarted
from fedbridge.tff._process import ModelWeights

Strategy = Callable[[Any, Any, Any], Any]


def build_personalization_eval_computation(
    model_fn: Callable[[], Any],
    personalize_fn_dict: Mapping[str, Callable[[], Strategy]],
    baseline_evaluate_fn: Callable[[Any, Any], Any],
    max_num_clients: int = 100,
) -> Callable[[Any, Sequence[Mapping[str, Any]]], OrderedDict[str, Any]]:
    """The evaluation of ways to personalize a model.

    Args:
        model_fn: Makes a `VariableModel`.
        personalize_fn_dict: From a name to a function that makes a strategy: a function of the
            model, with the server's weights, and of the data sets to train and to evaluate on.
        baseline_evaluate_fn: A function of the model and the data set to evaluate on.
        max_num_clients: Of more clients than these, so many are drawn at random.

    Returns:
        A function of the server's weights and of the clients, `{"train_data": ..., "test_data":
        ...}` each. Its metrics have one value a client, `[clients, ...]`.

    Raises:
        ArgumentError: A strategy named "baseline_metrics", or less than one client.
    """
    base = "baseline_metrics"
    names = list(personalize_fn_dict)
    fc.check_argument(base not in names, "personalize_fn_dict", names, f"names other than {base!r}")
    positive = isinstance(max_num_clients, int) and max_num_clients > 0
    fc.check_argument(positive, "max_num_clients", max_num_clients, "a whole number of at least 1")
    note("strategies of personalization run in TensorFlow, client after client")

    def of_client(weights: ModelWeights, client: Mapping[str, Any]) -> OrderedDict[str, Any]:
        train, test = (restarted(client[f"{name}_data"]) for name in ("train", "test"))

        def model() -> Any:
            made = arguments.made_by(model_fn)
            weights.assign_weights_to(made)
            made.metric_finalizers()  # their variables are made outside of graphs
            return made

        found = OrderedDict({base: baseline_evaluate_fn(model(), test)})
        strategies = {name: build() for name, build in personalize_fn_dict.items()}
        personal = model()
        for name, strategy in strategies.items():
            weights.assign_weights_to(personal)
            found[name] = strategy(personal, train, test)
        return found

    def evaluate(
        server_model_weights: Any, federated_client_input: Sequence[Mapping[str, Any]]
    ) -> OrderedDict[str, Any]:
        given = getattr(server_model_weights, "global_model_weights", server_model_weights)
        weights = ModelWeights(*given)
        places = range(len(federated_client_input))
        if not places:
            raise fc.ClientDataError(
                "no client takes part in the evaluation of personalization; pass the data of at "
                "least one."
            )
        if len(places) > max_num_clients:
            places = sorted(random.sample(places, max_num_clients))
        found = [of_client(weights, federated_client_input[place]) for place in places]
        arrays = jax.tree.map(np.asarray, found)
        return jax.tree.map(lambda *values: np.stack(values), *arrays)

    return evaluate

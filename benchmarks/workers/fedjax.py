"""FedJAX's worker, in an environment made from requirements/fedjax.txt.

Settings: the backends of its `for_each_client`. "jit" runs one client after the other, "pmap" one
on each device; on a CPU every core then is a device.
"""

import importlib.metadata
import os
from typing import Any

from benchmarks import data
from benchmarks.workers.serve import Peer, serve


def open_peer(task: data.Task, setting: str) -> Peer:
    """The task in FedJAX: its own models, where it has them."""
    if setting == "pmap":
        flag = f"--xla_force_host_platform_device_count={os.cpu_count()}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    import fedjax
    import jax

    def examples(rows: dict[str, Any]) -> dict[str, Any]:
        x, y = rows.values()
        return {"x": x if task.model == "lstm" else x[..., None], "y": y}

    clients = {i: fedjax.ClientDataset(examples(c)) for i, c in data.clients(task).items()}
    test = fedjax.ClientDataset(examples(data.test_examples(task)))
    build: dict[str, Any] = {}

    def start() -> Any:
        build["model"] = model = _model(task, fedjax)
        gradient = fedjax.model_grad(model)
        hparams = fedjax.ShuffleRepeatBatchHParams(batch_size=task.batch_size, num_epochs=1)
        fedjax.set_for_each_client_backend(setting)  # read while the algorithm is built
        build["algorithm"] = fedjax.algorithms.fed_avg.federated_averaging(
            gradient,
            fedjax.optimizers.sgd(task.learning_rate),
            fedjax.optimizers.sgd(1.0),
            hparams,
        )
        params = model.init(jax.random.PRNGKey(0))
        params = jax.tree_util.tree_map(lambda leaf: data.initial_weight(leaf.shape), params)
        return build["algorithm"].init(params)

    def train(state: Any, first: int, count: int) -> Any:
        for round in range(first, first + count):
            ids = data.cohort(task, round)
            keys = jax.random.split(jax.random.PRNGKey(round), len(ids))
            cohort = [(i, clients[i], key) for i, key in zip(ids, keys, strict=True)]
            state, _ = build["algorithm"].apply(state, cohort)
        jax.block_until_ready(state.params)
        return state

    def evaluate(state: Any) -> float:
        batches = test.padded_batch(batch_size=100)
        found = fedjax.evaluate_model(build["model"], state.params, batches)
        return float(found["token_loss" if task.model == "lstm" else "loss"])

    device = jax.devices()[0]
    versions = {
        "fedjax": importlib.metadata.version("fedjax"),
        "jax": jax.__version__,
        "device": device.device_kind,
    }
    memory = lambda: (device.memory_stats() or {}).get("peak_bytes_in_use")
    return Peer(versions, start, train, evaluate, memory)


def _model(task: data.Task, fedjax: Any) -> Any:
    if task.model == "lstm":
        import jax.numpy as jnp

        if not hasattr(jnp, "NINF"):  # FedJAX's model asks for it; jax 0.4.30 has it no more
            jnp.NINF = -jnp.inf
        return fedjax.models.stackoverflow.create_lstm_model(expected_length=13.3)
    if task.model != "cnn":
        emnist = fedjax.models.emnist
        make = {"lr": emnist.create_logistic_model, "2nn": emnist.create_dense_model}
        return make[task.model](only_digits=False)
    # FedJAX's CNN without its dropout.
    import haiku as hk
    import jax
    import numpy as np

    def forward(batch: dict[str, Any]) -> Any:
        layers = [
            hk.Conv2D(32, 3, padding="VALID"),
            jax.nn.relu,
            hk.Conv2D(64, 3, padding="VALID"),
            jax.nn.relu,
            hk.MaxPool((1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
            hk.Flatten(),
            hk.Linear(128),
            jax.nn.relu,
            hk.Linear(62),
        ]
        return hk.Sequential(layers)(batch["x"])

    return fedjax.create_model_from_haiku(
        hk.transform(forward),
        {"x": np.zeros((1, 28, 28, 1), np.float32), "y": np.zeros(1, np.float32)},
        lambda batch, out: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], out),
        {"loss": fedjax.metrics.CrossEntropyLoss(), "accuracy": fedjax.metrics.Accuracy()},
    )


if __name__ == "__main__":
    serve(open_peer)

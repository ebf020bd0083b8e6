"""fedbridge's worker: the public API.

Settings: "default", its defaults, and "sharded", the clients spread over all devices; on a CPU
every core then is a device.
"""

import os
import time
from typing import Any

from benchmarks import data
from benchmarks.workers.serve import Peer, serve


def open_peer(task: data.Task, setting: str) -> Peer:
    """The task in fedbridge."""
    import jax

    import fedbridge as fb

    execution = fb.default_execution
    if setting == "sharded":
        jax.config.update("jax_num_cpu_devices", os.cpu_count())
        execution = fb.sharded()
    train_data = fb.from_clients(data.clients(task))
    test_data = fb.from_clients({"test": data.test_examples(task)})
    batches = fb.Batches(task.batch_size, shuffle_buffer=task.buffer, seed=1)
    model = {
        "lr": fb.models.softmax_regression,
        "2nn": fb.models.emnist_2nn,
        "cnn": lambda: fb.models.emnist_cnn(dropout=(0.0, 0.0)),
        "lstm": lambda: fb.models.stackoverflow_lstm(data.VOCABULARY),
    }[task.model]
    built: dict[str, Any] = {}

    def start() -> Any:
        built["model"] = made = model()
        optimizer = fb.optimizers.sgdm(task.learning_rate)
        built["process"] = fb.algorithms.fed_avg(made, optimizer, execution=execution)
        weights = jax.tree.map(lambda leaf: data.initial_weight(leaf.shape), made.initial_weights)
        return built["process"].set_model_weights(built["process"].initialize(), weights)

    def train(state: Any, first: int, count: int) -> Any:
        cohort = lambda round, client_ids: data.cohort(task, first - 1 + round)
        result = fb.train(
            built["process"], train_data, batches, rounds=count, sampler=cohort, state=state
        )
        return jax.block_until_ready(result.state)

    def evaluate(state: Any) -> float:
        if "evaluate" not in built:
            built["evaluate"] = fb.central_eval(built["model"], test_data)
        return built["evaluate"](built["process"].get_model_weights(state))["loss"]

    device = jax.devices()[0]
    versions = {"fedbridge": fb.__version__, "jax": jax.__version__, "device": device.device_kind}
    memory = lambda: (device.memory_stats() or {}).get("peak_bytes_in_use")
    return Peer(versions, start, train, evaluate, memory)


def matrix_product() -> dict[str, Any]:
    """The rate of a large product, best of ten: what the same machine can do in the same run."""
    import jax
    import jax.numpy as jnp

    size = 2048
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return {"gflops": 2 * size**3 / min(seconds) / 1e9}


if __name__ == "__main__":
    serve(open_peer, {"matrix_product": matrix_product})

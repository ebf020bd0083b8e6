"""The training loop with evaluation, saved states and released metrics; then by hand, awaited."""

import asyncio
import collections
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(9)
clients = {
    f"c{i}": collections.OrderedDict(
        x=rng.rand(6 + i, 3).astype("float32"), y=rng.randint(0, 2, 6 + i).astype("int32")
    )
    for i in range(6)
}
data = tff.simulation.datasets.TestClientData(clients).preprocess(lambda d: d.batch(4))


def model_fn():
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(
            [tf.keras.layers.Dense(2, input_shape=(3,), kernel_initializer="zeros")]
        ),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=data.element_type_structure,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


process = tff.learning.algorithms.build_weighted_fed_avg(
    model_fn, tff.learning.optimizers.build_sgdm(0.5, momentum=0.5)
)
evaluation = tff.learning.algorithms.build_fed_eval(model_fn)
sample = tff.simulation.build_uniform_sampling_fn(data.client_ids, random_seed=3)


def selection(round_num):
    return [data.create_tf_dataset_for_client(i) for i in sample(round_num, 2)]


def evaluate(state, datasets):
    weights = process.get_model_weights(state)
    start = evaluation.set_model_weights(evaluation.initialize(), weights)
    metrics = evaluation.next(start, datasets).metrics
    return collections.OrderedDict(metrics["client_work"]["eval"]["current_round_metrics"])


folder = tempfile.mkdtemp()
memory = tff.program.MemoryReleaseManager()
state = tff.simulation.run_training_process(
    training_process=process,
    training_selection_fn=selection,
    total_rounds=4,
    evaluation_fn=evaluate,
    evaluation_selection_fn=lambda round_num: [
        data.create_tf_dataset_for_client(i) for i in data.client_ids
    ],
    rounds_per_evaluation=2,
    program_state_manager=tff.program.FileProgramStateManager(folder),
    metrics_managers=[memory],
)
for key, metrics in memory.values().items():
    print(key, sorted(name for name in metrics if "time" not in name))
    print(metrics.get("evaluation/loss"), metrics.get("client_work", {}).get("train"))


async def go_on():
    manager = tff.program.FileProgramStateManager(folder, keep_total=3)
    state, version = await manager.load_latest(process.initialize())
    output = process.next(state, selection(version + 1))
    await manager.save(output.state, version + 1)
    print(version, output.metrics["client_work"]["train"]["loss"], await manager.get_versions())


asyncio.run(go_on())

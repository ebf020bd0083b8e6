"""A federated program: train_model with evaluations, data sources, release managers."""

import asyncio
import collections
import datetime
import os
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

context = tff.backends.native.create_async_local_cpp_execution_context()
tff.framework.set_default_context(tff.program.NativeFederatedContext(context))

rng = np.random.RandomState(14)
X, Y = rng.rand(3, 5, 3).astype("float32"), rng.rand(3, 5, 1).astype("float32")


def dataset_of(client_id):
    i = tf.strings.to_number(client_id, tf.int32)
    rows = collections.OrderedDict(x=tf.gather(X, i), y=tf.gather(Y, i))
    return tf.data.Dataset.from_tensor_slices(rows).repeat(2).batch(4)


data = tff.simulation.datasets.ClientData.from_clients_and_tf_fn(["0", "1", "2"], dataset_of)
# All clients in every round: the order in which they are drawn changes nothing but last digits.
train = tff.program.ClientIdDataSource(data.client_ids)
root = tempfile.mkdtemp()


def model_fn():
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential([
            tf.keras.layers.Dense(1, input_shape=(3,), kernel_initializer="zeros")
        ]),
        loss=tf.keras.losses.MeanSquaredError(),
        input_spec=data.element_type_structure,
    )  # fmt: skip


class Print(tff.program.ReleaseManager):
    def __init__(self, name):
        self._name = name
        self.lines = []

    async def release(self, value, key=None):
        value = await tff.program.materialize_value(value)
        self.lines.append((self._name, key, value))


def create_state_manager(name):
    return tff.program.FileProgramStateManager(os.path.join(root, name))


metrics, evaluated, model = Print("train"), Print("evaluated"), Print("model")
compose = tff.simulation.compose_dataset_computation_with_learning_process
process = compose(
    data.dataset_computation,
    tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1)
    ),
)


def run(rounds):
    asyncio.run(
        tff.learning.programs.train_model(
            train_process=process,
            train_data_source=train,
            train_per_round_clients=3,
            train_total_rounds=rounds,
            program_state_manager=create_state_manager("train"),
            model_output_manager=model,
            train_metrics_manager=tff.program.GroupingReleaseManager([
                tff.program.PeriodicReleaseManager(metrics, 2),
                tff.program.FilteringReleaseManager(
                    metrics, lambda path: path[-1] in ("loss", "num_examples")
                ),
            ]),
            evaluation_manager=tff.learning.programs.EvaluationManager(
                data_source=train,
                aggregated_metrics_manager=evaluated,
                create_state_manager_fn=create_state_manager,
                create_process_fn=lambda name: (
                    compose(
                        data.dataset_computation, tff.learning.algorithms.build_fed_eval(model_fn)
                    ),
                    None,
                ),
                cohort_size=3,
                duration=datetime.timedelta(),
            ),
            evaluation_periodicity=2,
        )
    )  # fmt: skip


run(2)
run(4)  # goes on after the second round
for name, key, value in metrics.lines + sorted(evaluated.lines, key=lambda line: line[1]):
    print(name, key, dict(value["model_metrics"]))
for _, key, state in model.lines:
    print(key, np.round(state.global_model_weights.trainable[0].ravel(), 4).tolist())

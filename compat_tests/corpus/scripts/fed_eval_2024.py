"""2024: TFF's optimizers, federated evaluation, a sampler, train and test clients."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(3)
data = tff.simulation.datasets.TestClientData({
    f"{i:02d}": {"a": rng.randn(5 + i % 4, 3).astype("float32"), "b": rng.randn(5 + i % 4, 1).astype("float32")}
    for i in range(12)
})  # fmt: skip
train, test = tff.simulation.datasets.ClientData.train_test_client_split(data, 3, seed=4)
print(sorted(test.client_ids), len(train.client_ids))


def preprocess(dataset):
    return dataset.repeat(2).batch(3).map(lambda e: collections.OrderedDict(x=e["a"], y=e["b"]))


train, test = train.preprocess(preprocess), test.preprocess(preprocess)


def model_fn():
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(1, input_shape=(3,), kernel_initializer="ones")]
    )
    return tff.learning.models.from_keras_model(
        model,
        loss=tf.keras.losses.MeanSquaredError(),
        input_spec=train.element_type_structure,
        metrics=[tf.keras.metrics.MeanAbsoluteError()],
    )


process = tff.learning.algorithms.build_unweighted_fed_avg(
    model_fn,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.05),
    server_optimizer_fn=tff.learning.optimizers.build_adam(learning_rate=0.1, epsilon=0.01),
)
evaluation = tff.learning.algorithms.build_fed_eval(model_fn)
sample = tff.simulation.build_uniform_sampling_fn(train.client_ids, random_seed=7)
state, evaluation_state = process.initialize(), evaluation.initialize()
for round_num in range(1, 4):
    ids = sample(round_num, 2 + round_num)
    output = process.next(state, [train.create_tf_dataset_for_client(i) for i in ids])
    state = output.state
    weights = process.get_model_weights(state)
    evaluation_state = evaluation.set_model_weights(evaluation_state, weights)
    evaluated = evaluation.next(
        evaluation_state, [test.create_tf_dataset_for_client(i) for i in test.client_ids]
    )
    evaluation_state = evaluated.state
    print(ids, dict(output.metrics["client_work"]["train"]))
    print(evaluated.metrics["client_work"]["eval"]["current_round_metrics"])
    print(evaluated.metrics["client_work"]["eval"]["total_rounds_metrics"]["num_examples"])
print(process.get_hparams(state)["client_work"])

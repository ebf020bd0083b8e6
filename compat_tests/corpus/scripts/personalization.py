"""Personalization as in TFF's tutorial: fine-tuning on each client, a metric before and after."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(6)


def rows(size):
    return tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(
            x=rng.rand(size, 5).astype("float32"), y=rng.randint(0, 3, size).astype("int32")
        )
    )


clients = [
    collections.OrderedDict(train_data=rows(n), test_data=rows(m)) for n, m in ((9, 4), (5, 7))
]

spec = clients[0]["train_data"].batch(2).element_spec


def model_fn():
    model = tf.keras.Sequential([
        tf.keras.layers.InputLayer(input_shape=(5,)),
        tf.keras.layers.Dense(4, "tanh", kernel_initializer=tf.keras.initializers.GlorotUniform(seed=1)),
        tf.keras.layers.Dense(3, kernel_initializer="zeros"),
    ])  # fmt: skip
    return tff.learning.models.from_keras_model(
        model,
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=spec,
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def evaluate_fn(model, dataset, reset=True):
    if reset:
        model.reset_metrics()
    for batch in dataset.batch(3):
        model.forward_pass(batch, training=False)
    finalizers = model.metric_finalizers()
    return collections.OrderedDict(
        (name, finalizers[name](values))
        for name, values in model.report_local_unfinalized_metrics().items()
        if name != "num_batches"
    )


def build_personalize_fn(learning_rate, reset=True):
    optimizer = tf.keras.optimizers.SGD(learning_rate)

    @tf.function
    def personalize_fn(model, train_data, test_data):
        def train_one_batch(num_examples, batch):
            with tf.GradientTape() as tape:
                output = model.forward_pass(batch)
            grads = tape.gradient(output.loss, model.trainable_variables)
            optimizer.apply_gradients(
                zip(tf.nest.flatten(grads), tf.nest.flatten(model.trainable_variables))
            )
            return num_examples + output.num_examples

        results = collections.OrderedDict()
        num_examples = 0
        for epoch in range(1, 4):
            num_examples = train_data.batch(4).reduce(num_examples, train_one_batch)
            if epoch != 2:
                results[f"epoch_{epoch}"] = evaluate_fn(model, test_data, reset)
        results["num_examples"] = num_examples
        return results

    return personalize_fn


evaluate = tff.learning.algorithms.build_personalization_eval_computation(
    model_fn=model_fn,
    personalize_fn_dict=collections.OrderedDict(
        slow=lambda: build_personalize_fn(0.05),
        fast=lambda: build_personalize_fn(0.5),
        together=lambda: build_personalize_fn(0.5, reset=False),  # its metrics follow those of fast
    ),
    baseline_evaluate_fn=tf.function(evaluate_fn),
    max_num_clients=10,
)
weights = tff.learning.models.ModelWeights.from_model(model_fn()).convert_variables_to_arrays()
metrics = evaluate(weights, clients)
order = np.argsort(metrics["baseline_metrics"]["num_examples"])
for name in metrics:
    flat = tf.nest.flatten(metrics[name])
    print(name, list(metrics[name]), [np.round(leaf[order], 4).tolist() for leaf in flat])

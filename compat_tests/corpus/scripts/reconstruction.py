"""Matrix factorization with local user vectors, as in TFF's reconstruction tutorial."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

ITEMS, FACTORS = 7, 3
rng = np.random.RandomState(5)


def ratings(size):
    items = rng.randint(0, ITEMS, [size, 1]).astype("int64")
    stars = rng.randint(1, 6, [size, 1]).astype("float32")
    return tf.data.Dataset.from_tensor_slices((items, stars)).batch(3)


train, test = [ratings(n) for n in (14, 9, 4)], [ratings(n) for n in (8, 3)]


def model_fn():
    item = tf.keras.layers.Input(shape=[1], name="Item")
    embedding = tf.keras.layers.Embedding(
        ITEMS, FACTORS, embeddings_initializer=tf.keras.initializers.RandomUniform(seed=2)
    )
    user = tf.keras.layers.Dense(
        1, use_bias=False, kernel_initializer=tf.keras.initializers.RandomUniform(seed=3)
    )
    flat = tf.keras.layers.Flatten()(embedding(item))
    model = tf.keras.Model(inputs=item, outputs=user(flat))
    return tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
        keras_model=model,
        global_layers=[embedding],
        local_layers=[user],
        input_spec=train[0].element_spec,
    )


loss_fn = lambda: tf.keras.losses.MeanSquaredError()
metrics_fn = lambda: [tf.keras.metrics.MeanAbsoluteError(name="mae")]
process = tff.learning.algorithms.build_fed_recon(
    model_fn=model_fn,
    loss_fn=loss_fn,
    metrics_fn=metrics_fn,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.5),
    reconstruction_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
)
evaluation = tff.learning.algorithms.build_fed_recon_eval(
    model_fn,
    loss_fn=loss_fn,
    metrics_fn=metrics_fn,
    reconstruction_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
    dataset_split_fn=tff.learning.models.ReconstructionModel.build_dataset_split_fn(
        recon_epochs=2, recon_steps_max=3
    ),
)
state, evaluation_state = process.initialize(), evaluation.initialize()
for round_num in range(3):
    state, metrics = process.next(state, train)
    print(round_num, metrics["client_work"]["train"])
    weights = process.get_model_weights(state)
    evaluation_state = evaluation.set_model_weights(evaluation_state, weights)
    output = evaluation.next(evaluation_state, test)
    evaluation_state = output.state
    print(output.metrics["client_work"]["eval"]["current_round_metrics"])
print(np.round(process.get_model_weights(state).trainable[0][0], 4).tolist())
print(process.initialize.type_signature, process.next.type_signature)

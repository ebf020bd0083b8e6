"""k-means over the clients' points: a seed, a client with few points, centroids set by hand."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

rng = np.random.RandomState(1)
clients = [
    tf.data.Dataset.from_tensor_slices((rng.randn(n, 2) + center).astype("float32"))
    for n, center in ((12, (3, 0)), (70, (-3, 1)), (5, (0, -4)))
]
process = tff.learning.algorithms.build_fed_kmeans(
    num_clusters=3, data_shape=(2,), random_seed=(3, 4)
)
state = process.initialize()
print(np.round(process.get_model_weights(state), 4).tolist())
for round_num in range(3):
    output = process.next(state, clients[: round_num + 1])
    state = output.state
    print(round_num, output.metrics["client_work"])
    print(np.round(process.get_model_weights(state), 4).tolist())
state = process.set_model_weights(state, np.eye(3, 2, dtype="float32"))
state = process.next(state, clients).state
print(np.round(state.global_model_weights, 4).tolist(), state.finalizer.tolist())
print(process.initialize.type_signature, process.next.type_signature)

"""`tff.simulation.datasets.inaturalist`: species by observer; the synthetic data only."""

from collections import OrderedDict

from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData, TestClientData


def get_synthetic() -> ClientData:
    """A client with three images of noise, TFF's synthetic data."""
    import tensorflow as tf

    draw = tf.random.stateless_normal
    images = tf.stack([draw((128, 128, 3), seed=(0, i)) for i in range(3)])
    labels = tf.constant([0, 1, 2], tf.int64)
    client = [("image/decoded", tf.cast(images, tf.uint8).numpy()), ("class", labels.numpy())]
    return TestClientData({"synthetic": OrderedDict(client)})


__getattr__ = missing("tff.simulation.datasets.inaturalist")

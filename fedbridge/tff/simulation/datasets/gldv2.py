"""`tff.simulation.datasets.gldv2`: landmarks by photographer; the synthetic data only."""

from collections import OrderedDict

from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets._client_data import ClientData, TestClientData


def get_synthetic() -> ClientData:
    """A client with three images of noise, TFF's synthetic data."""
    import tensorflow as tf

    draw = tf.random.stateless_uniform
    images = draw((3, 600, 800, 3), minval=0, maxval=255, dtype=tf.int32, seed=(0, 0))
    labels = tf.constant([[0], [1], [2]], tf.int64)
    client = [("image/decoded", tf.cast(images, tf.uint8).numpy()), ("class", labels.numpy())]
    return TestClientData({"synthetic": OrderedDict(client)})


__getattr__ = missing("tff.simulation.datasets.gldv2")

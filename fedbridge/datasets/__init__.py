"""TFF's data sets under TFF's names: `fb.datasets.emnist.load_data()`."""

from fedbridge.datasets import (
    celeba as celeba,
    cifar100 as cifar100,
    emnist as emnist,
    shakespeare as shakespeare,
    stackoverflow as stackoverflow,
)

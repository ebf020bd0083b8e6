"""TFF's data sets under TFF's names: `fb.datasets.emnist.load_data()`."""

from typing import NoReturn

from fedbridge.datasets import (
    celeba as celeba,
    cifar100 as cifar100,
    emnist as emnist,
    shakespeare as shakespeare,
    stackoverflow as stackoverflow,
)


def __getattr__(name: str) -> NoReturn:
    from fedbridge.tff_io import no_reader

    raise AttributeError(no_reader(name) or f"module {__name__!r} has no attribute {name!r}")

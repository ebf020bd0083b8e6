"""`tff.simulation.datasets`: TFF's data sets, read without TFF."""

import os

from fedbridge.tff._errors import missing
from fedbridge.tff.simulation.datasets import (
    celeba as celeba,
    cifar100 as cifar100,
    emnist as emnist,
    gldv2 as gldv2,
    inaturalist as inaturalist,
    shakespeare as shakespeare,
    stackoverflow as stackoverflow,
)
from fedbridge.tff.simulation.datasets._client_data import (
    ArraysClientData,
    ClientData as ClientData,
    TestClientData as TestClientData,
)
from fedbridge.tff_io import from_hdf5, from_sql


def SqlClientData(
    database_filepath: str | os.PathLike[str], split_name: str | None = None
) -> ClientData:
    """A split of one of TFF's SQLite files; its elements are parsed."""
    return ArraysClientData(from_sql(database_filepath, split_name))


def HDF5ClientData(hdf5_filepath: str | os.PathLike[str]) -> ClientData:
    """One of TFF's older HDF5 files."""
    return ArraysClientData(from_hdf5(hdf5_filepath))


__getattr__ = missing("tff.simulation.datasets")

"""Processes and computations that are given client ids, and make the data sets themselves.

TFF does so inside of the computation (simulation/iterative_process_compositions.py); here the data
set of each id is made when the process is called, which gives the same batches.
"""

import numbers
from collections.abc import Callable, Iterable
from typing import Any

from fedbridge.tff._process import LearningProcess

DatasetComputation = Callable[[Any], Any]


def learning_process_of_ids(
    dataset_computation: DatasetComputation, process: LearningProcess
) -> LearningProcess:
    """The process whose `next` takes client ids.

    Args:
        dataset_computation: From a client's id to its data set: a `ClientData`'s.
        process: The process.
    """
    return process.reading(lambda ids: _made(dataset_computation, ids))


def iterative_process_of_ids(dataset_computation: DatasetComputation, process: Any) -> Any:
    """The same of a process of Federated Core."""
    if isinstance(process, LearningProcess):
        return learning_process_of_ids(dataset_computation, process)
    return _OfIds(dataset_computation, process)


def computation_of_ids(
    dataset_computation: DatasetComputation, computation: Callable[..., Any]
) -> Callable[..., Any]:
    """The same of a computation whose last argument are the clients' data sets."""

    def of_ids(*arguments: Any) -> Any:
        *others, ids = arguments
        return computation(*others, _made(dataset_computation, ids))

    return of_ids


class _OfIds:
    def __init__(self, dataset_computation: DatasetComputation, process: Any):
        self._make, self._process = dataset_computation, process

    def next(self, state: Any, client_ids: Iterable[Any]) -> Any:
        """A round."""
        return self._process.next(state, _made(self._make, client_ids))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)


def _made(dataset_computation: DatasetComputation, ids: Iterable[Any]) -> list[Any]:
    return [dataset_computation(_text(one)) for one in ids]


def _text(given: Any) -> Any:
    """An id as a `str`; what is none, data sets that are made into others, as it is."""
    if isinstance(given, bytes):
        return given.decode()
    return str(given) if isinstance(given, str | numbers.Integral) else given

"""Metrics as TFF 0.1 to 0.19 returned them: flat, in a tree, and printed in angle brackets."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any


class Metrics(collections.OrderedDict):
    """Metrics in every shape that they had under one builder's name.

    Keys, attributes and `_asdict()` reach the values of `behind` as well: `metrics.loss`,
    `metrics["loss"]`, `metrics.train.loss` and `metrics["train"]["loss"]` are one number.
    """

    def __init__(self, content: Any = (), behind: Sequence[Mapping[str, Any]] = ()):
        super().__init__(content)
        self._behind = list(behind)

    def __missing__(self, key: str) -> Any:
        for other in self._behind:
            if key in other:
                return other[key]
        raise KeyError(key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def _asdict(self) -> collections.OrderedDict:
        flat = self._behind[0] if self._behind else self
        return collections.OrderedDict(flat)

    def __str__(self) -> str:
        inside = ",".join(f"{key}={_old_text(value)}" for key, value in self.items())
        return f"<{inside}>"

    def __reduce__(self) -> Any:
        return collections.OrderedDict, (list(self.items()),)


def _old_text(value: Any) -> str:
    if isinstance(value, Metrics):
        return str(value)
    if isinstance(value, Mapping):
        return str(Metrics(value))
    return "<>" if isinstance(value, tuple) and not value else str(value)


def old_training_metrics(metrics: Mapping[str, Any]) -> Metrics:
    """0.87.0's metrics in the tree of 0.16 to 0.19, with the flat and the new one behind it.

    >>> new = {"distributor": (), "client_work": {"train": {"loss": 2.5, "num_examples": 7}},
    ...        "aggregator": {"mean_value": ()}, "finalizer": {}}
    >>> old = old_training_metrics(new)
    >>> old.loss, old.train.loss, old["train"]["loss"], old["client_work"]["train"]["loss"]
    (2.5, 2.5, 2.5, 2.5)
    >>> print(old)
    <broadcast=<>,aggregation=<mean_value=<>>,train=<loss=2.5,num_examples=7>>
    """
    train = Metrics(metrics["client_work"]["train"])
    content = {
        "broadcast": metrics["distributor"],
        "aggregation": metrics["aggregator"],
        "train": train,
    }
    stat = Metrics({"stat": Metrics({"num_examples": train.get("num_examples")})})
    return Metrics(content, behind=[train, stat, metrics])

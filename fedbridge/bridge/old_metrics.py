"""Metrics as TFF 0.1 to 0.27 returned them under the names of that time, and as they printed.

    to 0.15         flat                                                   <loss=2.5>
    0.16            <broadcast=<>,aggregation=<...>,train=<loss=2.5>>
    0.17 and 0.18   the same as an OrderedDict
    from 0.19       with 'stat': OrderedDict([('num_examples', 7)])

Source: printed outputs in programs of each time; `learning/framework/optimizer_utils.py` and
`learning/federated_evaluation.py` of TFF.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

Version = tuple[int, ...]


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


class OrderedMetrics(Metrics):
    """The same from TFF 0.17 on: printed as an OrderedDict, as Python to 3.11 prints one."""

    def __repr__(self) -> str:
        inside = ", ".join(f"({key!r}, {_ordered(value)!r})" for key, value in self.items())
        return f"OrderedDict([{inside}])" if inside else "OrderedDict()"

    __str__ = __repr__


def _old_text(value: Any) -> str:
    if isinstance(value, Metrics):
        return str(value)
    if isinstance(value, Mapping):
        return str(Metrics(value))
    return "<>" if isinstance(value, tuple) and not value else str(value)


def _ordered(value: Any) -> Any:
    return OrderedMetrics(value) if isinstance(value, Mapping) else value


def old_training_metrics(metrics: Mapping[str, Any], version: Version | None = None) -> Metrics:
    """0.87.0's metrics as the tree of an older TFF, with the flat and the new one behind it.

    Args:
        metrics: What a round of 0.87.0 returns.
        version: Of TFF, which fixes the tree and how it prints; None for the tree of 0.16 with all
            that 0.87.0 counts.

    >>> new = {"distributor": (), "client_work": {"train": {"loss": 2.5, "num_examples": 7}},
    ...        "aggregator": {"mean_value": ()}, "finalizer": {}}
    >>> old = old_training_metrics(new)
    >>> old.loss, old.train.loss, old["train"]["loss"], old["client_work"]["train"]["loss"]
    (2.5, 2.5, 2.5, 2.5)
    >>> print(old)
    <broadcast=<>,aggregation=<mean_value=<>>,train=<loss=2.5,num_examples=7>>
    >>> print(old_training_metrics(new, (0, 15)))
    <loss=2.5>
    """
    made = _kind(version)
    all_of_train = Metrics(metrics["client_work"]["train"])
    train = made(_reported(all_of_train, version), behind=[all_of_train])
    stat = made({"stat": made({"num_examples": all_of_train.get("num_examples")})})
    tree = {
        "broadcast": metrics["distributor"],
        "aggregation": metrics["aggregator"],
        "train": train,
    }
    if version is not None and version < (0, 16):
        return made(train, behind=[all_of_train, tree, stat, metrics])
    shown = tree | (stat if version is not None and version >= (0, 19) else {})
    return made(shown, behind=[train, all_of_train, stat, metrics])


def old_evaluation_metrics(evaluated: Mapping[str, Any], version: Version | None = None) -> Metrics:
    """The metrics of an evaluation as an older TFF returned them; every other way is behind.

    Args:
        evaluated: Name to value.
        version: Of TFF; None for the tree of its last builder of that name.

    >>> evaluated = {"loss": 2.5, "num_examples": 7}
    >>> print(old_evaluation_metrics(evaluated, (0, 18)))
    OrderedDict([('loss', 2.5)])
    >>> print(old_evaluation_metrics({"num_examples": 7}, (0, 19)))
    OrderedDict([('eval', OrderedDict()), ('stat', OrderedDict([('num_examples', 7)]))])
    >>> old_evaluation_metrics(evaluated)["loss"], old_evaluation_metrics(evaluated)["eval"].loss
    (2.5, 2.5)
    """
    made = _kind(version)
    all_of_it = Metrics(evaluated)
    current = made(_reported(all_of_it, version), behind=[all_of_it])
    tree = {"eval": current}
    if version is not None and version < (0, 19):
        return made(current, behind=[all_of_it, tree])
    if version is not None and version < (0, 28):
        tree["stat"] = made({"num_examples": all_of_it.get("num_examples")})
    return made(tree, behind=[current, all_of_it])


def _kind(version: Version | None) -> type[Metrics]:
    return Metrics if version is None or version < (0, 17) else OrderedMetrics


def _reported(metrics: Mapping[str, Any], version: Version | None) -> dict[str, Any]:
    """Without the counts that no model of TFF to 0.27 reported among its metrics."""
    if version is None or version >= (0, 28):
        return dict(metrics)
    return {name: one for name, one in metrics.items() if name not in _COUNTS}


_COUNTS = ("num_examples", "num_batches")

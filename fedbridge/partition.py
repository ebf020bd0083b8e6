"""Makes any arrays federated: which rows belong to which client.

Every function takes the arrays of one data set, `{feature: [rows, ...]}`, and gives every row to
exactly one client. All draws come from `numpy.random.default_rng(seed)`: one seed, one split, on
every machine. A client's rows keep the order of the arrays.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedbridge.jax_core import (
    ClientDataError,
    FederatedArrays,
    check_argument,
    check_path,
    check_whole,
    is_real,
    is_whole,
)
from fedbridge.jax_core._columns import (
    decode_column,
    num_rows,
    take_rows,
)
from fedbridge.tff_io import from_clients

Arrays = Mapping[str, Any]
"""Feature name to rows: an array `[rows, ...]`, or a list of strings."""


def by_feature(arrays: Arrays, feature: str) -> FederatedArrays:
    """One client for each value of a feature, sorted by value, e.g. the writer of a character.

    Args:
        arrays: Feature name to rows.
        feature: One number or string a row; its text is the client's id.

    Raises:
        ClientDataError: No such feature, or one of several values a row.

    Example:
        >>> by_feature({"who": ["b", "a", "b"], "y": [1, 2, 3]}, "who").client("b")["y"]
        array([1, 3])
    """
    columns = _columns(arrays)
    values, codes = _codes(columns, feature, whole=False)
    ids = [v.decode(errors="backslashreplace") if isinstance(v, bytes) else str(v) for v in values]
    return _split(columns, codes, len(ids), ids)


def iid(arrays: Arrays, num_clients: int, *, seed: int) -> FederatedArrays:
    """Equally many rows for every client (to one row), drawn uniformly.

    Raises:
        ClientDataError: More clients than rows.

    Reference:
        McMahan et al., 2017, section 3. https://arxiv.org/abs/1602.05629

    Example:
        >>> iid({"y": np.arange(5)}, 2, seed=0).offsets
        array([0, 3, 5])
    """
    columns = _columns(arrays)
    rows = _rows(columns, num_clients)
    owner = np.empty(rows, np.int64)
    owner[_rng(seed).permutation(rows)] = _even(rows, num_clients)
    return _split(columns, owner, num_clients)


def dirichlet(
    arrays: Arrays, num_clients: int, *, alpha: float, seed: int, label: str = "label"
) -> FederatedArrays:
    """Each label's rows are cut among the clients in proportions drawn from Dirichlet(alpha).

    A small alpha gives a label to few clients, a large one the same share to all. A client's number
    of rows of a label is within 1 of its drawn share; clients may stay without rows.

    Args:
        arrays: Feature name to rows.
        num_clients: How many clients.
        alpha: Of the symmetric Dirichlet distribution over the clients; above 0.
        seed: Of the draws.
        label: The feature to skew: whole numbers or strings.

    Raises:
        ClientDataError: A label that is not whole, or more clients than rows.
        ArgumentError: alpha is not above 0.

    References:
        Yurochkin et al., 2019, section 4. https://arxiv.org/abs/1905.12022
        Hsu, Qi & Brown, 2019, which draws a client's labels instead.
        https://arxiv.org/abs/1909.06335

    Example:
        >>> arrays = {"label": np.repeat([0, 1], 50)}
        >>> dirichlet(arrays, 3, alpha=1.0, seed=0)
        FederatedArrays(3 clients, 100 examples: label int64[])
    """
    _positive("dirichlet", "alpha", alpha)
    columns = _columns(arrays)
    owner = np.empty(_rows(columns, num_clients), np.int64)
    values, codes = _codes(columns, label)
    rng = _rng(seed)
    for code in range(len(values)):
        rows = rng.permutation(np.flatnonzero(codes == code))
        shares = rng.dirichlet(np.full(num_clients, alpha))
        owner[rows] = _cut(len(rows), shares)
    return _split(columns, owner, num_clients)


def shards(
    arrays: Arrays,
    num_clients: int,
    *,
    seed: int,
    shards_per_client: int = 2,
    label: str = "label",
) -> FederatedArrays:
    """Rows sorted by label and cut into equal shards, of which every client draws a few.

    Raises:
        ClientDataError: A label that is not whole, or more shards than rows.
        ArgumentError: shards_per_client below 1.

    Reference:
        McMahan et al., 2017, section 3 (2 shards of 300 MNIST digits for each of 100 clients).
        https://arxiv.org/abs/1602.05629

    Example:
        >>> split = shards({"label": np.arange(8) % 4}, 2, seed=0)
        >>> [len(set(split.client(i)["label"].tolist())) for i in split.client_ids]
        [2, 2]
    """
    check_whole("shards: shards_per_client", shards_per_client)
    columns = _columns(arrays)
    _rows(columns, num_clients)
    count = num_clients * shards_per_client
    rows = _rows(columns, count, "shards")
    _, codes = _codes(columns, label)
    owner_of_shard = np.empty(count, np.int64)
    owner_of_shard[_rng(seed).permutation(count)] = np.arange(count) // shards_per_client
    owner = np.empty(rows, np.int64)
    owner[np.argsort(codes, kind="stable")] = owner_of_shard[_even(rows, count)]
    return _split(columns, owner, num_clients)


def quantity_skew(arrays: Arrays, num_clients: int, *, alpha: float, seed: int) -> FederatedArrays:
    """Clients of various sizes: shares of the rows drawn from Dirichlet(alpha), at least one row.

    Raises:
        ClientDataError: More clients than rows.
        ArgumentError: alpha is not above 0.

    Reference:
        Li et al., 2022, section IV.C (quantity skew). https://arxiv.org/abs/2102.02079

    Example:
        >>> quantity_skew({"y": np.arange(90)}, 3, alpha=0.5, seed=1)
        FederatedArrays(3 clients, 90 examples: y int64[])
    """
    _positive("quantity_skew", "alpha", alpha)
    columns = _columns(arrays)
    rows = _rows(columns, num_clients)
    rng = _rng(seed)
    order = rng.permutation(rows)
    shares = rng.dirichlet(np.full(num_clients, alpha))
    owner = np.empty(rows, np.int64)
    owner[order[:num_clients]] = np.arange(num_clients)
    owner[order[num_clients:]] = _cut(rows - num_clients, shares)
    return _split(columns, owner, num_clients)


def pachinko(
    arrays: Arrays,
    num_clients: int,
    *,
    seed: int,
    alpha: float = 0.1,
    beta: float = 10.0,
    coarse_label: str = "coarse_label",
    label: str = "label",
) -> FederatedArrays:
    """Pachinko allocation over two levels of labels, as TFF's CIFAR-100 was made.

    Every client draws a distribution over coarse labels from Dirichlet(alpha), and one over the
    labels below each from Dirichlet(beta). A row of it is a draw of a coarse label, of a label
    below, and of one of that label's rows that are left. What is exhausted is taken out, and the
    rest renormalized. Clients get equally many rows (to one row), all of them in the end; TFF's
    500 clients have 100 each. The draws are not those of TFF's own split, whose generator is not
    part of TFF.

    Args:
        arrays: Feature name to rows.
        num_clients: How many clients.
        seed: Of the draws.
        alpha: Of the coarse labels of a client.
        beta: Of the labels below a coarse label.
        coarse_label: The feature of the coarse labels.
        label: The feature of the labels; each belongs to one coarse label.

    Raises:
        ClientDataError: A label that is not whole or lies below two coarse ones, or more clients
            than rows.
        ArgumentError: alpha or beta is not above 0.

    References:
        Li & McCallum, 2006. https://people.cs.umass.edu/~mccallum/papers/pam-icml06.pdf
        Reddi et al., 2021, appendix F. https://arxiv.org/abs/2003.00295
    """
    _positive("pachinko", "alpha", alpha)
    _positive("pachinko", "beta", beta)
    columns = _columns(arrays)
    rows = _rows(columns, num_clients)
    coarse_values, coarse = _codes(columns, coarse_label)
    values, fine = _codes(columns, label)
    parent = np.zeros(len(values), np.int64)
    parent[fine] = coarse
    if (wrong := np.flatnonzero(parent[fine] != coarse)).size:
        raise ClientDataError(
            f"feature {label!r}: label {values[fine[wrong[0]]]!r} lies below two values of "
            f"{coarse_label!r}; give every label one coarse label."
        )
    rng = _rng(seed)
    order = rng.permutation(rows)
    waiting = [order[fine[order] == code].tolist() for code in range(len(values))]
    left = np.array([len(rows_left) for rows_left in waiting])
    below = [np.flatnonzero(parent == code) for code in range(len(coarse_values))]
    left_below = np.array([left[labels].sum() for labels in below])
    owner = np.empty(rows, np.int64)
    for client, size in enumerate(np.bincount(_even(rows, num_clients), minlength=num_clients)):
        first = rng.dirichlet(np.full(len(below), alpha))
        second = [rng.dirichlet(np.full(len(labels), beta)) for labels in below]
        for _ in range(size):
            group = _draw(rng, first, left_below > 0)
            chosen = below[group][_draw(rng, second[group], left[below[group]] > 0)]
            owner[waiting[chosen].pop()] = client
            left[chosen] -= 1
            left_below[group] -= 1
    return _split(columns, owner, num_clients)


def plot_labels(
    data: FederatedArrays, path: str | os.PathLike | None = None, *, label: str = "label"
) -> Any:
    """Draws the split: one bar a client, as high as its rows, in the colours of its labels.

    Args:
        data: The clients.
        path: Where to save the picture; its ending is the format. None saves nothing.
        label: The feature to colour by.

    Returns:
        A `matplotlib.figure.Figure` (needs matplotlib: `pip install 'fedbridge[plots]'`).

    Raises:
        ClientDataError: No such feature, a label that is not whole, or no matplotlib.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ClientDataError(
            "plot_labels: matplotlib is not installed; `pip install 'fedbridge[plots]'`."
        ) from error
    check_argument(isinstance(data, FederatedArrays), "data", data, "of the type FederatedArrays")
    values, counts = _label_counts(data, label)
    figure = Figure(figsize=(min(4 + 0.15 * data.num_clients, 24), 4), layout="constrained")
    axes = figure.subplots()
    base = np.zeros(data.num_clients)
    colours = colormaps["turbo"](np.linspace(0.05, 0.95, max(len(values), 1)))
    for value, colour, row in zip(values, colours, counts.T, strict=True):
        name = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        axes.bar(np.arange(data.num_clients), row, 0.9, base, color=colour, label=name)
        base = base + row
    axes.set(xlabel="client", ylabel="examples", title=f"{label} by client")
    if data.num_clients <= 40:
        axes.set_xticks(np.arange(data.num_clients), data.client_ids, rotation=90)
    if len(values) <= 20:
        axes.legend(title=label, loc="center left", bbox_to_anchor=(1, 0.5))
    if path is not None:
        check_path("path", path)
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:  # ValueError: of a kind that it cannot write
            raise ClientDataError(
                f"{path}: the picture cannot be written there ({error}); name a .png, .svg or .pdf "
                "in a folder that is there."
            ) from error
    return figure


# --- rows and clients -------------------------------------------------------------------------


def _columns(arrays: Arrays) -> dict[str, Any]:
    return from_clients({"all": arrays}).features


def _rows(columns: Mapping[str, Any], count: int, what: str = "clients") -> int:
    check_argument(is_whole(count, -(2**63)), f"the number of {what}", count, "a whole number")
    rows = num_rows(next(iter(columns.values()))) if columns else 0
    if not 1 <= count <= rows:
        raise ClientDataError(
            f"arrays: {count} {what} for {rows} rows; ask for at least 1 and at most one a row."
        )
    return rows


def _codes(columns: Mapping[str, Any], name: str, whole: bool = True) -> tuple[list, np.ndarray]:
    """The sorted values of a feature, and for every row the position of its value among them."""
    if name not in columns:
        raise ClientDataError(
            f"feature {name!r}: there is no such feature; name one of {', '.join(columns)}."
        )
    values = decode_column(columns[name])
    if values.ndim != 1:
        raise ClientDataError(
            f"feature {name!r}: its rows have the shape {list(values.shape[1:])}; name one that "
            "has one value a row."
        )
    if whole and values.dtype.kind == "f":
        wrong = values[values != np.floor(values)]
        if wrong.size or not np.isfinite(values).all():
            raise ClientDataError(
                f"feature {name!r}: {float((wrong if wrong.size else values)[0])} is no whole "
                "label; give integers or strings."
            )
    unique, codes = np.unique(values, return_inverse=True)
    return unique.tolist(), codes.reshape(-1)


def _split(
    columns: Mapping[str, Any], owner: np.ndarray, count: int, ids: Sequence[str] | None = None
) -> FederatedArrays:
    """Client c gets the rows that it owns."""
    if ids is None:
        ids = [f"{i:0{len(str(count - 1))}d}" for i in range(count)]
    order = np.argsort(owner, kind="stable")
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=count), out=offsets[1:])
    features = {name: take_rows(column, order) for name, column in columns.items()}
    return FederatedArrays(tuple(ids), offsets, features)


def _even(rows: int, count: int) -> np.ndarray:
    """The part of each row, of `count` parts that differ by one row at most."""
    return np.repeat(np.arange(count), rows // count + (np.arange(count) < rows % count))


def _cut(rows: int, shares: np.ndarray) -> np.ndarray:
    """The part of each row; every part is within one row of its share."""
    edges = np.rint(np.cumsum(shares) * rows).astype(np.int64)
    edges[-1] = rows
    return np.repeat(np.arange(len(shares)), np.diff(edges, prepend=0))


def _draw(rng: np.random.Generator, shares: np.ndarray, there: np.ndarray) -> int:
    """One of those that are there, in proportion to its share; uniformly if they have none."""
    weights = np.where(there, shares, 0.0)
    if not weights.sum() > 0:
        weights = there.astype(np.float64)
    edges = np.cumsum(weights)
    drawn = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return min(drawn, int(np.flatnonzero(weights)[-1]))


def _label_counts(data: FederatedArrays, label: str) -> tuple[list, np.ndarray]:
    """The labels, and how many rows of each every client has, [clients, labels]."""
    values, codes = _codes(data.features, label)
    rows = [data.client_rows(client_id) for client_id in data.client_ids]
    return values, np.array([np.bincount(codes[r], minlength=len(values)) for r in rows])


def _rng(seed: int) -> np.random.Generator:
    check_whole("seed", seed, 0)
    return np.random.default_rng(seed)


def _positive(where: str, name: str, value: float) -> None:
    # So that a sum of a million of them, which a draw divides by, is finite.
    allowed = "a number above 0, at most 1e300"
    check_argument(is_real(value) and 0 < value <= 1e300, f"{where}: {name}", value, allowed)

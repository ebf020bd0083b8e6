"""The features that a preprocessing needs, checked at the border."""

from fedbridge.jax_core import ClientDataError, FederatedArrays, Ragged, check_argument
from fedbridge.jax_core._arrays import identity


def require(data: FederatedArrays, where: str, **features: str) -> None:
    """Refuses data without these features, or whose batches are changed already.

    Args:
        data: The data.
        where: The preprocessing, for the message.
        features: Feature name to "strings" or "numbers".

    Raises:
        ClientDataError: A feature is missing or of the other kind, or the data have been
            preprocessed before.
    """
    check_argument(isinstance(data, FederatedArrays), "data", data, "of the type FederatedArrays")
    if data.decode is not identity or data.element_offsets is not None:
        raise ClientDataError(
            f"{where}: these data have been preprocessed before; give it the data as they were "
            "loaded."
        )
    for name, kind in features.items():
        if name not in data.features:
            there = ", ".join(map(repr, data.features)) or "none"
            raise ClientDataError(
                f"{where}: the data{_of(data)} have no feature {name!r} (there are: {there}); "
                "give it the data set that it is made for."
            )
        column = data.features[name]
        strings = isinstance(column, Ragged) and column.values.dtype == "uint8"
        if strings != (kind == "strings"):
            raise ClientDataError(
                f"{where}: feature {name!r}{_of(data)} does not hold {kind}; give it the data set "
                "that it is made for."
            )


def _of(data: FederatedArrays) -> str:
    return f" of {data.source}" if data.source else ""

"""The splits of one of TFF's files, which have to be those of the data set it is named after."""

import os
from collections.abc import Sequence

from fedbridge.jax_core import ClientDataError, FederatedArrays
from fedbridge.tff_io import find_file, from_sql


def load_splits(
    data_set: str,
    file: str,
    splits: Sequence[str],
    features: Sequence[str],
    cache_dir: str | os.PathLike[str] | None,
) -> tuple[FederatedArrays, ...]:
    """Reads splits of a file, which is fetched where it is not there.

    Args:
        data_set: As in `fetch`.
        file: The file's name, unpacked.
        splits: Which ones.
        features: What every split has, or it is another data set's file under this name.
        cache_dir: A folder that has the file, or gets it; None: as in `find_file`.

    Raises:
        ClientDataError: As `fetch` and `from_sql`; or features are missing.
    """
    path = find_file(data_set, file, cache_dir)
    loaded = tuple(from_sql(path, split) for split in splits)
    for split, data in zip(splits, loaded, strict=True):
        missing = [name for name in features if name not in data.features]
        if missing:
            raise ClientDataError(
                f"{path}, split {split!r}: it has no feature {missing[0]!r} (but: "
                f"{', '.join(data.features) or 'none'}), so it holds another data set; put TFF's "
                f"{file} there, or fetch it with `fedbridge data fetch {data_set}`."
            )
    return loaded

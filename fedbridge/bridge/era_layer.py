"""Old names."""

from typing import Any


def install(watch: Any) -> None:
    pass

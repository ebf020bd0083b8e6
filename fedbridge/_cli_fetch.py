"""`fedbridge data fetch`: TFF's data files, with a progress bar."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedbridge.tff_io._fetch import Progress

FETCH_EXAMPLE = (
    "Examples: [bold]fedbridge data fetch emnist[/bold] · [bold]fedbridge data fetch stackoverflow "
    "--out data --mirror https://mirror.example/tff[/bold]. A broken download goes on when you run "
    "it again."
)


def data_fetch(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="emnist, stackoverflow, shakespeare, cifar100, celeba, gldv2 or inaturalist.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: in the cache folder.")
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--mirror", metavar="M", help="A folder or an address; default: FEDBRIDGE_MIRROR."
        ),
    ] = None,
) -> None:
    """Fetch one of TFF's data sets: resumed, checked, unpacked."""
    from fedbridge.tff_io import fetch

    console = Console(stderr=True)
    with _meter(console) as show:
        paths = fetch(dataset, out, mirror=mirror, progress=show)
    for path in paths:
        typer.echo(path)


@contextlib.contextmanager
def _meter(console: Console) -> Iterator[Progress]:
    from rich import progress as bars

    columns = (
        *bars.Progress.get_default_columns(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
    )
    with bars.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        tasks: dict[str, bars.TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            task = tasks.get(name)
            if task is None:
                task = tasks[name] = progress.add_task(name, total=total)
            progress.update(task, completed=done, total=total)

        yield show

"""`fedbridge data`: find client data, generate stand-ins, convert files of any size."""

import contextlib
import enum
import functools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from fedbridge._cli_console import console_for, meter, say
from fedbridge._cli_fetch import FETCH_EXAMPLE, data_fetch
from fedbridge.jax_core import FedbridgeError

data_app = typer.Typer(
    no_args_is_help=True, help="Federated data: fetch it, find it, generate some, convert it."
)
data_app.command("fetch", epilog=FETCH_EXAMPLE)(data_fetch)


class DataSet(enum.StrEnum):
    """The data sets that fedbridge can generate."""

    emnist = "emnist"
    stackoverflow = "stackoverflow"


class Preprocessing(enum.StrEnum):
    """The preprocessing that turns text into ids while it is converted."""

    words = "stackoverflow_word_prediction"
    tags = "stackoverflow_tag_prediction"


_GENERATED = {
    DataSet.emnist: ("emnist_all.sqlite",),
    DataSet.stackoverflow: (
        "stackoverflow.sqlite",
        "stackoverflow.word_count",
        "stackoverflow.tag_count",
    ),
}


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """While it lasts, SIGTERM ends the command as an interruption does: what is half done goes."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_DataSet = Annotated[DataSet, typer.Argument(metavar="DATA_SET", help="Which one.")]


@data_app.command(
    "generate",
    epilog="Examples: [bold]fedbridge data generate emnist --clients 100 --out data[/bold], "
    "then [bold]FEDBRIDGE_DATA=data[/bold] · [bold]fedbridge data generate stackoverflow "
    "--clients 50000 --sentences 5000000 --out data[/bold]",
)
def data_generate(
    dataset: _DataSet,
    clients: Annotated[int, typer.Option("--clients", min=1, help="How many, in training.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write to.")],
    sentences: Annotated[
        int | None,
        typer.Option("--sentences", min=1, help="Of stackoverflow's train; default 397 a client."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed, the same data.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Over the files that are there.")] = False,
) -> None:
    """Generate a stand-in for a data set, in TFF's own file format, without a network."""
    if dataset is DataSet.stackoverflow:
        from fedbridge.tff_io import generate_stackoverflow

        generate = functools.partial(generate_stackoverflow, sentences=sentences)
    else:
        from fedbridge.tff_io import generate_emnist as generate

        if sentences is not None:
            raise FedbridgeError("--sentences: handwriting has none; leave it out.")
    there = [out / name for name in _GENERATED[dataset] if (out / name).exists()]
    if there and not force:
        raise FedbridgeError(
            f"{there[0]}: it is there already; name another folder with --out, or give --force."
        )
    console = console_for(None)
    with _ended(), meter(console, f"generating {dataset.value}") as show:
        path = generate(clients, out, seed=seed, progress=show)
    say(console, f"{path}: {clients} clients; use it with FEDBRIDGE_DATA={out}")


@data_app.command(
    "convert",
    epilog="Example: [bold]fedbridge data convert data/stackoverflow.sqlite --split train "
    "--preprocess stackoverflow_word_prediction --out data/train[/bold], then "
    "[bold]fb.from_converted('data/train')[/bold].",
)
def data_convert(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A TFF SQLite file, also packed; or an old HDF5 file."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The new folder.")],
    split: Annotated[str | None, typer.Option("--split", help="Which of its splits.")] = None,
    preprocess: Annotated[
        Preprocessing | None,
        typer.Option("--preprocess", help="Store ids; without it, the features as they are."),
    ] = None,
    word_counts: Annotated[
        Path | None,
        typer.Option("--word-counts", metavar="FILE", help="Default: beside the data."),
    ] = None,
    tag_counts: Annotated[
        Path | None,
        typer.Option("--tag-counts", metavar="FILE", help="Default: beside the data."),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", min=1, help="Words; default 10,000.")
    ] = None,
    tag_vocab_size: Annotated[
        int | None,
        typer.Option("--tag-vocab-size", min=1, help="Tags; default 500, or all there are."),
    ] = None,
    sequence_length: Annotated[
        int | None,
        typer.Option("--sequence-length", min=1, help="Words of a sentence; default 20."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Default: one a core, at most 4.")
    ] = None,
) -> None:
    """Convert a file of any size into memory-mapped arrays; run again, it goes on."""
    from fedbridge import preprocessing
    from fedbridge.tff_io import convert, read_tag_counts, read_word_counts

    used = {
        None: (),
        Preprocessing.words: ("--word-counts", "--vocab-size", "--sequence-length"),
        Preprocessing.tags: ("--word-counts", "--vocab-size", "--tag-counts", "--tag-vocab-size"),
    }
    for name, given in {
        "--word-counts": word_counts,
        "--tag-counts": tag_counts,
        "--vocab-size": vocab_size,
        "--tag-vocab-size": tag_vocab_size,
        "--sequence-length": sequence_length,
    }.items():
        if given is not None and name not in used[preprocess]:
            which = "a conversion without --preprocess" if preprocess is None else preprocess.value
            raise FedbridgeError(f"{name}: {which} has no use for it; leave it out.")
    function = None
    if preprocess is not None:
        words = word_counts or file.with_name("stackoverflow.word_count")
        vocabulary = list(read_word_counts(words, vocab_size or 10_000))
        if preprocess is Preprocessing.words:
            function = functools.partial(
                preprocessing.stackoverflow_word_prediction,
                vocab=vocabulary,
                sequence_length=sequence_length or 20,
            )
        else:
            tags = tag_counts or file.with_name("stackoverflow.tag_count")
            function = functools.partial(
                preprocessing.stackoverflow_tag_prediction,
                word_vocab=vocabulary,
                tag_vocab=list(read_tag_counts(tags, tag_vocab_size))[: tag_vocab_size or 500],
            )
    console = console_for(None)
    with meter(console, f"converting {file.name}") as show:
        data = convert(file, out, split, preprocess=function, processes=processes, progress=show)
    say(console, f"{out}: {data!r}; read it with fb.from_converted({str(out)!r})")


@data_app.command("find")
def data_find(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATA_SET", help="emnist, stackoverflow, shakespeare, cifar100 or celeba."
        ),
    ],
) -> None:
    """Say which copy of a data set will be used."""
    from fedbridge.tff_io import find_data

    folder, source = find_data(dataset)
    say(console_for(None), f"{folder} ({source})")

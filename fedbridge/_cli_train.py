"""`fedbridge train`: a published experiment on a named task, in one command."""

import contextlib
import enum
import hashlib
import inspect
import json as json_
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from fedbridge._cli_console import Json, check_targets, console_for, meter, save_json, say
from fedbridge.jax_core import FedbridgeError, FederatedArrays

TRAIN_EXAMPLES = (
    "Examples: [bold]fedbridge train emnist_character_recognition --rounds 20[/bold] · "
    "[bold]fedbridge train stackoverflow_word_prediction --output-dir run[/bold], and after an "
    "interruption the same with [bold]--resume[/bold] · [bold]fedbridge train "
    "emnist_character_recognition --model 2nn --data DIR --evaluate-every 10[/bold] · on two hosts "
    "[bold]fedbridge train TASK --coordinator host0:1234 --num-processes 2 --process-id 0[/bold], "
    "and the same with [bold]--process-id 1[/bold]\n\n"
    "Without --data: the folder that FEDBRIDGE_DATA names, TFF's cache, or what `fedbridge data "
    "fetch` has fetched; else a small stand-in. The network is not asked."
)
_CHECKPOINT, _CONFIG, _WEIGHTS = "checkpoint.state", "config.json", "weights.npz"
_EVALUATION = "evaluation.json"


class Task(enum.StrEnum):
    """The tasks, by TFF's names."""

    emnist_character_recognition = "emnist_character_recognition"
    emnist_autoencoder = "emnist_autoencoder"
    stackoverflow_word_prediction = "stackoverflow_word_prediction"
    stackoverflow_tag_prediction = "stackoverflow_tag_prediction"
    shakespeare_character_prediction = "shakespeare_character_prediction"
    cifar100_image_classification = "cifar100_image_classification"


def train(
    task: Annotated[Task, typer.Argument(metavar="TASK", help="One of " + ", ".join(Task) + ".")],
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Default: as published.")
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", metavar="DIR", help="Default: fedbridge-TASK."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in DIR, to the same bits.")
    ] = False,
    evaluate_every: Annotated[
        int, typer.Option("--evaluate-every", min=1, metavar="K", help="Rounds.")
    ] = 50,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", min=1, metavar="K", help="Rounds.")
    ] = 10,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="A folder with TFF's files.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="EMNIST's characters: cnn_dropout, cnn, 2nn. CIFAR-100: resnet18, 34 or 50.",
        ),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option("--vocab-size", min=1, help="Stack Overflow's: words; default: 10,000."),
    ] = None,
    clients: Annotated[
        int | None, typer.Option("--clients", min=1, help="A round; default: as published.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, max=2**32 - 1, help="Of weights, cohorts, shuffles and dropout."
        ),
    ] = 1,
    devices: Annotated[
        int | None,
        typer.Option(
            "--devices",
            min=1,
            metavar="N",
            help="Without a GPU: so many cores train clients side by side; default: one client "
            "after another. It pays where the model is small.",
        ),
    ] = None,
    coordinator: Annotated[
        str | None,
        typer.Option(
            "--coordinator",
            metavar="HOST:PORT",
            help="This is one of several processes that train together: the address of process 0; "
            "auto: from Slurm's or Open MPI's variables.",
        ),
    ] = None,
    num_processes: Annotated[
        int | None, typer.Option("--num-processes", min=1, help="How many processes there are.")
    ] = None,
    process_id: Annotated[
        int | None, typer.Option("--process-id", min=0, help="Which one this is, from 0.")
    ] = None,
    json: Json = None,
) -> None:
    """Train a baseline task as Reddi et al. (2021) did, with FedAdam.

    DIR gets the metrics of every round, curves, the state and, at the end, the weights and their
    evaluation.
    """
    from fedbridge import distributed, experiment as loop
    from fedbridge.bridge.files import json_text, replace_text
    from fedbridge.bridge.programs import keep_programs
    from fedbridge.jax_core import default_execution, sharded
    from fedbridge.jax_core._compat import cpu_devices
    from fedbridge.logs import metrics_files
    from fedbridge.samplers import uniform
    from fedbridge.tasks.published import EXPERIMENTS
    from fedbridge.tff_io import weights_to_npz

    keep_programs()
    if devices is not None:
        cpu_devices(devices)
    together = any(given is not None for given in (coordinator, num_processes, process_id))
    if together:
        address = None if coordinator == "auto" else coordinator
        distributed.initialize(address, num_processes, process_id)
    is_first = not together or distributed.is_first()
    execution = sharded() if together or devices is not None else default_execution
    # One of several processes writes and speaks, and is the first to see that it cannot.
    console = console_for(json) if is_first else Console(quiet=True)
    experiment = EXPERIMENTS[task]
    folder = output_dir or Path(f"fedbridge-{task}")
    check_targets(json, folder)
    arguments = _arguments(experiment, model, vocab_size)
    made, source = _task(console, experiment, data, {**arguments, "seed": seed})
    splits = made.datasets
    total = rounds or experiment.rounds
    cohort = min(clients or experiment.clients, splits.train_data.num_clients)
    config = {
        "task": str(task),
        **arguments,
        "data": source,
        "train_data": repr(splits.train_data),
        "train_digest": _digest(splits.train_data),
        "evaluation_digest": _digest(splits.test_data),
        "clients": cohort,
        "batch_size": experiment.batch_size,
        "max_elements": experiment.max_elements,
        "client_learning_rate": 10**experiment.client_rate,
        "server_learning_rate": 10**experiment.server_rate,
        "epsilon": 10**experiment.epsilon,
        "evaluate_every": evaluate_every,
        "seed": seed,
        **({} if devices is None else {"devices": devices}),
    }
    if is_first:
        _check_run(folder, config, resume)
    process = experiment.process(made.model, execution)
    done = loop.saved_round(process, folder / _CHECKPOINT)
    test = experiment.evaluation_data(made, seed)
    evaluate = loop.central_eval(made.model, test)
    if is_first:  # nothing is left of a run that cannot begin
        replace_text(folder / _CONFIG, json_text(config))
    say(console, f"data: {source}")
    say(console, f"  training: {splits.train_data!r}")
    say(console, f"  evaluation: {test!r}")
    fewer = "" if cohort == (clients or experiment.clients) else " (all there are)"
    if done < total:
        what = f"rounds: {done + 1} to {total}, each of {cohort} clients{fewer}"
    else:
        what = f"rounds: all {total} are done, and {done} are saved"
    say(console, f"{what}, in {folder}")
    with _nothing_left(folder, is_first and not resume), _display(console, done, total) as show:
        result = loop.train(
            process,
            splits.train_data,
            splits.train_batches,
            rounds=total,
            sampler=uniform(cohort, seed=seed),
            seed=seed,
            checkpoint=folder / _CHECKPOINT,
            checkpoint_every=checkpoint_every,
            evaluate=evaluate,
            evaluate_every=evaluate_every,
            on_round=[metrics_files(folder, done=done), show] if is_first else [],
        )
    if not is_first:
        return
    weights = process.get_model_weights(result.state)
    weights_to_npz(weights, folder / _WEIGHTS)
    final = {name: float(value) for name, value in evaluate(weights).items()}
    save_json(str(folder / _EVALUATION), {"round": max(total, done), **final})
    say(console, "after the last round: " + _shown(final))
    say(console, f"{folder}: " + ", ".join(_files(folder)))
    summary = {**config, "rounds": max(total, done), "evaluation": final, "folder": str(folder)}
    save_json(json, summary)


def _arguments(experiment: Any, model: str | None, vocab_size: int | None) -> dict[str, Any]:
    known = inspect.signature(experiment.create).parameters
    arguments = dict(experiment.arguments)
    if model is not None:
        if "model_id" not in known:
            raise FedbridgeError("--model: this task has one model; leave it out.")
        arguments["model_id"] = model
    if vocab_size is not None:
        names = [name for name in ("vocab_size", "word_vocab_size") if name in known]
        if not names:
            raise FedbridgeError("--vocab-size: this task has no words; leave it out.")
        arguments[names[0]] = vocab_size
    return arguments


def _digest(data: FederatedArrays) -> str:
    """Tells data sets apart: by their clients, their sizes, and the rows of a hundred clients."""
    digest = hashlib.sha256("\0".join(data.client_ids).encode())
    digest.update(np.asarray(data.offsets).tobytes())
    for client_id in data.client_ids[:: max(1, data.num_clients // 100)]:
        for name, column in data.client(client_id).items():
            values = np.asarray(column)
            content = repr(values.tolist()).encode() if values.dtype == object else values.tobytes()
            digest.update(f"{name} {values.dtype} {values.shape}".encode() + content)
    return digest.hexdigest()[:16]


def _task(
    console: Console, experiment: Any, data: Path | None, arguments: dict[str, Any]
) -> tuple[Any, str]:
    """The task and where its data come from: real ones at hand, else a stand-in."""
    from fedbridge.tff_io import data_at_hand, generated_data

    spec = experiment.client_spec()
    found = data_at_hand(experiment.file, data)
    if found is None and experiment.data_set not in ("emnist", "stackoverflow"):
        source = f"TFF's synthetic data; for real ones: fedbridge data fetch {experiment.data_set}"
        return experiment.create(spec, use_synthetic_data=True, **arguments), source
    if found is None:
        folder, source = generated_data(experiment.data_set)
        source += f"; for real ones: fedbridge data fetch {experiment.data_set}"
    else:
        folder, source = data, found.source
        for name in experiment.vocabularies:
            if data_at_hand(name, data) is None:
                raise FedbridgeError(
                    f"{name}: it is not beside {experiment.file}; put it there, or get it with "
                    f"fedbridge data fetch {experiment.data_set}."
                )
    if "progress" not in inspect.signature(experiment.create).parameters:
        return experiment.create(spec, cache_dir=folder, **arguments), source
    with meter(console, "turning text into ids") as show:
        return experiment.create(spec, cache_dir=folder, progress=show, **arguments), source


def _check_run(folder: Path, config: dict[str, Any], resume: bool) -> None:
    """Refuses to mix two runs in one folder."""
    file = folder / _CONFIG
    if not resume:
        if file.exists() or (folder / _CHECKPOINT).exists():
            raise FedbridgeError(
                f"{folder}: a run is there already; go on with it with --resume, or name another "
                "folder with --output-dir."
            )
        return
    if not file.exists():
        if (folder / _CHECKPOINT).exists():
            raise FedbridgeError(f"{file}: it is gone; start anew in another folder.")
        return  # killed before it began
    try:
        before = dict(json_.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise FedbridgeError(f"{file}: it is damaged; start anew in another folder.") from None
    for name in {**config, **before}:
        if name != "data" and config.get(name) != before.get(name):
            raise FedbridgeError(
                f"{folder}: the run there has {name} {before.get(name)!r}, not "
                f"{config.get(name)!r}; resume it with the same, or name another folder."
            )


@contextlib.contextmanager
def _nothing_left(folder: Path, new: bool) -> Iterator[None]:
    """Where a new run ends before its first checkpoint, what it has written goes again."""
    from fedbridge.logs import METRICS_FILES

    try:
        yield
    except FedbridgeError:
        if new and not (folder / _CHECKPOINT).exists():
            for name in (_CONFIG, *METRICS_FILES):
                (folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is something else in it
                folder.rmdir()
        raise


@contextlib.contextmanager
def _display(console: Console, done: int, total: int) -> Iterator[Callable[[int, Any], None]]:
    """A progress bar with the last round's loss; every evaluation is a line."""
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("compiling", total=total, completed=done)

        def show(round: int, metrics: Any) -> None:
            training = metrics["client_work"]["train"]
            description = f"loss {float(training['loss']):.4f}"
            progress.update(task, completed=round, description=description)
            if "evaluation" in metrics:
                values = {name: float(value) for name, value in metrics["evaluation"].items()}
                say(console, f"round {round}: {_shown(values)}")

        yield show


def _shown(metrics: dict[str, float]) -> str:
    counts = [name for name in metrics if name.startswith("num_")]
    return ", ".join(f"{name} {v:.4f}" for name, v in metrics.items() if name not in counts)


def _files(folder: Path) -> list[str]:
    """What is in the folder; draws the curves first, where matplotlib is installed."""
    from importlib.util import find_spec

    from fedbridge.logs import save_curves

    if find_spec("matplotlib") is not None:
        save_curves(folder)
    return sorted(path.name for path in folder.iterdir() if path.is_file())

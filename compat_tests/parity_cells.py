"""The parity matrix, recorded from the real TFF: what its cells are, and a trace for each row.

    python compat_tests/parity_cells.py FOLDER [NAME ...]

`make traces` records all of it into fedbridge/bridge/parity_traces, with the index that
`fedbridge parity` reads; tests/test_parity.py says what the index must cover.
"""

import hashlib
import itertools
import json
import re
import signal
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import allpairspy
from parity_parts import (
    ALGORITHMS,
    CASES,
    CURRENT,
    MODELS,
    OPTIMIZERS,
    UNWEIGHTED,
    WEIGHTED,
    aggregator,
    algorithms,
    clients,
    crossentropy,
    made,
    metrics,
    points,
    reconstruction_model,
    server_optimizer,
)

from fedbridge.bridge import recorder, trace, trace_writer

FILES = [Path(__file__), Path(__file__).with_name("parity_parts.py")]
DIGEST = hashlib.sha256(b"".join(file.read_bytes() for file in FILES)).hexdigest()
NO_CLIENT_OPTIMIZER = ("FedSGD",)
RANDOM = ("compression, random", "DP, noise")
WITHOUT_NAN = ("ReLU CNN", "LSTM")  # see NOT_RECORDED
NAN = ("NaN client", "only NaN clients")


class Row(NamedTuple):
    """One process and the rounds that it runs: a trace, one cell for each case among its rounds.

    `side` is where the optimizer is that the row is about; the other one is SGD.
    """

    about: str
    algorithm: str
    client: str = "sgd"
    server: str = "sgd"
    side: str = "-"
    aggregator: str = "default"
    model: str = "softmax regression"
    cases: tuple[str, ...] = ("ragged",) * 3

    @property
    def optimizer(self):
        names = {"client": self.client, "server": self.server, "-": "sgd"}
        return names.get(self.side, f"{self.client} + {self.server}")

    @property
    def attributes(self):
        """As the index has them."""
        return {
            "about": self.about,
            "algorithm": self.algorithm,
            "optimizer": self.optimizer,
            "side": self.side,
            "aggregator": self.aggregator,
            "model": self.model,
        }

    @property
    def name(self):
        """Of the trace's file."""
        parts = [self.algorithm]
        parts += [f"{self.side} {self.optimizer}"] if self.side != "-" else []
        parts += [self.aggregator] if self.aggregator != "default" else []
        parts += [self.model] if self.model != "softmax regression" else []
        parts += ["cases"] if len(set(self.cases)) > 2 else []
        parts += [self.cases[-1]] if len(set(self.cases)) == 2 else []
        return ".".join(re.sub(r"\W+", "_", part.lower()).strip("_") for part in parts)


def optimizers_by_side():
    names = [*OPTIMIZERS, "scheduled"]
    for algorithm, side, name in itertools.product(ALGORITHMS, ("client", "server"), names):
        if side == "client" and algorithm in NO_CLIENT_OPTIMIZER:
            continue
        if (algorithm, side, name) == ("FedAvg, schedule", "client", "scheduled"):
            continue  # see NOT_RECORDED
        yield Row("optimizers", algorithm, **{side: name}, side=side)


def aggregators():
    for kind, names in (("weighted", WEIGHTED), ("unweighted", UNWEIGHTED)):
        for algorithm, name in itertools.product(("FedAvg", "FedProx", "MimeLite"), names):
            # Two samples are compared there, and these rounds are one of them.
            rounds = 12 if name in RANDOM else 3
            row = Row("aggregators", f"{kind} {algorithm}", aggregator=name)
            yield row._replace(cases=("ragged",) * rounds)


def models():
    for algorithm, model in itertools.product(("weighted FedAvg", "FedSGD"), MODELS):
        yield Row("models", algorithm, model=model)


def cases():
    for algorithm in [*ALGORITHMS, "evaluation", "FedRecon, evaluation", "k-means"]:
        yield Row("cases", algorithm, cases=tuple(CASES))


def pairs():
    """Every pair of values of what the other rows hold fixed."""
    names = [name for name in [*OPTIMIZERS, "scheduled"] if name != "adafactor"]
    values = [
        names,
        names,
        [name for name in [*WEIGHTED, *UNWEIGHTED] if name not in RANDOM],
        list(MODELS),
        list(CASES),
        ["FedAvg", "FedProx", "MimeLite"],
    ]
    possible = lambda row: not (len(row) > 4 and row[3] == "LSTM" and row[4] in NAN)
    found = [list(row) for row in allpairspy.AllPairs(values, filter_func=possible)]
    for row in found:
        if row[3] in WITHOUT_NAN and row[4] in NAN:
            row[4] = "ragged"
    for client, server, given, model, case, algorithm in [*found, *completion(found, values)]:
        kind = "weighted" if given in WEIGHTED else "unweighted"
        rounds = ("ragged", "ragged") if case == "ragged" else ("ragged", case)
        yield Row("pairs", f"{kind} {algorithm}", client, server, "both", given, model, rounds)


def completion(found, values):
    """Rows with the pairs that `found` lacks: AllPairs forgets some where it must filter."""
    places = list(itertools.combinations(range(len(values)), 2))
    have = {(i, row[i], j, row[j]) for row in found for i, j in places}
    lacking = [
        (i, a, j, b)
        for i, j in places
        for a, b in itertools.product(values[i], values[j])
        if (i, a, j, b) not in have and not (a in WITHOUT_NAN and b in NAN)
    ]
    while lacking:
        row = [None] * len(values)
        for i, a, j, b in lacking:
            if row[i] in (None, a) and row[j] in (None, b):
                row[i], row[j] = a, b
        row = [its[0] if value is None else value for value, its in zip(row, values, strict=True)]
        yield row
        lacking = [(i, a, j, b) for i, a, j, b in lacking if (row[i], row[j]) != (a, b)]


ROWS = {
    row.name: row
    for group in (optimizers_by_side, aggregators, models, cases, pairs)
    for row in group()
}
# What TFF itself cannot run: the error is recorded instead.
FAILING = {
    "fedavg_schedule.client_rmsprop",
    "mimelite_schedule.client_scheduled",
    *(row.name for row in ROWS.values() if row.optimizer == "adafactor"),
}
NOT_RECORDED = [
    {
        "algorithm": "personalization",
        "why": "its strategies are functions of the script's own, which no trace can hold: "
        "compared live, client by client, with one without data, one with NaN and a round of "
        "nobody, in compat_tests/test_personalization.py",
    },
    {
        "algorithm": "evaluation of several models",
        "why": "TFF 0.87.0 raises AttributeError: module 'tensorflow_federated.python.learning."
        "algorithms' has no attribute 'build_fed_multi_model_eval', which came later; "
        "tests/test_multi_eval.py compares each model with its evaluation alone",
    },
    {
        "aggregator": "add_measurements",
        "why": "it measures by functions of the script's own, which no trace can hold: compared "
        "live, by itself in compat_tests/test_aggregators.py, in FedAvg in "
        "compat_tests/test_tff_namespace.py",
    },
    {
        "algorithm": "FedAvg, schedule",
        "optimizer": "scheduled",
        "side": "client",
        "why": "TFF runs it, but what the script's function makes of a rate is more than an "
        "optimizer with that rate, which no trace can hold: compared live in "
        "compat_tests/test_tff_namespace.py",
    },
    {
        "model": "ReLU CNN",
        "case": "NaN client",
        "why": "TFF runs it; whether its max-pooling hands the NaN on, so that the client is left "
        "out, depends on TensorFlow's kernel and the processor: see docs/differences",
    },
    {
        "model": "LSTM",
        "case": "NaN client",
        "why": "its features are words, whole numbers that have no NaN; for a NaN in float32 TFF "
        "0.87.0 raises TypeError: Cannot serialize dataset with elements of type "
        "<x=float32[?,5],y=int32[?,5]>* as TFF type <x=int32[?,5],y=int32[?,5]>*",
    },
]


def run(process, rounds, data):
    """The rounds, each from the state after the last ragged one."""
    state = process.initialize()
    for number, case in enumerate(rounds):
        after = process.next(state, data(case, number)).state
        if case == "ragged":
            state = after


def play(row):
    """Runs a row under TFF."""
    data = lambda case, seed: clients(row.model, case, seed)
    if row.algorithm == "k-means":
        run(algorithms.build_fed_kmeans(3, (2,), random_seed=(1, 2)), row.cases, points)
        return
    if row.algorithm == "evaluation":
        play(Row("-", "weighted FedAvg", cases=("ragged",)))
        run(algorithms.build_fed_eval(made(row.model)), row.cases, data)
        return
    if row.algorithm == "FedRecon, evaluation":
        play(Row("-", "FedRecon", cases=("ragged",)))
        evaluation = algorithms.build_fed_recon_eval(
            reconstruction_model,
            loss_fn=crossentropy,
            metrics_fn=lambda: [metrics.SparseCategoricalAccuracy()],
        )
        run(evaluation, row.cases, data)
        return
    process = ALGORITHMS[row.algorithm](
        row.model,
        row.client,
        server_optimizer(row.server, row.model),
        aggregator(row.aggregator),
    )
    run(process, row.cases, data)


def record(name, out):
    """Records a row; returns its entry of the index, with TFF's error where TFF cannot run it."""
    row = ROWS[name]
    script = {"name": Path(__file__).name, "arguments": [name], "sha256": DIGEST}
    folder = out.with_suffix(".folder")
    try:
        recorder.record_function(CURRENT, lambda: play(row), folder, script=script)
    except Exception as error:
        if name not in FAILING:
            raise
        return {"why": f"TFF 0.87.0 raises {in_a_line(error)}"}
    if name in FAILING:
        raise AssertionError(f"TFF runs {name}, which was said to fail")
    if reason := trace.read(folder).not_replayable:
        raise AssertionError(f"{name} cannot be replayed: {reason}")
    out.unlink(missing_ok=True)
    trace_writer.pack(folder, out)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return {"trace": out.name, "cases": row.cases}


def in_a_line(error):
    """An error of TFF, on one line; of one inside of a graph the last, below the traceback."""
    said, kind = str(error).strip(), type(error).__name__
    if said.startswith("in user code:"):
        said = said.splitlines()[-1]
    words = said.replace("`", "'")
    return textwrap.shorten(words if words.startswith(f"{kind}:") else f"{kind}: {words}", 160)


def main(folder, names):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.json"
    entries = json.loads(index.read_text())["rows"] if names and index.exists() else {}
    started, failed = time.time(), {}
    for number, name in enumerate(names or ROWS):
        try:
            entries[name] = record(name, folder / f"{name}.zip")
        except Exception as error:  # noqa: BLE001 -- the others can be recorded all the same
            entries.pop(name, None)
            failed[name] = error
        done = f"FAILED: {failed[name]!r}" if name in failed else "recorded"
        print(f"{number + 1} of {len(names or ROWS)}, {time.time() - started:.0f} s: {name} {done}")
        sys.stdout.flush()
    recorder._end_workers()
    ordered = {
        name: {**row.attributes, **entries[name]} for name, row in ROWS.items() if name in entries
    }
    aside = index.with_suffix(".partial")
    content = {"rows": ordered, "not_recorded": NOT_RECORDED}
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.replace(index)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

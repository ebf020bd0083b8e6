"""The tasks, and the data of each: made of a seed, the same for every peer; NumPy only.

Values are noise around something that can be learned: how fast a round is does not depend on them,
and a loss that falls shows that a peer does what it is timed for.
"""

from typing import Any, NamedTuple

import numpy as np

VOCABULARY, LENGTH = 10_000, 20
_OUT_OF_VOCABULARY, _BEGIN, _END = VOCABULARY + 1, VOCABULARY + 2, VOCABULARY + 3


class Task(NamedTuple):
    """What is timed; plain numbers and names, so that it travels as JSON.

    Attributes:
        model: "lr", "2nn", "cnn" (on EMNIST) or "lstm" (on Stack Overflow).
        flops: Of matrix products and convolutions to train one example: forwards, and twice that
            for the gradients.
        population: How many clients there are.
        clients: How many take part in a round.
        most: The most examples of a client.
        batch_size: Of training.
        buffer: Of the seeded shuffle before it, as in TFF's baseline tasks.
        learning_rate: Of the clients' SGD; the server's is 1.
        test: How many examples the full evaluation sees.
        turns: How many times each peer has its turn.
        rounds: How many rounds a turn has; its time is divided by them.
    """

    model: str
    flops: float
    population: int
    clients: int = 10
    most: int = 460
    batch_size: int = 20
    buffer: int = 418
    learning_rate: float = 0.05
    test: int = 10_000
    turns: int = 7
    rounds: int = 1


_LR = 6.0 * 784 * 62
_TWO_HIDDEN = 6.0 * (784 * 200 + 200 * 200 + 200 * 62)
_CNN = 6.0 * (26**2 * 9 * 32 + 24**2 * 9 * 32 * 64 + 9216 * 128 + 128 * 62)
_LSTM = 6.0 * LENGTH * ((96 + 670) * 4 * 670 + 670 * 96 + 96 * (VOCABULARY + 4))

TASKS = {
    "emnist_lr": Task("lr", _LR, 500, rounds=20),
    "emnist_mlp": Task("2nn", _TWO_HIDDEN, 500, rounds=5),
    "emnist_cnn": Task("cnn", _CNN, 500),
    "stackoverflow_lstm": Task(
        "lstm", _LSTM, 200, 50, 128, 16, 1000, learning_rate=0.3, test=2_000, turns=5
    ),
    "cohort_10": Task("lr", _LR, 1000, 10, rounds=20),
    "cohort_100": Task("lr", _LR, 1000, 100, rounds=2),
    "cohort_1000": Task("lr", _LR, 1000, 1000, turns=5),
}
COHORTS = ("cohort_10", "cohort_100", "cohort_1000")


def quick(task: Task) -> Task:
    """The same task, small: all of them together end within ten minutes on two cores."""
    if task.model == "lstm":
        return task._replace(population=20, clients=4, most=32, test=200)
    if task.population == 1000:
        return task._replace(most=20, test=1_000, turns=5, rounds=min(task.rounds, 5))
    return task._replace(population=100, test=1_000, turns=5, rounds=min(task.rounds, 5))


def clients(task: Task) -> dict[str, dict[str, np.ndarray]]:
    """Client id to feature to rows: TFF's features of EMNIST, or "x" and "y" tokens."""
    made = {}
    for number in range(task.population):
        rng = np.random.default_rng([1, number])
        made[f"client_{number:04d}"] = _examples(task, rng, _num_examples(task, rng))
    return made


def test_examples(task: Task) -> dict[str, np.ndarray]:
    """What the full evaluation sees."""
    return _examples(task, np.random.default_rng(2), task.test)


def cohort(task: Task, round: int) -> list[str]:
    """The clients of a round, drawn without replacement."""
    rng = np.random.default_rng([3, round])
    drawn = rng.choice(task.population, task.clients, replace=False)
    return [f"client_{number:04d}" for number in drawn]


def num_examples(task: Task, round: int) -> int:
    """How many examples the clients of a round have together."""
    numbers = [int(client_id.removeprefix("client_")) for client_id in cohort(task, round)]
    return sum(_num_examples(task, np.random.default_rng([1, number])) for number in numbers)


def initial_weight(shape: tuple[int, ...]) -> np.ndarray:
    """A weight that all peers start from: Glorot's uniform distribution; zeros for a bias."""
    if len(shape) < 2:
        return np.zeros(shape, np.float32)
    window = int(np.prod(shape[:-2]))
    limit = np.sqrt(6 / (window * (shape[-2] + shape[-1])))
    return np.random.default_rng([4, *shape]).uniform(-limit, limit, shape).astype(np.float32)


def _num_examples(task: Task, rng: np.random.Generator) -> int:
    if task.model == "lstm":
        # Long-tailed, with 400 sentences on average before they are cut.
        return int(np.clip(rng.lognormal(5.5, 1.0), 1, task.most))
    # As in EMNIST: most writers filled in one form, some two, a few left early; 198 on average.
    kind = rng.choice(3, p=(0.715, 0.235, 0.05))
    count = (rng.normal(162, 30), rng.normal(335, 45), rng.uniform(20, 120))[kind]
    return min(int(np.clip(round(count), 20, 460)), task.most)


def _examples(task: Task, rng: np.random.Generator, count: int) -> dict[str, Any]:
    return _sentences(rng, count) if task.model == "lstm" else _characters(rng, count)


def _characters(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """62 faint shapes in noise; every pixel is a 255th, as in EMNIST."""
    shapes = np.random.default_rng(5).integers(0, 96, (62, 28, 28), np.uint8)
    labels = rng.integers(0, 62, count).astype(np.int32)
    pixels = shapes[labels] + rng.integers(0, 160, (count, 28, 28), np.uint8)
    return {"pixels": pixels.astype(np.float32) / np.float32(255), "label": labels}


def _sentences(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Words by Zipf's law, 13 a sentence on average; laid out as by TFF's preprocessing."""
    share = 1 / np.arange(3, VOCABULARY + 4)  # the last one stands for all words left out
    words = 1 + rng.choice(VOCABULARY + 1, (count, LENGTH), p=share / share.sum())
    lengths = np.clip(rng.gamma(2.5, 5.5, count), 1, LENGTH + 5).astype(int)[:, None]
    places = np.arange(LENGTH)
    targets = np.where(places < lengths, words, np.where(places == lengths, _END, 0))
    tokens = np.concatenate([np.full((count, 1), _BEGIN), targets[:, :-1]], axis=1)
    return {"x": tokens.astype(np.int32), "y": targets.astype(np.int32)}

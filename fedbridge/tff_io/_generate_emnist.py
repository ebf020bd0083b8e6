"""A stand-in for federated EMNIST where neither the data nor a network is at hand.

Every writer has a hand of its own: a font for digits and one for letters, slant, weight, size and
aspect, and for every character a way of bending it; every example is bent, turned and inked a
little differently again. The outlines of the fonts that matplotlib ships are bent as points, and
all characters of a writer are drawn on one sheet. It looks like handwriting from afar; accuracies
on it mean nothing.
"""

import importlib.util
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedbridge.jax_core import (
    ClientDataError,
    FederatedArrays,
    Fraction255,
    check_path,
    check_whole,
)
from fedbridge.tff_io._sql_write import write_sql

_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmtt10",
)
_SIZE = 28
_FIT = 20.0  # pixels; larger characters are made to fit
_CELL = 48  # pixels of the sheet for each character, so that neighbours never touch
_COLUMNS = 24


class _Outline(NamedTuple):
    """A character of cap height one, its lower left corner at the origin."""

    vertices: np.ndarray
    codes: np.ndarray


class _Hand(NamedTuple):
    """What one writer does always."""

    digits: str
    letters: str
    height: float  # of a capital, in pixels
    aspect: float
    slant: float
    weight: float  # of the pen, in pixels
    ink: float
    wobble: float
    bends: np.ndarray  # [62, 8]: the writer's way with every character


def generate_emnist(
    num_clients: int,
    out: str | PathLike,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Generates handwriting-like data in TFF's format: OUT/emnist_all.sqlite.

    As in TFF's file: splits all_train, all_test, digits_only_train and digits_only_test; pixels are
    28x28 numbers k/255 and 1.0 is paper; labels 0-9, A-Z = 10-35, a-z = 36-61. A writer has 198
    training examples on average (from 20 to 460), of which two thirds are digits, and a ninth of
    that for testing.

    Args:
        num_clients: The number of writers.
        out: The folder; it serves as the `cache_dir` of `tff.simulation.datasets.emnist.load_data`.
        seed: The same seed gives the same data, on the same release of matplotlib.
        progress: Called as `progress(done, num_clients)` after every writer.

    Returns:
        The path of the file, written aside and renamed.

    Raises:
        ClientDataError: No clients asked for, matplotlib is not installed, or the folder cannot be
            written.
        ArgumentError: A negative seed.
    """
    if num_clients < 1:
        raise ClientDataError(f"{num_clients} clients cannot be generated; ask for at least one.")
    check_whole("seed", seed, 0)
    check_path("out", out)
    if importlib.util.find_spec("matplotlib") is None:
        raise ClientDataError(
            "generating data needs matplotlib; install it with pip install 'fedbridge[plots]'."
        )
    outlines = _outlines()
    writers = []
    for writer in range(num_clients):
        rng = np.random.default_rng([seed, writer])
        writers.append(_write(_hand(rng), rng, outlines))
        if progress is not None:
            progress(writer + 1, num_clients)
    ids = [f"f{writer:04d}_{writer * 37 % 90 + 10}" for writer in range(num_clients)]
    folder = Path(out).expanduser()
    return write_sql(
        folder / "emnist_all.sqlite",
        {
            "all_train": _split(ids, writers, "train", 62),
            "all_test": _split(ids, writers, "test", 62),
            "digits_only_train": _split(ids, writers, "train", 10),
            "digits_only_test": _split(ids, writers, "test", 10),
        },
    )


def _split(
    ids: list[str], writers: list[dict[str, Any]], part: str, num_classes: int
) -> FederatedArrays:
    """One split: the labels below `num_classes`, of the writers who have any."""
    kept = [(i, *w[part]) for i, w in zip(ids, writers, strict=True)]
    kept = [(i, y[y < num_classes], k[y < num_classes]) for i, y, k in kept]
    kept = [client for client in kept if len(client[1])]
    offsets = np.cumsum([0, *(len(y) for _, y, _ in kept)], dtype=np.int64)
    labels = np.concatenate([np.zeros(0, np.int32), *(y for _, y, _ in kept)])
    pixels = np.concatenate([np.zeros((0, _SIZE, _SIZE), np.uint8), *(k for _, _, k in kept)])
    features = {"label": labels, "pixels": Fraction255(pixels)}
    return FederatedArrays(tuple(i for i, _, _ in kept), offsets, features)


def _hand(rng: np.random.Generator) -> _Hand:
    return _Hand(
        digits=str(rng.choice(_FONTS)),
        letters=str(rng.choice(_FONTS)),
        height=float(np.clip(rng.normal(10.5, 1.2), 8, 14)),
        aspect=float(np.clip(rng.normal(1.0, 0.12), 0.7, 1.3)),
        slant=float(np.clip(rng.normal(0.12, 0.2), -0.3, 0.6)),
        weight=float(np.clip(rng.gamma(4, 0.12), 0.05, 1.2)),
        ink=float(rng.uniform(0.85, 1.0)),
        wobble=float(rng.uniform(0.03, 0.07)),
        bends=rng.normal(0, 0.07, (len(_CHARACTERS), 8)),
    )


def _num_train(rng: np.random.Generator) -> int:
    """Most writers filled in one form, some two, a few left early; 198 on average."""
    kind = rng.choice(3, p=(0.715, 0.235, 0.05))
    count = (rng.normal(162, 30), rng.normal(335, 45), rng.uniform(20, 120))[kind]
    return int(np.clip(round(count), 20, 460))


def _write(hand: _Hand, rng: np.random.Generator, outlines: Any) -> dict[str, Any]:
    """All examples of a writer: part to (labels, numerators of the pixels)."""
    train = _num_train(rng)
    count = train + max(1, round(train / 9))
    digit = rng.random(count) < 2 / 3
    labels = np.where(digit, rng.integers(0, 10, count), rng.integers(10, 62, count))
    labels = labels.astype(np.int32)
    paths = []
    for label in labels:
        font = hand.digits if label < 10 else hand.letters
        outline = outlines[font][label]
        vertices = _bend(outline.vertices, hand.bends[label])
        vertices = _bend(vertices, rng.normal(0, hand.wobble, 8))
        paths.append((_place(vertices, hand, rng), outline.codes))
    ink = _draw(paths, hand.weight * rng.uniform(0.8, 1.2, count)).astype(np.float32)
    ink *= (hand.ink * rng.uniform(0.9, 1.0, count)).astype(np.float32)[:, None, None]
    grain = rng.normal(1.0, 0.06, ink.shape).astype(np.float32)
    specks = rng.random(ink.shape) < 0.0002
    ink = np.clip(ink * grain + specks * np.float32(30), 0, 255)
    pixels = np.uint8(255) - np.rint(ink).astype(np.uint8)
    return {"train": (labels[:train], pixels[:train]), "test": (labels[train:], pixels[train:])}


def _bend(vertices: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """Moves every point by a smooth wave of the other coordinate and a little shear."""
    x, y = vertices.T
    dx = bend[0] * np.sin(2.5 * y + 10 * bend[1]) + bend[2] * y + 0.5 * bend[3] * x * y
    dy = bend[4] * np.sin(2.5 * x + 10 * bend[5]) + bend[6] * x + 0.5 * bend[7] * x * y
    return np.stack([x + dx, y + dy], axis=1)


def _place(vertices: np.ndarray, hand: _Hand, rng: np.random.Generator) -> np.ndarray:
    """Slants, scales and turns a character, and centres its box in the image."""
    angle = rng.normal(0, 0.05)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = np.array([[hand.aspect, hand.slant + rng.normal(0, 0.04)], [0.0, 1.0]])
    placed = vertices @ (turn @ shape).T * (hand.height * rng.normal(1.0, 0.06))
    low, high = placed.min(axis=0), placed.max(axis=0)
    placed = (placed - (low + high) / 2) * min(1.0, _FIT / float((high - low).max()))
    return placed + rng.normal(0, 0.4, 2)


def _draw(paths: list[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> np.ndarray:
    """Draws the characters on one sheet and cuts it up: ink from 0 to 255, `[n, 28, 28]`."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.path import Path as Outline
    from matplotlib.transforms import IdentityTransform

    lines = -(-len(paths) // _COLUMNS)
    height = lines * _CELL
    renderer = RendererAgg(_COLUMNS * _CELL, height, 72)
    pen, black, as_is = renderer.new_gc(), (0.0, 0.0, 0.0, 1.0), IdentityTransform()
    pen.set_joinstyle("round")
    for i, ((vertices, codes), weight) in enumerate(zip(paths, weights, strict=True)):
        line, column = divmod(i, _COLUMNS)
        centre = ((column + 0.5) * _CELL, height - (line + 0.5) * _CELL)
        pen.set_linewidth(weight)
        renderer.draw_path(pen, Outline(vertices + centre, codes), as_is, black)
    alpha = np.asarray(renderer.buffer_rgba())[..., 3]
    cells = alpha.reshape(lines, _CELL, _COLUMNS, _CELL).swapaxes(1, 2).reshape(-1, _CELL, _CELL)
    edge = (_CELL - _SIZE) // 2
    return cells[: len(paths), edge : edge + _SIZE, edge : edge + _SIZE]


def _outlines() -> dict[str, list[_Outline]]:
    """The 62 characters of every font."""
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    outlines = {}
    for font in _FONTS:
        face = FontProperties(fname=str(folder / f"{font}.ttf"))
        paths = [TextPath((0, 0), character, size=100, prop=face) for character in _CHARACTERS]
        capital = np.ptp(paths[_CHARACTERS.index("H")].vertices[:-1, 1])
        outlines[font] = [_outline(path, capital) for path in paths]
    return outlines


def _outline(path: Any, capital: float) -> _Outline:
    vertices, codes = np.array(path.vertices), np.array(path.codes)
    # The point of a "close" is not drawn; it follows the last one, so as not to widen the box.
    for i in np.flatnonzero(codes == path.CLOSEPOLY):
        vertices[i] = vertices[i - 1]
    return _Outline((vertices - vertices.min(axis=0)) / capital, codes)

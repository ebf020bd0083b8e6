"""Shakespeare: the next character. A snippet becomes several rows.

Reference: TFF's simulation/baselines/shakespeare/char_prediction_preprocessing.py.
"""

import dataclasses

import numpy as np
from jaxtyping import Int16, Int64

from fedbridge.jax_core import FederatedArrays, Ragged
from fedbridge.jax_core._errors import check_whole
from fedbridge.preprocessing._features import require
from fedbridge.preprocessing._tokens import SpecialTokens, special_tokens, split_input_target

SHAKESPEARE_CHARACTERS = (
    "dhlptx@DHLPTX $(,048cgkoswCGKOSW[_#'/37;?bfjnrvzBFJNRVZ\"&*.26:\naeimquyAEIMQUY]!%)-159\r"
)
"""TFF's vocabulary; the id of a character is its place, counted from 1."""


def shakespeare_character_prediction(
    data: FederatedArrays, sequence_length: int = 80
) -> FederatedArrays:
    """Batches of `x` and `y`, int32[batch, sequence_length]: the characters before, the next ones.

    A snippet, with a beginning and an end, is filled up to a multiple of `sequence_length + 1` and
    cut into as many rows. Shuffles, repeats and `max_elements` count snippets, batches count rows.

    Args:
        data: With the feature "snippets".
        sequence_length: The characters of a row.

    Raises:
        ClientDataError: The feature is missing.
        ArgumentError: A sequence length below 1.

    Example:
        >>> snippets = Ragged.from_rows([b"hat"])
        >>> data = FederatedArrays(("a",), np.array([0, 1]), {"snippets": snippets})
        >>> shakespeare_character_prediction(data, 3).client("a")["tokens"].tolist()
        [[88, 2, 64, 5], [89, 0, 0, 0]]
    """
    require(data, "shakespeare_character_prediction", snippets="strings")
    check_whole("sequence_length", sequence_length)
    tokens, element_offsets = _tokenize(data.features["snippets"], sequence_length + 1)
    data = dataclasses.replace(
        data, features={"tokens": tokens}, element_offsets=element_offsets, structure=None
    )
    return data.map_batches(split_input_target)


def shakespeare_special_tokens() -> SpecialTokens:
    """The ids that are no characters.

    Example:
        >>> shakespeare_special_tokens()
        SpecialTokens(padding=0, out_of_vocab=(87,), beginning_of_sentence=88, end_of_sentence=89)
    """
    return special_tokens(len(SHAKESPEARE_CHARACTERS))


def _tokenize(
    snippets: Ragged, width: int
) -> tuple[Int16[np.ndarray, "rows width"], Int64[np.ndarray, " edges"]]:
    """The rows of all snippets, and which of them each snippet owns."""
    special = shakespeare_special_tokens()
    table = np.full(256, special.out_of_vocab[0], np.int16)
    table[list(SHAKESPEARE_CHARACTERS.encode())] = np.arange(1, len(SHAKESPEARE_CHARACTERS) + 1)
    offsets = np.asarray(snippets.offsets)
    characters = table[snippets.values[offsets[0] : offsets[-1]]]
    sizes = np.diff(offsets)
    element_offsets = np.zeros(len(offsets), np.int64)
    np.cumsum(-(-(sizes + 2) // width), out=element_offsets[1:])
    tokens = np.zeros(element_offsets[-1] * width, np.int16)
    starts = element_offsets[:-1] * width
    shift = starts + 1 - (offsets[:-1] - offsets[0])
    tokens[np.repeat(shift, sizes) + np.arange(len(characters))] = characters
    tokens[starts] = special.beginning_of_sentence
    tokens[starts + sizes + 1] = special.end_of_sentence
    return tokens.reshape(-1, width), element_offsets

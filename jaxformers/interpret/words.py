"""Relevance of the words of a text, from that of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxformers.text import Tokenizer


def relevance_by_word(
    tokenizer: Tokenizer,
    text: str,
    ids: Sequence[int],
    tokens: Sequence[str],
    relevance: Float[np.ndarray, "*rows L"],
) -> tuple[tuple[str, ...], Float[np.ndarray, "*rows n"]]:
    """The words of a text, and the sums of their tokens' relevance.

    Args:
        tokenizer: of the text.
        text: divided at its blanks.
        ids: of the text, without special tokens.
        tokens: the text of each id.
        relevance: of each id.

    Returns the tokens themselves where the tokenizer reads a word in its text otherwise than alone.
    """
    # Tokens lie within words, so that words read one by one give the text's own tokens; what is
    # cleaned across a blank, such as broken Unicode, is the exception.
    words = text.split()
    encodings = tokenizer.encode(words) if words else []
    if [i for encoding in encodings for i in encoding] != list(ids):
        return tuple(tokens), relevance
    # Differences of the running sum at the ends of the words: sums over their tokens.
    ends = np.cumsum([0, *map(len, encodings)])
    sums = np.cumsum(relevance, axis=-1, dtype=np.float64)
    sums = np.concatenate([np.zeros((*relevance.shape[:-1], 1)), sums], axis=-1)
    return tuple(words), np.diff(sums[..., ends])

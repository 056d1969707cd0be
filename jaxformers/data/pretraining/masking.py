"""BERT's masked language model (Devlin et al. 2018, section 3.1): the tokens to predict.

The rules are those of `create_masked_lm_predictions` in Google's create_pretraining_data.py.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int, UInt64

from jaxformers.data.pipeline.stateless_random import below, chance, high, low
from jaxformers.data.pretraining.document_store import TokenizedDocuments

MASKED, KEPT = 0.8, 0.1  # the rest becomes a random piece
LAST = np.iinfo(np.uint64).max


def prediction_counts(
    lengths: Int[np.ndarray, "B"], share: float, most: int
) -> Int[np.ndarray, "B"]:
    """How many pieces of rows of `lengths`, special tokens included, are to be predicted."""
    return np.minimum(most, np.maximum(1, np.rint(lengths * share).astype(np.int64)))


def mask(
    store: TokenizedDocuments,
    ids: Int[np.ndarray, "B L"],
    text: Bool[np.ndarray, "B L"],
    counts: Int[np.ndarray, "B"],
    words: UInt64[np.ndarray, "B L+M"],
    whole_words: bool = False,
) -> dict[str, np.ndarray]:
    """Choose `counts` of the `text` places of each row at random and mask them.

    Of the chosen pieces 80 % become [MASK], 10 % stay and 10 % become a piece drawn from the whole
    vocabulary. With `whole_words`, the pieces of a word are chosen together, and a word that has
    more of them than are left to choose is passed over.

    Args:
        store: special ids, vocabulary and which pieces continue a word.
        ids: the rows.
        text: places that hold text and no special token.
        counts: how many places to choose, at most M.
        words: random words: L to choose by, M (the places for predictions) to replace by.
        whole_words: choose words and not pieces.

    Returns:
        `input_ids` [B, L]; `masked_positions`, `masked_ids` (the pieces that stood there), both
        int32 and ascending, and `masked_weights` float32 [B, M], 0 where unused.
    """
    length = ids.shape[1]
    order, fate = words[:, :length] >> np.uint64(1), words[:, length:]
    counts = np.minimum(counts, text.sum(axis=1))
    if whole_words:
        positions = _chosen_words(order, text, counts, store.continues[ids], fate.shape[1])
    else:
        positions = _chosen_pieces(order, text, counts, fate.shape[1])
    rows, slots = np.nonzero(positions < length)
    columns = positions[rows, slots]
    labels = ids[rows, columns]
    masked, arrays = ids.copy(), _unused(positions.shape)
    masked[rows, columns] = _replaced(store, labels, fate[rows, slots])
    arrays["masked_positions"][rows, slots] = columns
    arrays["masked_ids"][rows, slots] = labels
    arrays["masked_weights"][rows, slots] = 1
    return {"input_ids": masked, **arrays}


def _unused(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    return {
        "masked_positions": np.zeros(shape, np.int32),
        "masked_ids": np.zeros(shape, np.int32),
        "masked_weights": np.zeros(shape, np.float32),
    }


def _replaced(store: TokenizedDocuments, labels: np.ndarray, words: np.ndarray) -> np.ndarray:
    """What stands in the place of each of the chosen pieces."""
    # BERT (section 3.1): of the chosen pieces 80 % [MASK], 10 % random, 10 % unchanged. One draw of
    # the upper half decides: below 0.8 mask, below 0.9 keep; the lower half draws the random piece.
    hidden, settled = chance(high(words), MASKED), chance(high(words), MASKED + KEPT)
    drawn = below(low(words), store.vocab_size)
    return np.where(hidden, store.special.mask, np.where(settled, labels, drawn))


def _chosen_pieces(
    order: np.ndarray, text: np.ndarray, counts: np.ndarray, most: int
) -> Int[np.ndarray, "B M"]:
    """The places of the `counts` lowest of `order`, ascending; L where unused."""
    length = text.shape[1]
    order = np.where(text, order, LAST)
    lowest = np.argpartition(order, min(most, length) - 1, axis=1)[:, :most]
    ranked = np.argsort(np.take_along_axis(order, lowest, axis=1), axis=1)
    positions = np.take_along_axis(lowest, ranked, axis=1)
    used = np.arange(positions.shape[1]) < counts[:, None]
    return _ascending(np.where(used, positions, length), length, most)


def _chosen_words(
    order: np.ndarray, text: np.ndarray, counts: np.ndarray, continued: np.ndarray, most: int
) -> Int[np.ndarray, "B M"]:
    """The places of whole words, taken by `order` as long as they fit; L where unused."""
    length = text.shape[1]
    first = text & (np.cumsum(text, axis=1) == 1)
    begins = text & (~continued | first)
    word = np.cumsum(begins, axis=1) - 1  # a piece that continues belongs to the word before
    row = np.arange(len(text))[:, None]
    sizes = np.bincount((row * length + word)[text], minlength=text.size).reshape(text.shape)
    ranked = np.argsort(np.where(begins, order, LAST), axis=1)[:, : begins.sum(axis=1).max()]
    ranked_words = np.where(np.take_along_axis(begins, ranked, axis=1), word[row, ranked], -1)
    chosen = np.zeros(text.shape, bool)
    left = counts.copy()
    for number in ranked_words.T:
        size = sizes[row[:, 0], number]
        fits = (number >= 0) & (size <= left)
        chosen[row[fits, 0], number[fits]] = True
        left -= np.where(fits, size, 0)
        if not left.any():
            break
    selected = text & np.take_along_axis(chosen, np.maximum(word, 0), axis=1)
    return _ascending(np.where(selected, np.arange(length), length), length, most)


def _ascending(positions: np.ndarray, length: int, most: int) -> Int[np.ndarray, "B M"]:
    """The lowest `most` places in order, filled up with `length`."""
    positions = np.sort(positions, axis=1)[:, :most]
    missing = most - positions.shape[1]
    return np.pad(positions, ((0, 0), (0, missing)), constant_values=length)

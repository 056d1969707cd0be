"""Pairs of text for BERT's next-sentence prediction, cut anew from the documents each epoch.

The rules are those of `create_instances_from_document` in Google's create_pretraining_data.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Int, UInt64

from jaxformers.data.pipeline.stateless_random import Draws, RowDraws, below, chance, high, low
from jaxformers.data.pretraining.document_store import TokenizedDocuments

SPECIALS = 3  # [CLS] A [SEP] B [SEP]
COINS = 512  # tosses each row has at hand for cutting at the front or the back
COIN_WORDS = COINS // 64


@dataclass(frozen=True)
class SentencePairs:
    """Texts A and B of each row, as ranges of sentences [rows each]; 17 bytes a row."""

    a_start: Int[np.ndarray, "N"]
    """First sentence of A."""
    a_stop: Int[np.ndarray, "N"]
    """The sentence behind the last of A."""
    b_start: Int[np.ndarray, "N"]
    """First sentence of B."""
    b_stop: Int[np.ndarray, "N"]
    """The sentence behind the last of B."""
    random: Bool[np.ndarray, "N"]
    """Whether B comes from another document."""

    def __len__(self) -> int:
        return len(self.random)

    def take(self, rows: Int[np.ndarray, "M"]) -> SentencePairs:
        """The pairs of those rows."""
        return SentencePairs(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def join(cls, chunks: Sequence[SentencePairs]) -> SentencePairs:
        """Concatenates the rows of all `chunks`."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in chunks]) for f in fields(cls)))


def sentence_pairs(
    sentences: Int[np.ndarray, "S+1"],
    documents: Int[np.ndarray, "D+1"],
    length: int,
    short_sequences: float,
    *seeds: int,
) -> SentencePairs:
    """The rows of one epoch, a pure function of its arguments.

    Every document has a target length: `length` less 3, or with probability `short_sequences` a
    number drawn from 2 to that. Its sentences are gathered until they reach the target; A takes
    the first 1 to n - 1 of these n. B takes the rest, or one time in two, and always where n is 1,
    what follows a random sentence of another document until the target is reached; then the rest
    is put back. All documents take a step at once, so that the work is NumPy's: it takes as many
    rounds as the document with most rows has.

    Args:
        sentences: where each sentence begins among all tokens, and their end; none is empty.
        documents: where each document begins among the sentences, and their end.
        length: places of a row.
        short_sequences: share of the documents with a shorter target.
        seeds: of the epoch.
    """
    draws = Draws(*seeds)
    document = np.arange(len(documents) - 1)
    target = target_lengths(len(document), length - SPECIALS, short_sequences, draws)
    start, kind, rounds = documents[:-1], _index_type(len(sentences)), []
    while len(document):
        pairs, following = _one_each(sentences, documents, document, start, target, draws)
        rounds.append(SentencePairs(*(array.astype(kind) for array in pairs[:4]), pairs[4]))
        going = following < documents[document + 1]
        document, start, target = document[going], following[going], target[going]
    return SentencePairs.join(rounds)


def target_lengths(
    count: int, longest: int, short_sequences: float, draws: Draws
) -> Int[np.ndarray, "D"]:
    """How many tokens each of `count` documents gathers for a row: `longest`, or 2 to that."""
    words = draws.words(count)
    short = chance(high(words), short_sequences)
    return np.where(short, 2 + below(low(words), longest - 1), longest)


def _one_each(
    sentences: np.ndarray,
    documents: np.ndarray,
    document: np.ndarray,
    start: np.ndarray,
    target: np.ndarray,
    draws: Draws,
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """One pair from `start` of each `document` on, and where its next one starts."""
    words = draws.words(2, len(document))
    stop = _reached(sentences, start, target, documents[document + 1])
    split = start + 1 + below(high(words[0]), np.maximum(stop - start - 1, 1))
    random = (stop - start == 1) | chance(low(words[0]), 0.5)
    b_start, b_stop = split.copy(), stop.copy()
    picked = np.flatnonzero(random)
    num_others = len(documents) - 2
    # A lone document has no other: it gives its own sentences, as Google's script lets it.
    random_document = (document[picked] + 1 + below(high(words[1, picked]), max(num_others, 1))) % (
        num_others + 1
    )
    first, end = documents[random_document], documents[random_document + 1]
    b_start[picked] = first + below(low(words[1, picked]), end - first)
    missing = target[picked] - (sentences[split[picked]] - sentences[start[picked]])
    b_stop[picked] = _reached(sentences, b_start[picked], np.maximum(missing, 1), end)
    return (start, split, b_start, b_stop, random), np.where(random, split, stop)


def _reached(
    sentences: np.ndarray, start: np.ndarray, num_tokens: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """The sentence behind the one with which `num_tokens` tokens from `start` on are reached."""
    return np.minimum(np.searchsorted(sentences, sentences[start] + num_tokens), end)


def _index_type(count: int) -> type:
    return np.int32 if count <= np.iinfo(np.int32).max else np.int64


def lay_pairs(
    store: TokenizedDocuments, pairs: SentencePairs, length: int, draws: RowDraws, coins: slice
) -> tuple[dict[str, np.ndarray], Bool[np.ndarray, "B L"]]:
    """Rows [CLS] A [SEP] B [SEP], and which of their places hold text.

    Args:
        store: holds the ids.
        pairs: what each row holds.
        length: places of a row.
        draws: of the rows.
        coins: the words of `draws` that say which end of a text is cut.

    Returns:
        `input_ids`, `token_type_ids`, `attention_mask` [B, L] and `next_sentence` [B] (1 where B
        is random), int32; and the places that may be masked.
    """
    a_size = store.sentences[pairs.a_stop] - store.sentences[pairs.a_start]
    b_size = store.sentences[pairs.b_stop] - store.sentences[pairs.b_start]
    a_kept, b_kept = kept_lengths(a_size, b_size, length - SPECIALS)
    a_front, b_front = _cut_in_front(a_size - a_kept, b_size - b_kept, draws, coins)
    a_first = (store.sentences[pairs.a_start] + a_front)[:, None]
    b_first = (store.sentences[pairs.b_start] + b_front)[:, None]
    columns = np.arange(length)
    middle, end = (1 + a_kept)[:, None], (2 + a_kept + b_kept)[:, None]  # the two [SEP]
    in_a, in_b = (columns >= 1) & (columns < middle), (columns > middle) & (columns < end)
    text = in_a | in_b
    tokens = np.where(in_a, a_first - 1, b_first - middle - 1) + columns
    ids = np.full(text.shape, store.special.pad, np.int32)
    ids[text] = store.ids[tokens[text]]
    ids[:, 0] = store.special.cls
    ids[(columns == middle) | (columns == end)] = store.special.sep
    batch = {
        "input_ids": ids,
        "token_type_ids": ((columns > middle) & (columns <= end)).astype(np.int32),
        "attention_mask": (columns <= end).astype(np.int32),
        "next_sentence": pairs.random.astype(np.int32),
    }
    return batch, text


def kept_lengths(
    a_size: Int[np.ndarray, "B"], b_size: Int[np.ndarray, "B"], room: int
) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "B"]]:
    """What is left of A and B when the longer one (B if equal) loses tokens until both fit."""
    a_kept = np.minimum(a_size, np.maximum(room - room // 2, room - b_size))
    b_kept = np.minimum(b_size, np.maximum(room // 2, room - a_size))
    return a_kept, b_kept


def _cut_in_front(
    a_cut: np.ndarray, b_cut: np.ndarray, draws: RowDraws, coins: slice
) -> tuple[np.ndarray, np.ndarray]:
    """How many of the tokens cut from A and from B go from the front, each by a fair coin."""
    tosses = _tosses(draws.words[:, coins])
    number = np.arange(tosses.shape[1])
    of_a = number < a_cut[:, None]
    of_b = (number < (a_cut + b_cut)[:, None]) & ~of_a
    a_front, b_front = (tosses & of_a).sum(axis=1), (tosses & of_b).sum(axis=1)
    for row in np.flatnonzero(a_cut + b_cut > tosses.shape[1]):
        many = _tosses(draws.more(row, -(-int(a_cut[row] + b_cut[row]) // 64))[None])[0]
        a_front[row] = many[: a_cut[row]].sum()
        b_front[row] = many[a_cut[row] : a_cut[row] + b_cut[row]].sum()
    return a_front, b_front


def _tosses(words: UInt64[np.ndarray, "B N"]) -> Bool[np.ndarray, "B 64*N"]:
    """The bits of the words, lowest first."""
    octets = np.ascontiguousarray(words.astype("<u8")).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little").astype(bool)

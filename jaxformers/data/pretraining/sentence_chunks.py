"""Chunks of consecutive sentences, several packed in a row: pre-training without next sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from jaxformers.data.pipeline.packing import pack
from jaxformers.data.pipeline.stateless_random import Draws, below, high
from jaxformers.data.pretraining.document_store import TokenizedDocuments
from jaxformers.data.pretraining.next_sentence import target_lengths

SPECIALS = 2  # [CLS] chunk [SEP]


@dataclass(frozen=True)
class PackedChunks:
    """The chunks of each row, as ranges of tokens; chunks of a row stand together."""

    starts: Int[np.ndarray, "C"]
    """First token of each chunk."""
    sizes: Int[np.ndarray, "C"]
    """Tokens of each chunk, special ones not counted."""
    rows: Int[np.ndarray, "N+1"]
    """Where each row begins among the chunks, and their end."""

    def __len__(self) -> int:
        return len(self.rows) - 1

    def take(self, rows: Int[np.ndarray, "M"]) -> PackedChunks:
        """The chunks of those rows."""
        spans = zip(self.rows[rows], self.rows[rows + 1], strict=True)
        chunks = np.concatenate([np.arange(*span) for span in spans])
        counts = self.rows[rows + 1] - self.rows[rows]
        return PackedChunks(self.starts[chunks], self.sizes[chunks], _offsets(counts))

    @classmethod
    def join(cls, chunks: Sequence[PackedChunks]) -> PackedChunks:
        """Concatenates the rows of all `chunks`."""
        starts, sizes, counts = (
            np.concatenate(arrays)
            for arrays in zip(*((p.starts, p.sizes, np.diff(p.rows)) for p in chunks), strict=True)
        )
        return cls(starts, sizes, _offsets(counts))


def packed_chunks(
    sentences: Int[np.ndarray, "S+1"],
    documents: Int[np.ndarray, "D+1"],
    length: int,
    short_sequences: float,
    *seeds: int,
) -> PackedChunks:
    """The rows of one epoch, a pure function of its arguments.

    A chunk is as many consecutive sentences of a document as fit its target length, which is
    `length` less 2 or, with probability `short_sequences`, a number from 2 to that. The first
    chunk of a document gets a random part of the target, so that no epoch cuts like another. A
    sentence longer than a row is cut, and nothing of it is lost. Arguments as in `sentence_pairs`.
    """
    starts, sizes = _chunks(sentences, documents, length - SPECIALS, short_sequences, Draws(*seeds))
    starts, sizes = _cut_long(starts, sizes, length - SPECIALS)
    row_of = pack(sizes + SPECIALS, sizes + SPECIALS, (length, length))
    order = np.argsort(row_of, kind="stable")
    return PackedChunks(starts[order], sizes[order], _offsets(np.bincount(row_of)))


def _chunks(
    sentences: np.ndarray, documents: np.ndarray, room: int, short_sequences: float, draws: Draws
) -> tuple[np.ndarray, np.ndarray]:
    """First token and number of tokens of all chunks, one of each document at a time."""
    document, start, rounds = np.arange(len(documents) - 1), documents[:-1], []
    target = target_lengths(len(document), room, short_sequences, draws)
    aim = 1 + below(high(draws.words(len(document))), target)
    while len(document):
        fits = np.searchsorted(sentences, sentences[start] + aim, side="right") - 1
        stop = np.minimum(np.maximum(fits, start + 1), documents[document + 1])
        rounds.append((sentences[start], sentences[stop] - sentences[start]))
        going = stop < documents[document + 1]
        document, start, target = document[going], stop[going], target[going]
        aim = target
    starts, sizes = (np.concatenate(arrays) for arrays in zip(*rounds, strict=True))
    return starts, sizes


def _cut_long(starts: np.ndarray, sizes: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """The same tokens in chunks of at most `room`."""
    counts = -(-sizes // room)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    left = np.repeat(sizes, counts) - number * room
    return np.repeat(starts, counts) + number * room, np.minimum(left, room)


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)])


def lay_chunks(
    store: TokenizedDocuments, chunks: PackedChunks, length: int
) -> tuple[dict[str, np.ndarray], Bool[np.ndarray, "B L"]]:
    """Rows of [CLS] chunk [SEP], one behind the other, and which of their places hold text.

    Returns:
        `input_ids`, `token_type_ids` (0), `attention_mask`, `segments` (1, 2, ... in a row, 0 is
        padding) and `positions` (from 0 in each chunk), int32 [B, L]; and the places that may be
        masked.
    """
    counts = np.diff(chunks.rows)
    row, full = np.repeat(np.arange(len(chunks)), counts), chunks.sizes + SPECIALS
    before = np.cumsum(full) - full
    column = before - before[chunks.rows[row]]
    within = np.arange(full.sum()) - np.repeat(before, full)
    is_last = within == np.repeat(full, full) - 1
    tokens = np.repeat(chunks.starts - 1, full) + within
    ids = store.ids[np.clip(tokens, 0, len(store.ids) - 1)].astype(np.int32)
    ids = np.where(within == 0, store.special.cls, np.where(is_last, store.special.sep, ids))
    segment = np.repeat(np.arange(len(full)) - chunks.rows[row] + 1, full)
    positions = np.repeat(row * length + column, full) + within

    def placed(values: np.ndarray, padding: int = 0) -> np.ndarray:
        out = np.full((len(chunks), length), padding, np.int32)
        out.reshape(-1)[positions] = values
        return out

    batch = {
        "input_ids": placed(ids, store.special.pad),
        "token_type_ids": placed(np.zeros_like(ids)),
        "attention_mask": placed(np.ones_like(ids)),
        "segments": placed(segment),
        "positions": placed(within),
    }
    return batch, placed((within > 0) & ~is_last).astype(bool)

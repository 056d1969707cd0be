"""Labelled texts as ids, looked up as rows of one length: what a fine-tuned BERT reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxformers.data.pipeline.fixed_length import Batch
from jaxformers.data.text.labelled_texts import LabelledTexts
from jaxformers.errors import ConfigError

CHUNK = 4096
SHORTEST = 5  # [CLS] a [SEP] b [SEP]


class LabelledRows:
    """`[CLS] text [SEP]`, or `[CLS] text [SEP] second [SEP]`, cut to `length` and padded to it.

    Of a pair that is too long, the longer text loses its last token until the pair fits, as in
    Google's code; an empty second text counts as none. Token types are 0 up to the first [SEP] and
    1 after it. Held in memory as flat ids; tokenised once, by `build`.

    Attributes:
        length: of the rows; may be lowered to `longest`.
        cut: how many examples were too long.
    """

    def __init__(self, ids: np.ndarray, ends: np.ndarray, labels: np.ndarray | None, **fields):
        self._ids, self._labels = ids, labels
        self._starts, self._first_ends, self._ends = ends
        self.length: int = fields["length"]
        self.pad_id: int = fields["pad_id"]
        self.cut: int = fields["cut"]
        self.fingerprint: dict[str, str | int] = fields["fingerprint"]

    @classmethod
    def build(cls, texts: LabelledTexts, tokenizer, length: int) -> LabelledRows:
        """The rows of `texts`, by a WordPiece `tokenizer`.

        Raises:
            ConfigError: `length` has no room for a pair.
        """
        if length < SHORTEST:
            raise ConfigError(f"length is {length}; a pair needs at least {SHORTEST}")
        first = tokenized(texts.texts, tokenizer)
        second = tokenized(texts.pairs, tokenizer) if texts.pairs else [[]] * len(first)
        sizes = np.array([[len(a), len(b)] for a, b in zip(first, second, strict=True)])
        lengths = cut_pairs(*sizes.T, length)
        ids = _flat(first, second, lengths, tokenizer)
        paired = lengths[1] > 0
        ends = np.cumsum(lengths[0] + lengths[1] + 2 + paired)
        starts = np.concatenate([[0], ends[:-1]])
        dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
        return cls(
            ids.astype(dtype),
            np.stack([starts, starts + lengths[0] + 2, ends]),
            texts.labels,
            length=length,
            pad_id=tokenizer.pad_id,
            cut=int((lengths.sum(0) < sizes.sum(1)).sum()),
            fingerprint=texts.fingerprint | {"tokenizer": tokenizer.fingerprint, "length": length},
        )

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def longest(self) -> int:
        """Most tokens of a row, special ones included."""
        return int((self._ends - self._starts).max())

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at `indices`: int32 `input_ids`, `token_type_ids` and `attention_mask` [n, L].

        With labels also `labels` [n], int32 classes or float32 numbers.
        """
        positions = self._starts[indices][:, None] + np.arange(self.length)
        real = positions < self._ends[indices][:, None]
        second = real & (positions >= self._first_ends[indices][:, None])
        ids = self._ids[np.minimum(positions, len(self._ids) - 1)]
        batch = {
            "input_ids": np.where(real, ids, self.pad_id).astype(np.int32),
            "token_type_ids": second.astype(np.int32),
            "attention_mask": real.astype(np.int32),
        }
        return batch if self._labels is None else batch | {"labels": self._labels[indices]}


def cut_pairs(
    first: Int[np.ndarray, "N"], second: Int[np.ndarray, "N"], length: int
) -> Int[np.ndarray, "2 N"]:
    """How many tokens of each text stay, so that they and the special tokens fit into `length`.

    The longer text loses its last token, the second where both are equal, until they fit.
    """
    room = length - 2 - (second > 0)
    # What that comes to: both are cut to the half, unless one is shorter and leaves more room.
    kept_first = np.minimum(first, np.maximum(room - room // 2, room - second))
    kept_second = np.minimum(second, np.maximum(room // 2, room - first))
    return np.stack([kept_first, kept_second])


def tokenized(texts: Sequence[str], tokenizer) -> list[list[int]]:
    """Ids of each text, a few thousand texts at a time."""
    chunks = (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
    return [row for chunk in chunks for row in tokenizer.encode(chunk)]


def _flat(first, second, lengths: np.ndarray, tokenizer) -> np.ndarray:
    """All rows' ids, one behind the other."""
    cls_id, sep_id = tokenizer.cls_id, tokenizer.sep_id
    flat: list[int] = []
    for a, b, (of_a, of_b) in zip(first, second, lengths.T.tolist(), strict=True):
        flat += (cls_id, *a[:of_a], sep_id)
        if of_b:
            flat += (*b[:of_b], sep_id)
    return np.array(flat, np.int32)

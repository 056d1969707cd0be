"""Labelled texts as ids, looked up as rows of one length: what a fine-tuned BERT reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxformers.data.pipeline.fixed_length import Batch
from jaxformers.data.text.labelled_texts import LabelledTexts
from jaxformers.errors import ConfigError
from jaxformers.text import InputTemplate

CHUNK = 4096
SHORTEST = 5  # [CLS] a [SEP] b [SEP]; RoBERTa has a special token more


class LabelledRows:
    """Texts or pairs between the tokenizer's special tokens, cut to `length` and padded to it.

    BERT's are `[CLS] text [SEP]` and `[CLS] text [SEP] second [SEP]`. Of a pair that is too long,
    the longer text loses its last token until the pair fits, as in Google's code; an empty second
    text counts as none. Token types are 0, and the template's `second_type` from the second text
    on. Held in memory as flat ids; tokenised once, by `build`.

    Attributes:
        length: of the rows; may be lowered to `longest`.
        cut: how many examples were too long.
    """

    def __init__(self, ids: np.ndarray, ends: np.ndarray, labels: np.ndarray | None, **fields):
        self._ids, self._labels = ids, labels
        self._starts, self._first_ends, self._ends = ends
        self.length: int = fields["length"]
        self.pad_id: int = fields["pad_id"]
        self.second_type: int = fields["second_type"]
        self.cut: int = fields["cut"]
        self.fingerprint: dict[str, str | int] = fields["fingerprint"]

    @classmethod
    def build(cls, texts: LabelledTexts, tokenizer, length: int) -> LabelledRows:
        """The rows of `texts`, by a `tokenizer` with a template.

        Raises:
            ConfigError: `length` has no room for a pair.
        """
        template = tokenizer.template
        if length < (shortest := template.pair_size + 2):
            raise ConfigError(f"length is {length}; a pair needs at least {shortest}")
        first = tokenized(texts.texts, tokenizer)
        second = tokenized(texts.pairs, tokenizer) if texts.pairs else [[]] * len(first)
        sizes = np.array([[len(a), len(b)] for a, b in zip(first, second, strict=True)])
        lengths = cut_pairs(*sizes.T, length, template)
        ids = _flat(first, second, lengths, template)
        paired = lengths[1] > 0
        special = np.where(paired, template.pair_size, template.single_size)
        before_second = template.pair_size - len(template.pair[2])
        ends = np.cumsum(lengths.sum(0) + special)
        starts = np.concatenate([[0], ends[:-1]])
        dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
        return cls(
            ids.astype(dtype),
            np.stack([starts, np.where(paired, starts + lengths[0] + before_second, ends), ends]),
            texts.labels,
            length=length,
            pad_id=tokenizer.pad_id,
            second_type=template.second_type,
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
            "token_type_ids": second.astype(np.int32) * self.second_type,
            "attention_mask": real.astype(np.int32),
        }
        return batch if self._labels is None else batch | {"labels": self._labels[indices]}


def cut_pairs(
    first: Int[np.ndarray, "N"],
    second: Int[np.ndarray, "N"],
    length: int,
    template: InputTemplate,
) -> Int[np.ndarray, "2 N"]:
    """How many tokens of each text stay, so that they and the special tokens fit into `length`.

    The longer text loses its last token, the second where both are equal, until they fit.
    """
    room = length - np.where(second > 0, template.pair_size, template.single_size)
    # In closed form: both are cut to the half, unless one is shorter and leaves more room.
    first_length = np.minimum(first, np.maximum(room - room // 2, room - second))
    second_length = np.minimum(second, np.maximum(room // 2, room - first))
    return np.stack([first_length, second_length])


def tokenized(texts: Sequence[str], tokenizer) -> list[list[int]]:
    """Ids of each text, a few thousand texts at a time."""
    chunks = (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
    return [row for chunk in chunks for row in tokenizer.encode(chunk)]


def _flat(first, second, lengths: np.ndarray, template: InputTemplate) -> np.ndarray:
    """All rows' ids, one behind the other."""
    flat: list[int] = []
    for a, b, (num_a, num_b) in zip(first, second, lengths.T.tolist(), strict=True):
        flat += template.arrange(a[:num_a], b[:num_b])
    return np.array(flat, np.int32)

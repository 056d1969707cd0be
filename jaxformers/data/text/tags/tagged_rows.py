"""Tagged sentences as rows of ids, with a label at the first piece of each word."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from jaxformers.data.pipeline.fixed_length import Batch
from jaxformers.data.text.tags.tagged_sentences import TaggedSentences
from jaxformers.errors import DataError
from jaxformers.text import Spans

UNLABELLED = -1
"""The label of special tokens, of padding, and of all pieces of a word but its first."""
CHUNK = 1024


class TaggedRows:
    """`[CLS] sentence [SEP]` of each sentence, cut to `length` and padded to it.

    Words are joined by blanks and read as plain text, so that training sees what `jf.tag` does.
    The first piece of a word has the word's label ("BERT", section 5.3). Held in memory; tokenised
    once, by `build`.

    Attributes:
        words: per sentence, the position in its row of the first piece of each word; -1 where the
            word has none: it was cut off, or holds no character that the tokenizer reads.
        cut: how many sentences were too long.
    """

    def __init__(
        self,
        ids: list[np.ndarray],
        labels: list[np.ndarray],
        words: list[np.ndarray],
        *,
        length: int,
        pad_id: int,
        cut: int,
        fingerprint: dict[str, Any],
    ):
        self._ids, self._labels, self.words = ids, labels, words
        self.length, self.pad_id, self.cut = length, pad_id, cut
        self.fingerprint = fingerprint

    @classmethod
    def build(
        cls, sentences: TaggedSentences, names: Sequence[str], tokenizer: Any, length: int
    ) -> TaggedRows:
        """The rows of `sentences`.

        Args:
            names: the classes, in the classifier's order.
            tokenizer: of the model.
            length: of the rows, special tokens included.

        Raises:
            DataError: a tag that is not among `names`.
        """
        classes = {name: index for index, name in enumerate(names)}
        if missing := set(sentences.tag_names) - set(classes):
            raise DataError(
                f"{sentences.source} has the tag {min(missing)!r:.80}, but the model's classes are "
                f"{', '.join(names):.300}: set --task.model.label-names"
            )
        ids, labels, word_positions, cut = [], [], [], 0
        before, behind = tokenizer.template.single
        num_special = len(before) + len(behind)
        for words, tags, spans in zip(
            sentences.words, sentences.tags, _spans(sentences.words, tokenizer), strict=True
        ):
            num_pieces = min(len(spans.ids), length - num_special)
            cut += num_pieces < len(spans.ids)
            positions = first_pieces(words, spans)
            positions = np.where(positions < num_pieces, positions + len(before), -1)
            row = np.full(num_pieces + num_special, UNLABELLED, np.int32)
            real = positions >= 0
            row[positions[real]] = np.array([classes[tag] for tag in tags], np.int32)[real]
            ids.append(np.array([*before, *spans.ids[:num_pieces], *behind], np.int32))
            labels.append(row)
            word_positions.append(positions)
        fingerprint = {"tokenizer": tokenizer.fingerprint, "length": length, "classes": list(names)}
        return cls(
            ids,
            labels,
            word_positions,
            length=length,
            pad_id=tokenizer.pad_id,
            cut=cut,
            fingerprint=sentences.fingerprint | fingerprint,
        )

    def __len__(self) -> int:
        return len(self._ids)

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at `indices`.

        Returns:
            int32 `input_ids`, `token_type_ids`, `attention_mask` and `labels`, each `[n, L]`.
        """
        shape = (len(indices), self.length)
        ids, mask = np.full(shape, self.pad_id, np.int32), np.zeros(shape, np.int32)
        labels = np.full(shape, UNLABELLED, np.int32)
        for row, index in enumerate(np.asarray(indices).tolist()):
            size = len(self._ids[index])
            ids[row, :size], labels[row, :size] = self._ids[index], self._labels[index]
            mask[row, :size] = 1
        return {
            "input_ids": ids,
            "token_type_ids": np.zeros(shape, np.int32),
            "attention_mask": mask,
            "labels": labels,
        }


def _spans(sentences: Sequence[Sequence[str]], tokenizer: Any) -> list[Spans]:
    """The pieces of each sentence, a thousand sentences at a time."""
    texts = [" ".join(words) for words in sentences]
    chunks = (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
    return [spans for chunk in chunks for spans in tokenizer.spans(chunk)]


def first_pieces(words: Sequence[str], spans: Spans) -> np.ndarray:
    """Number of the first piece of each word of `" ".join(words)`; past the last where it has none.

    A piece belongs to the word that holds its last character: that of a byte-level tokenizer, and
    an added token that takes in blanks, may begin at the blank before the word.
    """
    word_ends = np.array(list(accumulate(len(word) + 1 for word in words)))
    owners = np.searchsorted(word_ends, np.asarray(spans.ends) - 1, side="right")
    firsts = np.full(len(words), len(spans.ids), int)
    np.minimum.at(firsts, owners, np.arange(len(spans.ids)))
    return firsts

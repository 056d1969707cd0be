"""One pre-training example in pieces, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jaxformers.data.pipeline.collate import Batch


class _Named(Protocol):
    """A tokenizer that knows the text of its pieces."""

    vocabulary: Sequence[str]


@dataclass(frozen=True)
class ShownExample:
    """A row of a batch without its padding; printed, it is a small table."""

    pieces: list[str]
    """What the model sees."""
    segment_ids: list[int]
    """0 in text A, 1 in text B."""
    labels: dict[int, str]
    """The original piece at each place that is predicted."""
    next_sentence: bool | None
    """Whether B follows A in its document; None where that is not asked."""

    @property
    def original(self) -> list[str]:
        """The pieces before they were masked."""
        return [self.labels.get(position, token) for position, token in enumerate(self.pieces)]

    def __str__(self) -> str:
        labels = [self.labels.get(position, "") for position in range(len(self.pieces))]
        columns = zip(self.pieces, map(str, self.segment_ids), labels, strict=True)
        cells = [(*column, max(map(len, column))) for column in columns]
        names = ("input", "segment", "label")
        lines = [
            f"{name:8}" + " ".join(f"{cell[line]:{cell[3]}}" for cell in cells).rstrip()
            for line, name in enumerate(names)
        ]
        if self.next_sentence is not None:
            lines.append(f"{'next':8}{'yes' if self.next_sentence else 'no, B is random'}")
        return "\n".join(lines)


def describe_example(batch: Batch, row: int, tokenizer: _Named) -> ShownExample:
    """Row `row` of a pre-training `batch`, in the pieces of `tokenizer`."""
    name, length = tokenizer.vocabulary, int(batch["attention_mask"][row].sum())
    used = batch["masked_weights"][row] > 0
    positions, labels = batch["masked_positions"][row][used], batch["masked_ids"][row][used]
    label = batch.get("next_sentence")
    return ShownExample(
        pieces=_pieces(batch["input_ids"][row][:length], name),
        segment_ids=batch["token_type_ids"][row][:length].tolist(),
        labels=dict(zip(positions.tolist(), _pieces(labels, name), strict=True)),
        next_sentence=None if label is None else bool(label[row] == 0),
    )


def _pieces(ids: np.ndarray, vocabulary: Sequence[str]) -> list[str]:
    return [vocabulary[index] for index in ids.tolist()]

"""Collation: a batch from the examples that a plan chose for its rows."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from jaxformers.errors import DataError

Batch = dict[str, np.ndarray]
Shapes = dict[str, tuple[tuple[int, ...], np.dtype]]


class FlatIds(Protocol):
    """The ids of all examples of one side, one example behind the other."""

    ids: np.ndarray
    """Flat ids [tokens], eos included."""
    offsets: np.ndarray
    """Example n is `ids[offsets[n] : offsets[n + 1]]` [examples + 1]."""


class PairSpecialIds(Protocol):
    """Ids that batches add: padding and the decoder's start."""

    @property
    def pad(self) -> int: ...
    @property
    def start(self) -> int: ...


class PairStore(Protocol):
    """Tokenized (source, target) examples: what packing, bucketing and collation need of a set."""

    source: FlatIds
    target: FlatIds
    special: PairSpecialIds

    @property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of sources and of targets, eos included [examples] each."""
        ...


class Chosen(NamedTuple):
    """The examples of a batch, row by row, in the order in which they stand in their row."""

    examples: Int[np.ndarray, "N"]
    rows: Int[np.ndarray, "N"]


@runtime_checkable
class Plan(Protocol):
    """Which examples stand in which row of which step: a pure function of (seed, step)."""

    shapes: list[Shapes]
    fingerprint: str
    steps_per_epoch: float

    def rows(self, seed: int, step: int) -> int:
        """Number of rows of the (global) batch of `step`."""
        ...

    def batch(self, store: Any, seed: int, step: int, rows: slice = slice(None)) -> Batch:
        """Those rows of the batch of `step`; `store` holds the examples."""
        ...


def batch_shapes(rows: int, source_length: int, target_length: int) -> Shapes:
    """Name to (shape, type) of each array of a batch, all int32."""
    names = {
        "source": ("source_ids", "source_segments", "source_positions"),
        "target": ("target_in_ids", "target_out_ids", "target_segments", "target_positions"),
    }
    lengths = {"source": source_length, "target": target_length}
    int32 = np.dtype(np.int32)
    return {n: ((rows, lengths[side]), int32) for side in names for n in names[side]}


def nothing_fits(examples: int, container: str, limits: tuple[int, int]) -> DataError:
    """What a plan raises where no example is left by the `limits` of the largest `container`."""
    if not examples:
        return DataError("there is no example to make batches of")
    return DataError(
        f"none of the {examples:,} examples fits {container} of {limits[0]} source and "
        f"{limits[1]} target tokens: raise the lengths"
    )


def assemble(store: PairStore, chosen: Chosen, shape: tuple[int, int, int]) -> Batch:
    """The batch of `shape` (rows, source length S, target length T) that holds `chosen`.

    Each example is a segment (1, 2, ... in its row; 0 is padding) whose positions count from 0.
    `target_in_ids` are `target_out_ids` shifted right behind the start id, example by example.
    """
    rows, source_length, target_length = shape
    pad, start = store.special.pad, store.special.start
    source = _TokenLayout(store.source, chosen, rows, source_length)
    target = _TokenLayout(store.target, chosen, rows, target_length)
    return {
        "source_ids": source.array(source.ids, pad),
        "source_segments": source.array(source.segments),
        "source_positions": source.array(source.positions),
        "target_in_ids": target.array(target.shifted(start), pad),
        "target_out_ids": target.array(target.ids, pad),
        "target_segments": target.array(target.segments),
        "target_positions": target.array(target.positions),
    }


class _TokenLayout:
    """The tokens of the chosen examples, flat [tokens], and their positions in [rows, length]."""

    def __init__(self, side: FlatIds, chosen: Chosen, rows: int, length: int):
        starts = np.asarray(side.offsets[chosen.examples])
        lengths = np.asarray(side.offsets[chosen.examples + 1]) - starts
        before = np.cumsum(lengths) - lengths  # tokens of the batch before each example
        first, ordinal = _first_in_row(chosen.rows)
        columns = before - before[first]
        self._size = (rows, length)
        self.positions = np.arange(lengths.sum()) - np.repeat(before, lengths)
        self.ids = np.asarray(side.ids[np.repeat(starts, lengths) + self.positions])
        self.segments = np.repeat(ordinal + 1, lengths)
        # The flat index of every token in [rows * length]: one assignment then fills the array.
        self._indices = np.repeat(chosen.rows * length + columns, lengths) + self.positions

    def shifted(self, start: int) -> np.ndarray:
        """The ids one position later in each example, behind `start` [tokens]."""
        return np.where(self.positions == 0, start, np.roll(self.ids, 1))

    def array(self, values: np.ndarray, padding: int = 0) -> Int[np.ndarray, "B L"]:
        """`values` [tokens] at their positions, `padding` elsewhere."""
        out = np.full(self._size, padding, np.int32)
        out.reshape(-1)[self._indices] = values
        return out


def _first_in_row(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each example: the index of its row's first example, and its own rank in the row."""
    index = np.arange(len(rows))
    new = np.r_[True, rows[1:] != rows[:-1]] if len(rows) else np.zeros(0, bool)
    first = np.maximum.accumulate(np.where(new, index, 0)) if len(rows) else index
    return first, index - first

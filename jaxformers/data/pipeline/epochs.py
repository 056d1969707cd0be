"""Rows that are rebuilt in every epoch, as one endless shuffled stream."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from jaxformers.data.pipeline.shuffling import shuffled


class EpochRows(Protocol):
    """The rows of one epoch, with random access."""

    def __len__(self) -> int: ...

    def take(self, rows: Any) -> EpochRows:
        """The rows at the indices `rows`."""
        ...

    @classmethod
    def join(cls, chunks: Sequence[EpochRows]) -> EpochRows:
        """Concatenates the rows of all `chunks`."""
        ...


class EpochStream:
    """All rows of epoch 0, then all of epoch 1, ..., each epoch in a random order of its own.

    Epochs differ in how many rows they have, so to know where one begins all before it must have
    been made once. That is done when first needed: starting in epoch e costs e + 1 makings, going
    on costs one an epoch. The last two epochs are kept.

    Args:
        make: the rows of an epoch from (seed, epoch); picklable.
        tags: numbers that tell the order of this stream from that of others.
    """

    def __init__(self, make: Callable[[int, int], EpochRows], *tags: int):
        self._make, self._tags = make, tags
        self._ends: dict[int, list[int]] = {}
        self._epoch = lru_cache(maxsize=2)(make)

    def rows(self, seed: int, start: int, count: int) -> EpochRows:
        """Rows `start` to `start` + `count` of the stream of `seed`."""
        chunks = []
        while count:
            epoch, rank = self._find(seed, start)
            rows = self._epoch(seed, epoch)
            num_rows = min(count, len(rows) - rank)
            order = shuffled(rank, num_rows, len(rows), *self._tags, seed, epoch)
            chunks.append(rows.take(order))
            start, count = start + num_rows, count - num_rows
        return chunks[0] if len(chunks) == 1 else type(chunks[0]).join(chunks)

    def _find(self, seed: int, position: int) -> tuple[int, int]:
        """Epoch that `position` of the stream lies in, and the index within that epoch."""
        ends = self._ends.setdefault(seed, [0])
        while ends[-1] <= position:
            ends.append(ends[-1] + len(self._epoch(seed, len(ends) - 1)))
        epoch = bisect.bisect_right(ends, position) - 1
        return epoch, position - ends[epoch]

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_epoch"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._epoch = lru_cache(maxsize=2)(self._make)

"""Rows that are made anew for every epoch, as one endless shuffled stream."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from jaxformers.data.pipeline.shuffling import shuffled


class EpochRows(Protocol):
    """The rows of one epoch."""

    def __len__(self) -> int: ...

    def take(self, rows: Any) -> EpochRows:
        """Those rows."""
        ...

    @classmethod
    def join(cls, parts: Sequence[EpochRows]) -> EpochRows:
        """All rows of `parts`."""
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
        parts = []
        while count:
            epoch, rank = self._find(seed, start)
            rows = self._epoch(seed, epoch)
            taken = min(count, len(rows) - rank)
            order = shuffled(rank, taken, len(rows), *self._tags, seed, epoch)
            parts.append(rows.take(order))
            start, count = start + taken, count - taken
        return parts[0] if len(parts) == 1 else type(parts[0]).join(parts)

    def _find(self, seed: int, place: int) -> tuple[int, int]:
        """Epoch that `place` of the stream lies in, and which of its rows it is."""
        ends = self._ends.setdefault(seed, [0])
        while ends[-1] <= place:
            ends.append(ends[-1] + len(self._epoch(seed, len(ends) - 1)))
        epoch = bisect.bisect_right(ends, place) - 1
        return epoch, place - ends[epoch]

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_epoch"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._epoch = lru_cache(maxsize=2)(self._make)

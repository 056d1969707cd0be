"""Which task, and which of its examples, stands at a position: by arithmetic, without state.

Position p of the endless stream of rows has the slot

    slot(p) = (a p + b) mod 2^32,       a = 2^32 / golden ratio, b from the seed,

and the slots are divided among the tasks by their shares. Such a sequence is spread so evenly that
a task's count among any n positions differs from its share of n by a few draws. How many positions
before p belong to a task is a sum of floors, which takes some 30 steps for any p (as Euclid's
algorithm does); that number is the example's rank in the task's own shuffled stream. So a batch
needs no counters: a late start, any division among hosts, and shares that change at a given step
all give the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxformers.data.pipeline.shuffling import mixed_seed

SLOTS = 2**32
MULTIPLIER = 0x9E3779B9  # odd, so that every slot comes once in 2^32 positions


class TaskDraw(NamedTuple):
    """Tasks of consecutive rows `[n]`, and the rank of each row within its task's stream `[n]`."""

    tasks: Int[np.ndarray, "n"]
    ranks: Int[np.ndarray, "n"]


class MixtureDraws:
    """Draws of tasks by shares that may change at given positions.

    Args:
        changes: (first position, shares of all tasks), in order; the first position is 0.
    """

    def __init__(self, changes: Sequence[tuple[int, Float[np.ndarray, "T"]]]):
        self._starts = [start for start, _ in changes]
        self._bounds = [_slot_bounds(shares) for _, shares in changes]

    def draw(self, seed: int, start: int, count: int) -> TaskDraw:
        """The rows at positions `start` to `start + count`."""
        chunks = []
        position, end = start, start + count
        while position < end:
            segment = int(np.searchsorted(self._starts, position, side="right")) - 1
            later = self._starts[segment + 1 : segment + 2]
            stop = min([end, *later])
            tasks = self._tasks(seed, position, stop - position, segment)
            ranks = np.empty(stop - position, np.int64)
            before = self.counts(seed, position)
            for task in np.unique(tasks):
                rows = np.flatnonzero(tasks == task)
                ranks[rows] = before[task] + np.arange(len(rows))
            chunks.append((tasks, ranks))
            position = stop
        tasks, ranks = zip(*chunks, strict=True)
        return TaskDraw(np.concatenate(tasks), np.concatenate(ranks))

    def counts(self, seed: int, position: int) -> Int[np.ndarray, "T"]:
        """How many positions before `position` each task has."""
        totals = np.zeros(len(self._bounds[0]) - 1, np.int64)
        ends = [*self._starts[1:], position]
        for start, end, bounds in zip(self._starts, ends, self._bounds, strict=True):
            if start >= position:
                break
            offset, stop = _offset(seed), min(end, position)
            below = [_count_below(stop, b, offset) - _count_below(start, b, offset) for b in bounds]
            totals += np.diff(below)
        return totals

    def _tasks(self, seed: int, start: int, count: int, segment: int) -> Int[np.ndarray, "n"]:
        positions = np.arange(start, start + count, dtype=np.uint64)
        slots = (positions * np.uint64(MULTIPLIER) + np.uint64(_offset(seed))) % np.uint64(SLOTS)
        bounds = np.array(self._bounds[segment][1:], np.uint64)
        return np.searchsorted(bounds, slots, side="right")


def _offset(seed: int) -> int:
    return 2 * mixed_seed(seed)


def _slot_bounds(shares: Float[np.ndarray, "T"]) -> list[int]:
    """T + 1 bounds of the tasks' slots, from 0 to all."""
    bounds = [0, *(round(bound * SLOTS) for bound in np.cumsum(shares).tolist())]
    last = int(np.flatnonzero(shares)[-1])
    return [*bounds[: last + 1], *[SLOTS] * (len(bounds) - last - 1)]


def _count_below(count: int, bound: int, offset: int) -> int:
    """How many of the first `count` positions have a slot below `bound`."""
    # [x mod M < u] = floor(x / M) - floor((x - u) / M), summed over x = a p + b.
    shifted = _floor_sum(count, SLOTS, MULTIPLIER, offset + SLOTS - bound) - count
    return _floor_sum(count, SLOTS, MULTIPLIER, offset) - shifted


def _floor_sum(count: int, modulus: int, factor: int, offset: int) -> int:
    """The sum over i = 0 .. count - 1 of floor((factor i + offset) / modulus)."""
    total = 0
    while count:
        total += count * (count - 1) // 2 * (factor // modulus) + count * (offset // modulus)
        factor, offset = factor % modulus, offset % modulus
        # The lattice points under the line, counted along the other axis.
        last = factor * count + offset
        if last < modulus:
            break
        count, offset, modulus, factor = last // modulus, last % modulus, factor, modulus
    return total

"""Bucketing: batches of a few fixed shapes; an example goes to the smallest that holds it."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from jaxformers.data.pipeline.collate import (
    Batch,
    Chosen,
    PairStore,
    assemble,
    batch_shapes,
    nothing_fits,
)
from jaxformers.data.pipeline.shuffling import mixed_seed, shuffled
from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, PositiveInt


@dataclass(frozen=True)
class Bucketing(CheckedFields):
    """One example a row, in batches of a few shapes; examples too long for all are dropped."""

    shapes: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = ((64, 64, 64),)
    """(rows, source length, target length) of each bucket; lengths include eos."""

    def plan(self, store: PairStore) -> BucketingPlan:
        """The plan for the lengths of `store`; raises DataError where no example fits."""
        return BucketingPlan(self, *store.lengths)


class BucketingPlan:
    """Which examples stand in the batch of a step, for given lengths.

    Each bucket is an endless stream of its own, shuffled anew in each of its epochs. Which bucket
    a step takes is shuffled in cycles: after `c` cycles a bucket of n examples has given
    ceil(c * n / rows) batches, so buckets stay in proportion however small they are.
    """

    def __init__(
        self,
        config: Bucketing,
        source_lengths: Int[np.ndarray, "N"],
        target_lengths: Int[np.ndarray, "N"],
    ):
        _check(config)
        sizes = sorted(config.shapes, key=lambda shape: (shape[1] + shape[2], shape[1]))
        bucket_of = _bucket_of(sizes, source_lengths, target_lengths)
        members = [np.flatnonzero(bucket_of == b) for b in range(len(sizes))]
        self.left_out = int((bucket_of < 0).sum())
        filled = [b for b in range(len(sizes)) if len(members[b])]
        if not filled:
            raise nothing_fits(len(source_lengths), "the largest bucket", sizes[-1][1:])
        self._sizes = [sizes[b] for b in filled]
        self._members = [members[b] for b in filled]
        self.shapes = [batch_shapes(*size) for size in self._sizes]
        self.steps_per_epoch = self._steps_before(1)
        self.fill = self._fill(target_lengths)
        self.fingerprint = str(config)

    def rows(self, seed: int, step: int) -> int:
        """Number of rows of the batch of `step`."""
        return self._sizes[self._slot(seed, step)[0]][0]

    def batch(self, store: PairStore, seed: int, step: int, rows: slice = slice(None)) -> Batch:
        """Those `rows` of the batch of `step`: int32 arrays [B, S] and [B, T] (see `assemble`)."""
        bucket, number = self._slot(seed, step)
        all_rows, source_length, target_length = self._sizes[bucket]
        members = self._members[bucket]
        start, stop, _ = rows.indices(all_rows)
        ranks = shuffled(number * all_rows + start, stop - start, len(members), seed, bucket)
        chosen = Chosen(members[ranks], np.arange(stop - start))
        return assemble(store, chosen, (stop - start, source_length, target_length))

    def _slot(self, seed: int, step: int) -> tuple[int, int]:
        """Bucket of `step`, and how many batches that bucket has given before."""
        # The last cycle c with steps_before(c) <= step, by bisection: no step before it is visited.
        cycles = range((step + 2) * max(size[0] for size in self._sizes))
        cycle = bisect.bisect_right(cycles, step, key=self._steps_before) - 1
        spans = [
            (self._given(b, cycle), self._given(b, cycle + 1)) for b in range(len(self._sizes))
        ]
        buckets, numbers = _cycle(tuple(spans), seed, cycle)
        slot = step - self._steps_before(cycle)
        return int(buckets[slot]), int(numbers[slot])

    def _given(self, bucket: int, cycles: int) -> int:
        """Batches that `bucket` has given after so many cycles."""
        return -(-cycles * len(self._members[bucket]) // self._sizes[bucket][0])

    def _steps_before(self, cycles: int) -> int:
        return sum(self._given(bucket, cycles) for bucket in range(len(self._sizes)))

    def _fill(self, target_lengths: np.ndarray) -> float:
        """Share of the target positions that hold a token."""
        capacity = sum(
            len(members) * size[2] for members, size in zip(self._members, self._sizes, strict=True)
        )
        return float(sum(target_lengths[members].sum() for members in self._members) / capacity)


@lru_cache(maxsize=4)
def _cycle(
    spans: tuple[tuple[int, int], ...], seed: int, cycle: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bucket and batch number of each slot of a cycle [slots], in shuffled order.

    `spans` are the batches that each bucket gives: from its first to behind its last.
    """
    counts = [after - before for before, after in spans]
    # Bit generators are stable between versions of NumPy; `Generator.permutation` is not.
    draws = np.random.Philox(mixed_seed(seed, cycle, 1)).random_raw(sum(counts))
    buckets = np.repeat(np.arange(len(counts)), counts)[np.argsort(draws, kind="stable")]
    numbers = np.empty_like(buckets)
    for bucket, span in enumerate(spans):
        numbers[buckets == bucket] = np.arange(*span)
    return buckets, numbers


def _bucket_of(sizes: list, source_lengths: np.ndarray, target_lengths: np.ndarray) -> np.ndarray:
    """Index of the first of `sizes` that holds each example, -1 where none does."""
    bucket_of = np.full(len(source_lengths), -1)
    for bucket in reversed(range(len(sizes))):
        _, source, target = sizes[bucket]
        bucket_of[(source_lengths <= source) & (target_lengths <= target)] = bucket
    return bucket_of


def _check(config: Bucketing) -> None:
    if not config.shapes:
        raise ConfigError("bucketing needs at least one (rows, source length, target length)")
    for shape in config.shapes:
        if len(shape) != 3:
            raise ConfigError(f"bucket {shape} must be (rows, source length, target length)")

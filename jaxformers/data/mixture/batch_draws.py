"""Batches of a mixture: which bucket of tasks a step draws from, and which examples.

A bucket is a set of tasks whose rows have the same arrays, such as those without pictures, so that
a batch of one bucket holds nothing that none of its rows needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxformers.data.mixture.draws import MixtureDraws, TaskDraw
from jaxformers.data.pipeline.shuffling import mixed_seed

STEPS = 41  # what the draws of buckets are for


class BatchDraws:
    """Draws of batches, each of tasks of one bucket, by index arithmetic from (seed, step).

    A bucket's share of the steps is the sum of its tasks' shares. Its k-th batch holds rows k B to
    (k + 1) B of a stream of its own, in which its tasks have their shares of the bucket. So every
    task has its share of all rows; with one bucket the draws are those of `MixtureDraws`.

    Args:
        changes: (first step, shares of all tasks), in order; the first step is 0.
        buckets: the numbers of each bucket's tasks; every task is in one.
        rows: B, rows of a batch.
    """

    def __init__(
        self,
        changes: Sequence[tuple[int, Float[np.ndarray, "T"]]],
        buckets: Sequence[Sequence[int]],
        rows: int,
    ):
        self._changes, self._rows = changes, rows
        self._buckets = [np.array(bucket, np.int64) for bucket in buckets]
        self._num_tasks = sum(map(len, buckets))
        step_shares = [
            (step, np.array([shares[bucket].sum() for bucket in self._buckets]))
            for step, shares in changes
        ]
        self._steps = MixtureDraws(step_shares)

    def bucket(self, seed: int, step: int) -> tuple[int, int]:
        """The bucket of the batch of `step`, and how many of its batches come before."""
        draw = self._steps.draw(mixed_seed(seed, STEPS), step, 1)
        return int(draw.tasks[0]), int(draw.ranks[0])

    def draw(self, seed: int, step: int, rows: range) -> TaskDraw:
        """Those `rows` of the batch of `step`."""
        bucket, number = self.bucket(seed, step)
        start = number * self._rows + rows.start
        tasks, ranks = self._stream(seed, bucket).draw(seed, start, len(rows))
        return TaskDraw(self._buckets[bucket][tasks], ranks)

    def counts(self, seed: int, step: int) -> Int[np.ndarray, "T"]:
        """How many rows of each task the batches before `step` hold."""
        totals = np.zeros(self._num_tasks, np.int64)
        batches = self._steps.counts(mixed_seed(seed, STEPS), step).tolist()
        for number, (bucket, count) in enumerate(zip(self._buckets, batches, strict=True)):
            totals[bucket] = self._stream(seed, number).counts(seed, count * self._rows)
        return totals

    def _stream(self, seed: int, number: int) -> MixtureDraws:
        """The stream of a bucket; where its shares change depends on the batches before."""
        bucket, changes = self._buckets[number], []
        for step, shares in self._changes:
            total = shares[bucket].sum()
            if total > 0:  # else no step draws from it until the next change
                batches = self._steps.counts(mixed_seed(seed, STEPS), step)[number]
                changes.append((int(batches) * self._rows, shares[bucket] / total))
        # A bucket without a share is never drawn from.
        return MixtureDraws(changes or [(0, np.full(len(bucket), 1 / len(bucket)))])

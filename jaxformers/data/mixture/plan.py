"""Batches of a mixture: (task, example) of every row from (seed, step, row)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int, UInt64

from jaxformers.data.mixture.batch_draws import BatchDraws
from jaxformers.data.mixture.mixture import Mixture, TaskExamples
from jaxformers.data.pipeline.collate import Batch
from jaxformers.data.pipeline.shuffling import SHORT, permuted, shuffled
from jaxformers.data.pipeline.stateless_random import RowDraws
from jaxformers.errors import DataError

MIXTURE = 37  # what the draws are for


class MixtureRows(Protocol):
    """Looks up the rows of a batch."""

    draws: int
    """Random words that a row takes."""

    def gather(
        self,
        tasks: Int[np.ndarray, "n"],
        indices: Int[np.ndarray, "n"],
        words: UInt64[np.ndarray, "n draws"],
    ) -> Batch:
        """The rows of the examples `indices` of `tasks`, by their numbers in the mixture."""
        ...


@dataclass(frozen=True)
class OpenMixture:
    """The tasks of a mixture whose data are there.

    Attributes:
        mixture: its configuration.
        examples: of each task, by name.
        missing: tasks without data, and why.
    """

    mixture: Mixture
    examples: dict[str, TaskExamples]
    missing: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tasks with data; draws number the tasks in their order."""
        return tuple(self.examples)

    @property
    def numbers(self) -> Int[np.ndarray, "T"]:
        """The position of each of `names` among all tasks of the mixture, int32."""
        return np.array([self.mixture.names.index(name) for name in self.names], np.int32)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Examples of each task."""
        return {name: len(examples) for name, examples in self.examples.items()}

    def draws(self, rows: int, buckets: Sequence[Sequence[int]] = ()) -> BatchDraws:
        """The draws of batches of `rows`, each of one of `buckets` of tasks; empty: all are one."""
        everything = range(len(self.names))
        return BatchDraws(self.mixture.shares(self.sizes), buckets or (everything,), rows)

    def table(
        self, rows: int, steps: int, seed: int = 0, buckets: Sequence[Sequence[int]] = ()
    ) -> str:
        """Lines with the share, the examples drawn and the epochs of each task in a run.

        Args:
            rows: of a batch.
            steps: of the run.
            seed: of the run.
            buckets: of tasks, by their numbers in `names`; empty: all are one.
        """
        counts = self.draws(rows, buckets).counts(seed, steps)
        shares = self.mixture.shares(self.sizes)[0][1]
        width = max(len("task"), *map(len, self.names))
        lines = [f"{'task':{width}} {'examples':>12} {'share':>8} {'drawn':>12} {'epochs':>10}"]
        for (name, size), share, count in zip(self.sizes.items(), shares, counts, strict=True):
            lines.append(f"{name:{width}} {size:12,} {share:8.2%} {count:12,} {count / size:10.3f}")
        for change in self.mixture.changes:
            weights = ", ".join(f"{name} {weight:g}" for name, weight in change.weights)
            lines.append(f"from step {change.step:,} on: weights {weights}")
        lines += [f"left out: {name}: {reason}" for name, reason in self.missing.items()]
        return "\n".join(lines)


def open_mixture(mixture: Mixture) -> OpenMixture:
    """Opens every task's data.

    Raises:
        DataError: data are missing and `without_missing` is not set: all such tasks are listed;
            or nothing is left.
    """
    examples: dict[str, TaskExamples] = {}
    missing: dict[str, str] = {}
    for entry in mixture.entries:
        try:
            opened = entry.task.open()
            if not len(opened):
                raise DataError("its data hold no example")
            examples[entry.name] = opened
        except DataError as error:
            missing[entry.name] = str(error)
    if missing and (not mixture.without_missing or not examples):
        listed = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        mend = "" if not examples else "; train on the others with without_missing"
        raise DataError(f"{len(missing)} of {len(mixture.entries)} tasks lack data: {listed}{mend}")
    return OpenMixture(mixture, examples, missing)


class MixturePlan:
    """Which example of which task stands in which row of which batch.

    Args:
        mixture: opened.
        store: of the rows.
        rows: of a batch.
        buckets: of tasks, by their numbers in `mixture.names`: a batch has tasks of one bucket,
            whose rows have the same arrays; empty: all are one.
    """

    def __init__(
        self,
        mixture: OpenMixture,
        store: MixtureRows,
        rows: int,
        buckets: Sequence[Sequence[int]] = (),
    ):
        self._rows, self._sizes = rows, list(mixture.sizes.values())
        self._draws = mixture.draws(rows, buckets)
        words = RowDraws((MIXTURE, 0, 0), range(1), store.draws).words
        self.shapes = []
        for first_task, *_ in buckets or ((0,),):
            sample = store.gather(np.array([first_task]), np.zeros(1, np.int64), words)
            self.shapes.append(
                {name: ((rows, *array.shape[1:]), array.dtype) for name, array in sample.items()}
            )
        self.steps_per_epoch = sum(self._sizes) / rows
        self.fingerprint = f"{rows} rows of {mixture.mixture.shares(mixture.sizes)}"
        if len(buckets) > 1:
            names = [[mixture.names[number] for number in bucket] for bucket in buckets]
            self.fingerprint += f" in buckets {names}"

    def rows(self, seed: int, step: int) -> int:
        """Number of rows of the batch of `step`."""
        return self._rows

    def batch(
        self, store: MixtureRows, seed: int, step: int, rows: slice = slice(None)
    ) -> Mapping[str, Any]:
        """Those `rows` of the batch of `step`."""
        batch_rows = range(self._rows)[rows]
        tasks, indices = self.examples(seed, step, batch_rows)
        words = RowDraws((MIXTURE, seed, step), batch_rows, store.draws).words
        return store.gather(tasks, indices, words)

    def examples(
        self, seed: int, step: int, rows: range
    ) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
        """The task of each of `rows`, and the index of its example among the task's."""
        draw = self._draws.draw(seed, step, rows)
        indices = np.empty(len(rows), np.int64)
        for task in np.unique(draw.tasks).tolist():
            members = np.flatnonzero(draw.tasks == task)
            # Consecutive rows have consecutive ranks: one look-up gives a task's all.
            first = int(draw.ranks[members[0]])
            size = self._sizes[task]
            stream = permuted if size <= SHORT else shuffled
            indices[members] = stream(first, len(members), size, MIXTURE, seed, task)
        return draw.tasks, indices

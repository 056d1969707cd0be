"""Examples of one fixed shape each, shuffled anew in every epoch: fine-tuning's batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxformers.data.pipeline.shuffling import shuffled
from jaxformers.errors import DataError

Batch = dict[str, np.ndarray]


@runtime_checkable
class Rows(Protocol):
    """Examples that can be looked up, each a row of the same shapes."""

    fingerprint: dict[str, Any]

    def __len__(self) -> int: ...

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at `indices`: arrays `[len(indices), ...]` by name."""
        ...


class RowPlan:
    """The next `rows` examples of an endless stream, one permutation of all after the other."""

    def __init__(self, store: Rows, rows: int):
        if not len(store):
            raise DataError("there is no example to make batches of")
        self._count, self._rows = len(store), rows
        self.shapes = [
            {
                name: ((rows, *array.shape[1:]), array.dtype)
                for name, array in store.gather(np.zeros(1, np.int64)).items()
            }
        ]
        self.steps_per_epoch = self._count / rows
        self.fingerprint = f"{rows} rows of {self._count}"

    def rows(self, seed: int, step: int) -> int:
        """Number of rows of the batch of `step`."""
        return self._rows

    def batch(self, store: Rows, seed: int, step: int, rows: slice = slice(None)) -> Batch:
        """Those `rows` of the batch of `step`."""
        start, stop, _ = rows.indices(self._rows)
        indices = shuffled(step * self._rows + start, stop - start, self._count, seed)
        return store.gather(indices)


def every_row(store: Rows, rows: int) -> Iterator[tuple[Batch, int]]:
    """Every example once, in order, in batches of one shape; how many rows of each are real.

    The last batch is filled up by repeating its last example.
    """
    for start in range(0, len(store), rows):
        real = min(rows, len(store) - start)
        yield store.gather(np.minimum(np.arange(start, start + rows), start + real - 1)), real

"""Batched evaluation: runs a compiled function over every row of a data set or of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxformers.data import Batch
from jaxformers.data.pipeline.fixed_length import Rows, every_row
from jaxformers.errors import DataError
from jaxformers.sharding import batch_multiple


def round_up_rows(rows: int) -> int:
    """`rows` rounded up to a multiple of what the mesh in force divides a batch into."""
    return -(-rows // batch_multiple()) * batch_multiple()


def every_output(run: Callable[[Batch], jax.Array], store: Rows, rows: int) -> np.ndarray:
    """The outputs of `run` for each row of `store`, in order.

    Args:
        run: a batch to `[rows, ...]`, replicated, so that all hosts score the same array.
        store: the rows.
        rows: of a batch; the last one is filled up, so that one shape is compiled.
    """
    batches = every_row(store, round_up_rows(rows))
    return np.concatenate([np.asarray(run(batch))[:count] for batch, count in batches])


def apply_batched(
    run: Callable[[Batch], jax.Array], arrays: Mapping[str, np.ndarray], rows: int
) -> np.ndarray:
    """The outputs of `run` for each row of `arrays`, in order.

    Args:
        run: a batch to `[rows, ...]`.
        arrays: at least one row of each.
        rows: of a batch; the last row is repeated until the last batch is full.
    """
    count = len(next(iter(arrays.values())))
    rows = round_up_rows(min(rows, count))
    outputs = []
    for start in range(0, count, rows):
        indices = np.minimum(np.arange(start, start + rows), count - 1)
        batch = {name: array[indices] for name, array in arrays.items()}
        outputs.append(np.asarray(run(batch))[: count - start])
    return np.concatenate(outputs)


def check_outputs(
    outputs: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]], same: str = "data"
) -> None:
    """Checks that outputs have the shapes of the sets that they are scored on.

    Args:
        outputs: an array for each set.
        shapes: the sets' shapes.
        same: what the runs that computed the outputs must have in common, for the message.

    Raises:
        DataError: a shape differs.
    """
    actual: list[Any] = [output.shape for output in outputs]
    if actual != list(shapes):
        raise DataError(
            f"outputs of shapes {actual} for sets of shapes {list(shapes)}: were the runs made for "
            f"the same {same}?"
        )

"""What judging a model on every row of a set has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxformers.data import Batch
from jaxformers.data.pipeline.fixed_length import Rows, every_row
from jaxformers.errors import DataError
from jaxformers.sharding import batch_multiple


def shared_rows(rows: int) -> int:
    """`rows` rounded up to what the mesh in force divides."""
    return -(-rows // batch_multiple()) * batch_multiple()


def every_output(run: Callable[[Batch], jax.Array], store: Rows, rows: int) -> np.ndarray:
    """What `run` gives for each row of `store`, in order.

    Args:
        run: a batch to `[rows, ...]`, whole on every host, which then all judge the same.
        store: what is judged.
        rows: of a batch; the last one is filled up, not dropped.
    """
    batches = every_row(store, shared_rows(rows))
    return np.concatenate([np.asarray(run(batch))[:real] for batch, real in batches])


def check_outputs(
    outputs: Sequence[np.ndarray], wanted: Sequence[tuple[int, ...]], same: str = "data"
) -> None:
    """Raises DataError where outputs have other shapes than the sets that they are said to be of.

    `same` is what the runs that made them have to share.
    """
    found = [each.shape for each in outputs]
    if found != list(wanted):
        raise DataError(
            f"outputs of shapes {found} for sets of shapes {list(wanted)}: were the runs made for "
            f"the same {same}?"
        )

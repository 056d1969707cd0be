"""Some of the rows of a store."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from jaxformers.data.pipeline.fixed_length import Batch, Rows


class RowSubset:
    """The rows of `store` at `indices`, numbered from 0 in this order."""

    def __init__(self, store: Rows, indices: Int[np.ndarray, "N"]):
        self._store, self._indices = store, indices
        self.fingerprint: dict[str, Any] = {**store.fingerprint, "indices": indices.tolist()}

    def __len__(self) -> int:
        return len(self._indices)

    def gather(self, indices: np.ndarray) -> Batch:
        """The rows at `indices` of the subset."""
        return self._store.gather(self._indices[indices])

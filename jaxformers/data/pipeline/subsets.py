"""Subsets of data: evenly spaced, split by a hash, and any rows of a store."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from jaxformers.data.pipeline.fixed_length import Batch, Rows
from jaxformers.errors import ConfigError


def evenly_spaced(size: int, limit: int | None) -> Int[np.ndarray, "N"]:
    """Indices of at most `limit` of `size` items, evenly spaced; all where `limit` is None.

    Raises:
        ConfigError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; it is at least 1")
    if limit is None or limit >= size:
        return np.arange(size)
    return np.arange(limit) * size // limit


def split_by_hash(name: str) -> Literal["train", "dev", "test"]:
    """The set that `name` belongs to, by its MD5 modulo 10: 0 is test, 1 dev, the others train."""
    remainder = int(hashlib.md5(name.encode()).hexdigest(), 16) % 10
    return "test" if remainder == 0 else "dev" if remainder == 1 else "train"


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

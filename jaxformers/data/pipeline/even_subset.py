"""Evenly spaced subsets."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

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

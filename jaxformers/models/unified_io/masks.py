"""Attention masks of text and image tokens.

Axis letters: B batch, T queries, S keys.
"""

from __future__ import annotations

from jaxformers.arrays import Array
from jaxformers.layers import Mask


def pairwise_mask(queries: Array | None, keys: Array | None, *, causal: bool = False) -> Mask:
    """The mask under which valid queries `[B, T]` attend to valid keys `[B, S]`; None: all are.

    A masked query attends to all keys alike, as in the published code; nothing valid reads it.
    """
    if queries is None:
        return Mask(keys=keys, causal=causal)
    dense = queries[:, None, :, None].astype(bool)  # [B, 1, T, 1]
    if keys is not None:
        dense = dense & keys[:, None, None, :].astype(bool)  # [B, 1, T, S]
    return Mask(dense=dense, causal=causal)

"""Attention masks described by structure.

Axis letters: B batch, T queries, S keys, H heads.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Bool

from jaxformers.arrays import Array


@flax.struct.dataclass
class Mask:
    """Which keys a query may attend to, described by structure so that every back-end can use it.

    The fields that are set combine by a logical and.
    """

    # A pytree is rebuilt with whatever its leaves become, so the fields' types are not checked.
    keys: Any = None
    """`[B, S]`, true or 1 for tokens, false or 0 for padding."""
    query_segments: Any = None
    """Integers `[B, T]`: a query attends to keys of its own segment."""
    key_segments: Any = None
    """Integers `[B, S]`."""
    dense: Any = None
    """Booleans `[B, 1 or H, T, S]`."""
    causal: bool = flax.struct.field(pytree_node=False, default=False)

    def array(self, queries: int, keys: int) -> Bool[Array, "#B #H T S"] | None:
        """The dense mask, True where attention is allowed; None if it is allowed everywhere."""
        terms = []
        if self.keys is not None:
            # [B, S] -> [B, 1, 1, S]: the same keys for every head and query.
            terms.append(self.keys[:, None, None, :].astype(bool))
        if self.query_segments is not None:
            # [B, T] against [B, S] -> [B, 1, T, S]: packed examples do not see each other.
            same = self.query_segments[:, None, :, None] == self.key_segments[:, None, None, :]
            terms.append(same)
        if self.dense is not None:
            terms.append(self.dense)
        if self.causal:
            # Aligned at the last key: with a cache of S > T keys, query t sees keys 0 .. S - T + t.
            terms.append(jnp.tril(jnp.ones((1, 1, queries, keys), bool), keys - queries))
        out = None
        for term in terms:
            out = term if out is None else out & term
        return out

"""Which keys a query may attend to, said by structure.

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
    """Which keys a query may attend to, said by structure so that every back-end can use it.

    A key is allowed when it passes every part that is given.
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
        """The mask written out, True where allowed; None when everything is."""
        terms = []
        if self.keys is not None:
            terms.append(self.keys[:, None, None, :].astype(bool))
        if self.query_segments is not None:
            same = self.query_segments[:, None, :, None] == self.key_segments[:, None, None, :]
            terms.append(same)
        if self.dense is not None:
            terms.append(self.dense)
        if self.causal:
            terms.append(jnp.tril(jnp.ones((1, 1, queries, keys), bool), keys - queries))
        out = None
        for term in terms:
            out = term if out is None else out & term
        return out

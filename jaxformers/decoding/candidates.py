"""The best next tokens of all beams, without sorting or normalising the whole vocabulary.

Axis letters: B batch, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxformers.arrays import Array

CHUNK = 256


class Candidates(NamedTuple):
    """Continuations of a sentence's beams, best first."""

    scores: Float[Array, "B N"]
    """Log-probability of the whole hypothesis; -inf where there is no such candidate."""
    parents: Int[Array, "B N"]
    """The beam that is continued."""
    tokens: Int[Array, "B N"]


def best_candidates(
    logits: Float[Array, "B beams V"],
    scores: Float[Array, "B beams"],
    count: int,
    ban: Float[np.ndarray, " V"],
) -> Candidates:
    """The `count` best of all beams x V continuations.

    `ban` is -inf for tokens that may not come, else 0; log-probabilities are of the whole
    vocabulary all the same. Ties go to the lower beam, then to the lower token.
    """
    batch, beams, vocab = logits.shape
    scores = scores - jax.nn.logsumexp(logits, axis=-1)
    # The best chunks by their largest entry hold the best entries.
    chunks = -(-vocab // CHUNK)
    room = ((0, 0), (0, 0), (0, chunks * CHUNK - vocab))
    allowed = jnp.pad(logits + ban[None, None], room, constant_values=-jnp.inf)
    allowed = allowed.reshape(batch, beams, chunks, CHUNK)
    largest = allowed.max(-1) + scores[..., None]
    _, best = jax.lax.top_k(largest.reshape(batch, -1), min(count, beams * chunks))
    best = jnp.sort(best, axis=-1)
    inside = jnp.take_along_axis(
        allowed.reshape(batch, beams * chunks, CHUNK), best[..., None], axis=1
    )
    inside = inside + jnp.take_along_axis(scores, best // chunks, axis=1)[..., None]
    values, places = jax.lax.top_k(inside.reshape(batch, -1), count)
    chunk = jnp.take_along_axis(best, places // CHUNK, axis=1)
    tokens = jnp.minimum(chunk % chunks * CHUNK + places % CHUNK, vocab - 1)
    return Candidates(values, chunk // chunks, tokens)

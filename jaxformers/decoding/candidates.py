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

    The vocabulary is read twice, for the largest logit of each chunk and for the normaliser; the
    best entries lie in the chunks with the largest, so only those are looked into.
    """
    batch, beams, vocab = logits.shape
    ban = np.pad(ban, (0, -vocab % CHUNK), constant_values=-np.inf).reshape(-1, CHUNK)
    largest = chunk_maxima(logits)
    top = largest.max(-1)
    scores = scores - top - jnp.log(jnp.exp(logits - top[..., None]).sum(-1))

    allowed = _allowed_maxima(logits, largest, ban) + scores[..., None]
    chunks = len(ban)
    _, best = jax.lax.top_k(allowed.reshape(batch, -1), min(count, beams * chunks))
    best = jnp.sort(best, axis=-1)
    parents = best // chunks
    inside = _entries(logits, parents, best % chunks) + jnp.take(ban, best % chunks, axis=0)
    inside = inside + jnp.take_along_axis(scores, parents, axis=1)[..., None]
    values, places = jax.lax.top_k(inside.reshape(batch, -1), count)
    chunk = jnp.take_along_axis(best, places // CHUNK, axis=1)
    tokens = jnp.minimum(chunk % chunks * CHUNK + places % CHUNK, vocab - 1)
    return Candidates(values, chunk // chunks, tokens)


def chunk_maxima(logits: Float[Array, "B beams V"]) -> Float[Array, "B beams chunks"]:
    """The largest of each `CHUNK` neighbouring logits."""
    window = (1, 1, CHUNK)
    room = ((0, 0), (0, 0), (0, -logits.shape[-1] % CHUNK))
    return jax.lax.reduce_window(logits, -np.inf, jax.lax.max, window, window, room)


def _allowed_maxima(logits: Array, largest: Array, ban: np.ndarray) -> Array:
    """`largest` with the chunks that banned tokens are in looked at again."""
    touched = np.flatnonzero((ban < 0).any(-1))
    if not len(touched):
        return largest
    batch, beams = logits.shape[:2]
    parents = jnp.broadcast_to(
        jnp.repeat(jnp.arange(beams), len(touched)), (batch, beams * len(touched))
    )
    entries = _entries(logits, parents, jnp.tile(touched, (batch, beams)))
    entries = entries.reshape(batch, beams, len(touched), CHUNK) + ban[touched][None, None]
    return largest.at[:, :, touched].set(entries.max(-1))


def _entries(
    logits: Float[Array, "B beams V"], beam: Int[Array, "B N"], chunk: Int[Array, "B N"]
) -> Float[Array, "B N chunk"]:
    """The logits of chunks of the vocabulary; beyond its end, whatever stands at the end."""
    batch, beams, vocab = logits.shape
    tokens = jnp.minimum(chunk[..., None] * CHUNK + jnp.arange(CHUNK)[None, None], vocab - 1)
    places = (beam[..., None] * vocab + tokens).reshape(batch, -1)
    found = jnp.take_along_axis(logits.reshape(batch, beams * vocab), places, axis=1)
    return found.reshape(tokens.shape)

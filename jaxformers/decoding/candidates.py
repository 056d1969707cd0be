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
    """Continuations of an example's beams, best first."""

    scores: Float[Array, "B N"]
    """Log-probability of the hypothesis that ends in the token; -inf: there is none."""
    parents: Int[Array, "B N"]
    """The beam that is continued."""
    tokens: Int[Array, "B N"]


def best_candidates(
    logits: Float[Array, "B beams V"],
    scores: Float[Array, "B beams"],
    count: int,
    ban: Float[np.ndarray, " V"],
    log_normalizers: Float[Array, "B beams"] | None = None,
) -> Candidates:
    """The `count` best of all beams x V continuations.

    `ban` is -inf for tokens that may not come, else 0. Log-probabilities are logits less
    `log_normalizers`; None: less those of the whole vocabulary, banned tokens included. Ties go to
    the lower beam, then to the lower token.

    The vocabulary is read twice only, for the largest logit of each chunk and for the normaliser:
    the `count` best entries lie in the `count` chunks with the largest maxima.
    """
    batch, beams, vocab = logits.shape
    ban = np.pad(ban, (0, -vocab % CHUNK), constant_values=-np.inf).reshape(-1, CHUNK)
    maxima = chunk_maxima(logits)  # [B, beams, chunks]
    # scores + log_softmax(logits) = logits + (scores - logsumexp(logits)): one number for a beam.
    if log_normalizers is None:
        top = maxima.max(-1)
        log_normalizers = top + jnp.log(jnp.exp(logits - top[..., None]).sum(-1))
    offsets = scores - log_normalizers  # [B, beams]

    allowed = _allowed_maxima(logits, maxima, ban) + offsets[..., None]
    chunks = len(ban)
    _, best = jax.lax.top_k(allowed.reshape(batch, -1), min(count, beams * chunks))
    # In order of beam and chunk, so that the second top_k breaks ties as one over all would.
    best = jnp.sort(best, axis=-1)  # [B, n], n best pairs of beam and chunk
    parents = best // chunks
    entries = _chunk_logits(logits, parents, best % chunks)  # [B, n, CHUNK]
    entries = entries + jnp.take(ban, best % chunks, axis=0)
    entries = entries + jnp.take_along_axis(offsets, parents, axis=1)[..., None]
    values, indices = jax.lax.top_k(entries.reshape(batch, -1), count)
    chosen = jnp.take_along_axis(best, indices // CHUNK, axis=1)
    # Entries beyond V are banned; one is chosen only at -inf, and stays a valid index.
    tokens = jnp.minimum(chosen % chunks * CHUNK + indices % CHUNK, vocab - 1)
    return Candidates(values, chosen // chunks, tokens)


def chunk_maxima(logits: Float[Array, "B beams V"]) -> Float[Array, "B beams chunks"]:
    """The largest of each `CHUNK` neighbouring logits."""
    window = (1, 1, CHUNK)
    padding = ((0, 0), (0, 0), (0, -logits.shape[-1] % CHUNK))
    return jax.lax.reduce_window(logits, -np.inf, jax.lax.max, window, window, padding)


def _allowed_maxima(logits: Array, maxima: Array, ban: np.ndarray) -> Array:
    """`maxima` with those of chunks that hold banned tokens computed again, without these."""
    # Known when compiling: a few chunks, those of the special tokens and of the padding beyond V.
    banned_chunks = np.flatnonzero((ban < 0).any(-1))
    n = len(banned_chunks)
    if not n:
        return maxima
    batch, beams = logits.shape[:2]
    parents = jnp.broadcast_to(jnp.repeat(jnp.arange(beams), n), (batch, beams * n))
    entries = _chunk_logits(logits, parents, jnp.tile(banned_chunks, (batch, beams)))
    entries = entries.reshape(batch, beams, n, CHUNK) + ban[banned_chunks][None, None]
    return maxima.at[:, :, banned_chunks].set(entries.max(-1))


def _chunk_logits(
    logits: Float[Array, "B beams V"], beam: Int[Array, "B N"], chunk: Int[Array, "B N"]
) -> Float[Array, "B N chunk"]:
    """The logits of chunks of the vocabulary; beyond its end, the last logit repeated."""
    batch, beams, vocab = logits.shape
    tokens = jnp.minimum(chunk[..., None] * CHUNK + jnp.arange(CHUNK)[None, None], vocab - 1)
    indices = (beam[..., None] * vocab + tokens).reshape(batch, -1)
    values = jnp.take_along_axis(logits.reshape(batch, beams * vocab), indices, axis=1)
    return values.reshape(tokens.shape)

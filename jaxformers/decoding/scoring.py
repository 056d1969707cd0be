"""How a search ranks its hypotheses, when it ends, and which tokens it may not repeat.

The defaults are those of the translation papers. The other choices are those of Hugging Face's
`generate`, by which published weights state how they are searched.

Axis letters: B batch, L generated length, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from jaxformers.arrays import Array
from jaxformers.fields import CheckedFields, NonNegativeInt

LengthNorm = Literal["gnmt", "power"]


@dataclass(frozen=True)
class Scoring(CheckedFields):
    """Choices of a search that change which hypotheses it returns."""

    length_norm: LengthNorm = "gnmt"
    """Log-probabilities are divided by ((5 + n) / 6)^alpha of n tokens ("gnmt", Wu et al. 2016), or
    by n^alpha ("power", Hugging Face's `length_penalty`)."""
    stopping: Literal["exact", "present_length", "all_complete"] = "exact"
    """A search ends when no running beam can beat the complete hypotheses at any length ("exact",
    Hugging Face's `early_stopping="never"`), or at its present length ("present_length", False
    there), or when as many hypotheses are complete as there are beams ("all_complete", True)."""
    no_repeat_ngram: NonNegativeInt = 0
    """No n-gram of so many tokens comes twice in a hypothesis; 0: any may."""
    renormalize: bool = False
    """Whether log-probabilities are of the tokens that may come, rather than of all."""


def length_penalty(length: Array, alpha: Array, norm: LengthNorm) -> Array:
    """What the log-probability of a hypothesis of `length` tokens is divided by."""
    length = jnp.asarray(length, jnp.float32)
    return length**alpha if norm == "power" else ((5.0 + length) / 6.0) ** alpha


def completes_repeated_ngram(
    ids: Int[Array, "B beams L"], time: Int[Array, ""], start_id: int, n: int, vocab_size: int
) -> Bool[Array, "B beams V"]:
    """Whether each token would complete an n-gram that its beam holds already.

    Args:
        ids: the first `time` tokens of each beam are its own.
        time: number of tokens generated.
        start_id: the first decoder input, which counts as a token before them.
        n: size of the n-grams.
        vocab_size: V, padding included.
    """
    batch, beams, length = ids.shape
    none = jnp.zeros((batch, beams, vocab_size), bool)
    if n > length:
        return none
    history = jnp.pad(ids, ((0, 0), (0, 0), (1, 0)), constant_values=start_id)
    count = time + 1  # tokens of the history
    # Window i is history[i : i + n]; it bans its last token if it begins as the next n-gram does.
    # A negative start is clamped, but then no window is complete either.
    prefix = jax.lax.dynamic_slice_in_dim(history, count - (n - 1), n - 1, axis=2)
    num_windows = length + 2 - n
    matches = jnp.broadcast_to(jnp.arange(num_windows) + n <= count, (batch, beams, num_windows))
    for offset in range(n - 1):
        window_tokens = history[:, :, offset : offset + num_windows]
        matches &= window_tokens == prefix[:, :, offset, None]
    last = history[:, :, n - 1 :][:, :, :num_windows]
    banned = jnp.where(matches, last, vocab_size)  # beyond the vocabulary: dropped below
    row, beam = jnp.arange(batch)[:, None, None], jnp.arange(beams)[None, :, None]
    return none.at[row, beam, banned].set(True, mode="drop")

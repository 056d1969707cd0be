"""Losses over a vocabulary, in forms that never build a target as wide as it."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array


def label_smoothed_loss(
    logits: Float[Array, "*batch V"],
    labels: Int[Array, "*batch"],
    weights: Float[Array, "*batch"],
    smoothing: float = 0.0,
    vocab_size: int | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy against labels smoothed over the other V-1 classes, summed.

    The target holds 1 - smoothing on the label and smoothing / (V-1) on each other class (Szegedy
    et al. 2015 as Tensor2Tensor has it; "Attention Is All You Need", section 5.4). The entropy of
    that target is not subtracted.

    Args:
        logits: float32.
        labels: the right classes.
        weights: 0 where a position does not count.
        smoothing: mass taken from the label.
        vocab_size: V, where `logits` is padded beyond it.

    Returns:
        The weighted sum, and the sum of weights.
    """
    losses = _smoothed(logits, labels, smoothing, vocab_size or logits.shape[-1])
    return (losses * weights).sum(), jnp.sum(weights)


def negative_log_likelihood(
    logits: Float[Array, "*batch V"], labels: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """-log p(label), unsmoothed: what perplexity is made of."""
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _smoothed(logits, labels, smoothing: float, vocab_size: int):
    return _smoothed_forward(logits, labels, smoothing, vocab_size)[0]


def _smoothed_forward(logits, labels, smoothing, vocab_size):
    low = smoothing / (vocab_size - 1)
    lse = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    loss = lse - (1.0 - smoothing - low) * picked
    if smoothing:
        loss = loss - low * _real(logits, vocab_size).sum(-1)
    return loss, (logits, labels, lse)


def _real(x: Array, vocab_size: int) -> Array:
    """`x` with zeros at the padding of the vocabulary."""
    if x.shape[-1] == vocab_size:
        return x
    classes = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    return jnp.where(classes < vocab_size, x, 0.0)


def _smoothed_backward(smoothing, vocab_size, residuals, g):
    logits, labels, lse = residuals
    low = smoothing / (vocab_size - 1)
    classes = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    target = jnp.where(classes == labels[..., None], 1.0 - smoothing, low)
    grad = (jnp.exp(logits - lse[..., None]) - _real(target, vocab_size)) * g[..., None]
    return grad, None


_smoothed.defvjp(_smoothed_forward, _smoothed_backward)

"""Dropout and stochastic depth."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxformers.arrays import Array


def dropout(x: Array, rate: float, key: jax.Array) -> Array:
    """Zeroes entries with probability `rate` (to 1/65536) and scales the rest to keep the mean.

    Two 16-bit draws come from each 32-bit word: half the random bits of a Bernoulli draw.
    """
    # P(keep) in units of 2^-16, the resolution of one 16-bit draw.
    keep = round((1.0 - rate) * 65536)
    if keep <= 0:
        return jnp.zeros_like(x)
    last = x.shape[-1]
    words = jax.random.bits(key, (*x.shape[:-1], -(-last // 2)), jnp.uint32)
    halves = jnp.stack([words & 0xFFFF, words >> 16], axis=-1)
    draws = halves.reshape(*x.shape[:-1], -1)[..., :last]
    # Scaled by the probability that is really drawn, so that the mean stays exact.
    scaled = x * jnp.asarray(65536 / keep, x.dtype)
    return jnp.where(draws < min(keep, 65535), scaled, jnp.zeros((), x.dtype))


class Dropout(nn.Module):
    """`dropout` with the module's own random stream; nothing when not training or at rate 0."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """Same shape and type as x."""
        if not train or self.rate == 0.0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))


def drop_path(x: Array, rate: Array | float, key: jax.Array) -> Array:
    """Stochastic depth (Huang et al. 2016): zeroes whole examples with probability `rate`.

    `rate` may be traced, so that each layer of a scanned stack has its own.
    """
    # One draw per example, [B, 1, ..., 1], broadcast over everything else.
    keep = jax.random.uniform(key, (x.shape[0],) + (1,) * (x.ndim - 1)) >= rate
    scale = jnp.asarray(1.0 / (1.0 - rate), x.dtype)
    return jnp.where(keep, x * scale.reshape((1,) * x.ndim), jnp.zeros((), x.dtype))

"""Layer, RMS, batch and group norm, all computed in float32.

Axis letters: B batch, H height, W width, C channels, D model width.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxformers.arrays import Array


class Norm(nn.Module):
    """Layer norm (Ba et al. 2016) or RMS norm (Zhang and Sennrich 2019) over the last dimension.

    Computed in float32 with the two-pass variance whatever the input's type, and cast back to it.
    """

    kind: Literal["layer", "rms"] = "layer"
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalises each vector, scales it, and for layer norm shifts it."""
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width)
        wide = (1,) * (x.ndim - 1) + width
        y = x.astype(jnp.float32)
        if self.kind == "layer":
            y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        y = y * scale.reshape(wide)
        if self.kind == "layer":
            y = y + self.param("bias", nn.initializers.zeros, width).reshape(wide)
        return y.astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch norm (Ioffe and Szegedy 2015) over all rows and pixels, in float32.

    In training the statistics are the batch's, which is the whole batch whatever the mesh; the
    running ones (collection `batch_stats`) move towards them where that collection is mutable. The
    running variance is the unbiased one, as in PyTorch.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    """Share of the old running statistics that is kept at each step (PyTorch's 1 - momentum)."""
    zero_init: bool = False
    """Whether the scale starts at 0, so that a residual branch starts as nothing."""
    affine: bool = True
    """Whether there are a scale and a bias."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch C"], *, train: bool = False
    ) -> Float[Array, "*batch C"]:
        """Normalises each channel, scales and shifts it; the type stays."""
        width = (x.shape[-1],)
        start = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        scale, bias = jnp.ones(width), jnp.zeros(width)
        if self.affine:
            scale = self.param("scale", start, width)
            bias = self.param("bias", nn.initializers.zeros, width)
        means = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        variances = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        y = jnp.asarray(x, jnp.float32)
        mean, variance = means.value, variances.value
        if train:
            axes = tuple(range(y.ndim - 1))
            mean = y.mean(axes)
            variance = _variance(y, mean)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                # PyTorch stores the unbiased variance, n / (n - 1) times the one it divides by.
                count = x.size // x.shape[-1]
                unbiased = variance * (count / max(count - 1, 1))
                means.value = self.momentum * means.value + (1.0 - self.momentum) * mean
                variances.value = self.momentum * variances.value + (1.0 - self.momentum) * unbiased
        # (y - mean) rsqrt(var + eps) scale + bias, folded into one product and one sum per element.
        factor = scale * lax.rsqrt(variance + self.epsilon)
        shift = _wide(bias - mean * factor, y.ndim)
        return (y * _wide(factor, y.ndim) + shift).astype(x.dtype)


@jax.custom_jvp
def _variance(
    y: Float[jax.Array, "*batch C"], mean: Float[jax.Array, "C"]
) -> Float[jax.Array, "C"]:
    """Each channel's mean squared deviation from `mean`, which must be y's own."""
    return jnp.square(y - _wide(mean, y.ndim)).mean(tuple(range(y.ndim - 1)))


def _variance_rate(rate: jax.Array, _, y: jax.Array, mean: jax.Array) -> jax.Array:
    return (2 * (y - _wide(mean, y.ndim)) * rate).mean(tuple(range(y.ndim - 1)))


# A variance has its least value about the mean, so the mean's own rate does not enter: one pass
# over y less in the backward pass.
_variance.defjvps(_variance_rate, None)


class GroupNorm(nn.Module):
    """Group norm (Wu and He 2018): each image's channels in groups, in float32, variance in two
    passes."""

    groups: int = 32
    epsilon: float = 1e-5
    zero_init: bool = False
    """Whether the scale starts at 0."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Normalises each group over its pixels and channels, scales and shifts each channel."""
        width = (x.shape[-1],)
        start = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        scale = self.param("scale", start, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        # [B, H, W, C] -> [B, H, W, groups, C / groups]; statistics over H, W and the last axis.
        y = x.astype(jnp.float32).reshape(*x.shape[:3], self.groups, -1)
        y = y - y.mean((1, 2, 4), keepdims=True)
        y = y * lax.rsqrt(jnp.square(y).mean((1, 2, 4), keepdims=True) + self.epsilon)
        return (y.reshape(x.shape) * _wide(scale) + _wide(bias)).astype(x.dtype)


def _wide(vector: Array, rank: int = 4) -> Array:
    """`[C]` as `[1, 1, 1, C]`, or of another rank."""
    return vector.reshape(*(1,) * (rank - 1), -1)

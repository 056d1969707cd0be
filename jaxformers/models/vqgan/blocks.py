"""Blocks of VQGAN's encoder and decoder: residual, attention, and the changes of resolution.

Axis letters: B batch, H and W height and width, C channels in, D channels out, L = H W pixels.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers import Execution
from jaxformers.layers.convolution import Conv
from jaxformers.layers.dropout import Dropout
from jaxformers.layers.execution import remat_policy
from jaxformers.layers.norm import GroupNorm
from jaxformers.models.vqgan.config import NORM_EPSILON, VQGANConfig
from jaxformers.sharding import constrain


def conv(
    inputs: int, outputs: int, size: int, execution: Execution, name: str, stride: int = 1
) -> Conv:
    """A convolution with PyTorch's initial values.

    Padding "SAME" is the published one: with stride 2, on even sizes, a pixel below and to the
    right only.
    """
    return Conv(
        inputs,
        outputs,
        size,
        stride,
        "SAME",
        use_bias=True,
        kernel_init="fan_in_uniform",
        bias_init="fan_in_uniform",
        execution=execution,
        name=name,
    )


def norm(config: VQGANConfig, name: str) -> GroupNorm:
    """Group norm over the configured number of groups."""
    return GroupNorm(config.norm_groups, NORM_EPSILON, name=name)


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))); a 1x1 convolution where the width changes."""

    config: VQGANConfig
    inputs: int
    outputs: int
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W D"]:
        """Same height and width."""
        convolution = partial(conv, execution=self.execution)
        y: Array = jax.nn.silu(norm(self.config, "norm1")(x))
        y = convolution(self.inputs, self.outputs, 3, name="conv1")(y)
        y = jax.nn.silu(norm(self.config, "norm2")(y))
        y = Dropout(self.config.dropout, name="dropout")(y, train=train)
        y = convolution(self.outputs, self.outputs, 3, name="conv2")(y)
        # The shortcut is taken before the norm: a linear map of x itself where the width changes.
        if self.inputs != self.outputs:
            x = convolution(self.inputs, self.outputs, 1, name="shortcut_conv")(x)
        return constrain(x + y, "batch", None, None, None)


class AttentionBlock(nn.Module):
    """x + out(attention(norm(x))): one head over all pixels, as wide as the features."""

    config: VQGANConfig
    width: int
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Softmax in float32."""
        convolution = partial(conv, self.width, self.width, 1, self.execution)
        # 1x1 convolutions are linear maps of each pixel's channels.
        y = norm(self.config, "norm")(x)
        q, k, v = (
            convolution(name=name)(y).reshape(x.shape[0], -1, self.width)
            for name in ("query_conv", "key_conv", "value_conv")
        )  # [B, L, C]
        scores = jnp.einsum("BLC,BMC->BLM", q, k).astype(jnp.float32) * self.width**-0.5
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)  # [B, L, L]
        y = jnp.einsum("BLM,BMC->BLC", weights, v).reshape(x.shape)
        return constrain(x + convolution(name="out_conv")(y), "batch", None, None, None)


class Downsample(nn.Module):
    """Half the height and width, by a convolution of stride 2."""

    width: int
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        """Height and width must be even."""
        return conv(self.width, self.width, 3, self.execution, "conv", stride=2)(x)


class Upsample(nn.Module):
    """Twice the height and width: each pixel four times, then a convolution."""

    width: int
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        """`[B, 2 H, 2 W, C]`."""
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)  # [B, 2 H, 2 W, C]
        return conv(self.width, self.width, 3, self.execution, "conv")(x)


class Level(nn.Module):
    """Residual blocks of one width, each followed by attention where the level has it."""

    config: VQGANConfig
    inputs: int
    outputs: int
    depth: int
    attention: bool
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W D"]:
        """Same height and width."""
        residual, attention = ResidualBlock, AttentionBlock
        if self.execution.remat != "none":
            policy = remat_policy(self.execution.remat)
            # Argument 2 of `__call__(self, x, train)` is a Python bool, which remat must not trace.
            residual = nn.remat(residual, policy=policy, static_argnums=(2,))
            attention = nn.remat(attention, policy=policy)
        # Only the first block changes the width.
        widths = (self.inputs, *(self.outputs,) * self.depth)
        for i in range(self.depth):
            shape = (widths[i], widths[i + 1])
            x = residual(self.config, *shape, self.execution, name=f"block_{i}")(x, train)
            if self.attention:
                x = attention(self.config, self.outputs, self.execution, name=f"attention_{i}")(x)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block, at the lowest resolution."""

    config: VQGANConfig
    width: int
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        """Same shape."""
        c, width, execution = self.config, self.width, self.execution
        x = ResidualBlock(c, width, width, execution, name="block_1")(x, train)
        x = AttentionBlock(c, width, execution, name="attention_1")(x)
        return ResidualBlock(c, width, width, execution, name="block_2")(x, train)

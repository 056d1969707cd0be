"""CLIP's ResNet (section 2.4): three convolutions as stem, anti-aliased strides, attention pooling.

Every stride is an average pooling: after the stem, before the last convolution of a block, and
before the shortcut's convolution (He et al. 2019's ResNet-D, with Zhang 2019's anti-aliasing).

Axis letters: B batch, H and W height and width, h and w the same after strides, C channels,
D features, L tokens (1 + h w), E embedding.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers import Execution, MultiHeadAttention, PositionEmbedding
from jaxformers.layers.convolution import Conv, sown
from jaxformers.layers.execution import remat_policy
from jaxformers.layers.norm import BatchNorm
from jaxformers.models.clip.config import ModifiedResNetConfig
from jaxformers.models.clip.outputs import CLIPImageOutput, check_images
from jaxformers.sharding import constrain


class Unit(nn.Module):
    """A convolution, batch norm and optional ReLU."""

    config: ModifiedResNetConfig
    inputs: int
    outputs: int
    size: int
    stride: int = 1
    relu: bool = True
    zero_init: bool = False
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        self.conv = Conv(
            self.inputs,
            self.outputs,
            self.size,
            self.stride,
            self.size // 2,
            kernel_init="fan_in_uniform",
            execution=self.execution,
        )
        self.norm = BatchNorm(c.norm_epsilon, c.norm_momentum, self.zero_init)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """Returns ReLU(norm(conv(x))), or norm(conv(x))."""
        x = self.norm(self.conv(x), train=train)
        return jax.nn.relu(x) if self.relu else x


class Bottleneck(nn.Module):
    """A bottleneck whose stride is an average pooling before its last convolution."""

    config: ModifiedResNetConfig
    inputs: int
    outputs: int
    stride: int
    execution: Execution = Execution()

    def setup(self):
        c, inner, execution = self.config, self.outputs // 4, self.execution
        self.units = [
            Unit(c, self.inputs, inner, 1, execution=execution),
            Unit(c, inner, inner, 3, execution=execution),
            # OpenAI starts the last norm's scale at 0: the block starts as its shortcut.
            Unit(c, inner, self.outputs, 1, relu=False, zero_init=True, execution=execution),
        ]
        self.projects = self.stride > 1 or self.inputs != self.outputs
        if self.projects:
            self.shortcut = Unit(c, self.inputs, self.outputs, 1, relu=False, execution=execution)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """ReLU(F(x) + shortcut(x)); sown as `blocks` if that is mutable."""
        y = self.units[1](self.units[0](x, train), train)  # [B, H, W, D / 4]
        y = self.units[2](average_pool(y, self.stride), train)  # [B, h, w, D]
        if self.projects:
            x = self.shortcut(average_pool(x, self.stride), train)
        return sown(self, constrain(jax.nn.relu(x + y), "batch", None, None, None))


class AttentionPool2d(nn.Module):
    """Attention of the feature map's mean to the map and itself (QKV pooling)."""

    config: ModifiedResNetConfig
    execution: Execution = Execution()

    def setup(self):
        c, width = self.config, self.config.features
        self.position_embedding = PositionEmbedding(c.grid**2 + 1, width, width**-0.5)
        self.attention = MultiHeadAttention(
            width,
            c.heads,
            width // c.heads,
            kernel_init=width**-0.5,
            execution=self.execution,
            out_width=c.projection,
        )

    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B E"]:
        """The attention's output for the mean token."""
        x = x.reshape(x.shape[0], -1, x.shape[-1])  # [B, h w, D], row by row
        # Constrained before and after: XLA would cut D over idle mesh axes and move it back.
        x = constrain(x, "batch", "length", "embed")
        x = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1)  # [B, L, D]
        # The mean is taken before positions are added: it has a position of its own, the first.
        x = x + self.position_embedding.rows(x.shape[1]).astype(x.dtype)
        x = constrain(x, "batch", "length", "embed")
        # One query, the mean's: [B, 1, D] to [B, 1, E].
        mean = constrain(x[:, :1], "batch", "length", "embed")
        return self.attention(mean, x)[:, 0]


class ModifiedResNet(nn.Module):
    """CLIP's ResNet: `model.apply(variables, images).image_embeds`.

    Its attention pooling projects, so there is no other projection.
    """

    config: ModifiedResNetConfig
    execution: Execution = Execution()

    def setup(self):
        c, execution = self.config, self.execution
        # Three 3x3 convolutions in place of a 7x7: the first halves the image, the last widens.
        half = c.width // 2
        self.stem = [
            Unit(c, c.channels, half, 3, 2, execution=execution),
            Unit(c, half, half, 3, execution=execution),
            Unit(c, half, c.width, 3, execution=execution),
        ]
        block = Bottleneck
        if execution.remat != "none":
            # Argument 2 of `__call__(self, x, train)` is a Python bool, which remat must not trace.
            block = nn.remat(block, policy=remat_policy(execution.remat), static_argnums=(2,))
        blocks, inputs = [], c.width
        for number, (depth, outputs) in enumerate(zip(c.depths, c.stage_widths, strict=True)):
            for index in range(depth):
                stride = 2 if number and index == 0 else 1
                blocks.append(block(c, inputs, outputs, stride, execution))
                inputs = outputs
        self.residual_blocks = blocks
        self.attention_pool = AttentionPool2d(c, execution)

    def __call__(self, images: Float[Array, "B H W C"], *, train: bool = False) -> CLIPImageOutput:
        """Embeds images.

        Args:
            images: normalised pixels, `image_size` square.
            train: normalises by the batch's statistics, and updates the running ones where
                `mutable=["batch_stats"]`.

        Raises:
            DataError: images of another size or number of channels.
        """
        return CLIPImageOutput(self.encode(images, train=train))

    def encode(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B E"]:
        """Embeddings of the images, not normalised, in float32."""
        pooled = self.attention_pool(self.features(images, train=train))
        return constrain(pooled.astype(jnp.float32), "batch", "embed")

    def pooled(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B E"]:
        """The same as `encode`: the features of the paper's linear probe."""
        return self.encode(images, train=train)

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B h w D"]:
        """Last feature map, 1/32 of the images' height and width."""
        check_images(images, self.config)
        x = images
        for unit in self.stem:
            x = unit(x, train)
        x = average_pool(x, 2)  # [B, H/4, W/4, width]
        for block in self.residual_blocks:
            x = block(x, train)
        return x


def average_pool(x: Float[Array, "B H W C"], size: int) -> Float[Array, "B h w C"]:
    """Means of windows of `size` x `size` pixels; what is left over at the edges is dropped."""
    if size == 1:
        return x
    batch, height, width, channels = x.shape
    # PyTorch's AvgPool2d floors too: an odd last row or column is left out.
    h, w = height // size, width // size
    windows = x[:, : h * size, : w * size].reshape(batch, h, size, w, size, channels)
    return windows.mean((2, 4))

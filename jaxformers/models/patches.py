"""Patches of images: projection, fixed positions, tokens before them, pooling.

Axis letters: B batch, P patches, T prefix tokens, L tokens (T + P), D model width, C channels,
E numbers of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import DataError
from jaxformers.layers import Execution, grid_sinusoids
from jaxformers.layers.linear import Init, initializer, multiply
from jaxformers.layers.position_resize import Grid, PositionResize, resize_matrices
from jaxformers.sharding import constrain

Positions = Literal["learned", "sincos2d", "sincos2d_mae", "none"]
Pooling = Literal["class", "average", "max", "average_max", "class_average", "attention"]


def patchify(images: Float[Array, "B H W C"], size: int) -> Float[Array, "B P E"]:
    """Splits images into flattened patches of `size` x `size` pixels, in row-major order.

    The E = size * size * C numbers of a patch are in the order row, column, channel.

    Raises:
        DataError: images that do not divide into such patches.
    """
    batch, height, width, channels = images.shape
    if height % size or width % size:
        raise DataError(f"images of {height} x {width} pixels do not divide into patches of {size}")
    rows, columns = height // size, width // size
    x = images.reshape(batch, rows, size, columns, size, channels)
    x = x.swapaxes(2, 3)  # [B, rows, columns, size, size, C]
    return x.reshape(batch, rows * columns, size * size * channels)


class PatchEmbedding(nn.Module):
    """Linear projection of flattened patches (equation 1).

    It is a convolution with kernel `[size, size, C, D]` and stride `size`, computed as one matrix
    product.
    """

    size: int
    channels: int
    width: int
    kernel_init: Init = "lecun"
    execution: Execution = Execution()
    use_bias: bool = True

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B P D"]:
        """Projects each patch, in row-major order."""
        dtype = self.execution.compute_dtype
        shape = (self.size, self.size, self.channels, self.width)
        kernel = self.param("kernel", initializer(self.kernel_init, 3), shape)
        # Gathered over fsdp before the product: a kernel of 768 rows (16 x 16 x 3) is small.
        kernel = constrain(kernel, None, None, None, None).reshape(-1, self.width)  # [E, D]
        patches = patchify(images, self.size).astype(dtype)  # [B, P, E]
        x = multiply(patches, kernel.astype(dtype), 1, self.execution.platform)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,))
            x = x + bias.astype(dtype)[None, None]
        return constrain(x, "batch", "length", "embed")


def fixed_positions(
    grid: tuple[int, int], width: int, kind: Positions, prefix_tokens: int
) -> Float[Array, "L D"]:
    """Fixed 2D sinusoid table of a grid (rows, columns) of patches; prefix tokens' rows, first, are
    zero."""
    table = grid_sinusoids(*grid, width, "mae" if kind == "sincos2d_mae" else "big_vision")
    return jnp.pad(jnp.asarray(table), ((prefix_tokens, 0), (0, 0)))


def resized_table(
    table: Float[Array, "rows D"], old: Grid, new: Grid, method: PositionResize
) -> Float[Array, "new_rows D"]:
    """The table for another grid of patches; rows before the grid's stay as they are."""
    if old == new:
        return table
    # Constants of the program: a size compiles its own.
    rows, columns = (jnp.asarray(m, jnp.float32) for m in resize_matrices(old, new, method))
    first = table.shape[0] - old[0] * old[1]  # rows of prefix tokens
    grid = table[first:].reshape(*old, -1)  # [y, x, D]
    grid = jnp.einsum("ay,bx,yxD->abD", rows, columns, grid, precision="highest")
    return jnp.concatenate([table[:first], grid.reshape(new[0] * new[1], -1)])


def with_zero_rows(
    table: Float[Array, "rows D"], first: int, count: int
) -> Float[Array, "more_rows D"]:
    """The table with `count` rows of zeros after the `first` ones: tokens without positions."""
    if not count:
        return table
    # The order of the table: prefix tokens with a position, those without, the grid's patches.
    zeros = jnp.zeros((count, table.shape[1]), table.dtype)
    return jnp.concatenate([table[:first], zeros, table[first:]])


def prepend_tokens(
    tokens: Sequence[Float[Array, "_ D"]], x: Float[Array, "B P D"]
) -> Float[Array, "B L D"]:
    """Prepends the same tokens to each image's patches."""
    if not tokens:
        return x
    rows = jnp.concatenate([token.astype(x.dtype) for token in tokens])  # [T, D]
    # Every image has the same prefix: [B, T, D].
    rows = jnp.broadcast_to(rows[None], (x.shape[0], *rows.shape))
    return jnp.concatenate([rows, x], axis=1)


def pool(x: Float[Array, "B L D"], pooling: Pooling, prefix_tokens: int) -> Float[Array, "B _"]:
    """What a head reads of an encoder's output: the class token, or the patches pooled, or both.

    Pooling by attention, which has parameters, is `layers.pooling.AttentionPooling`.
    """
    patches = x[:, prefix_tokens:]
    match pooling:
        case "average":
            return patches.mean(1)
        case "max":
            return patches.max(1)
        case "average_max":
            return (patches.mean(1) + patches.max(1)) / 2
        case "class_average":
            return jnp.concatenate([x[:, 0], patches.mean(1)], axis=-1)  # [B, 2 D]
    return x[:, 0]


def pixels_text(shape: tuple[int, int]) -> str:
    """Height and width for messages: "224", or "384 x 128"."""
    height, width = shape
    return str(height) if height == width else f"{height} x {width}"


def check_images(shape: tuple[int, ...], config: Any) -> None:
    """Raises DataError for images whose shape does not suit a `ViTConfig`."""
    if len(shape) != 4:
        raise DataError(
            f"images of shape {shape}: the model takes [batch, height, width, channels]"
        )
    _, height, width, channels = shape
    if channels != config.channels:
        raise DataError(f"images of {channels} channels for a model of {config.channels}")
    patch = config.patch_pixels
    if height % patch or width % patch:
        raise DataError(
            f"images of {height} x {width} pixels do not divide into patches of {patch}"
        )
    fixed_size = config.positions in ("learned", "sincos2d_mae") and not config.dynamic_size
    if fixed_size and (height, width) != config.image_shape:
        rows, columns = config.image_shape
        raise DataError(
            f"images of {height} x {width} pixels for a model of {rows} x {columns}: resize them, "
            "or load the model with its positions resized"
        )

"""Unified-IO's encoder over [text ; image] (section 3.2).

Axis letters: B batch, T text tokens, P patches, L tokens (T + P), E numbers of a patch, D model
width.
"""

from __future__ import annotations

import math

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxformers.arrays import Array
from jaxformers.errors import DataError
from jaxformers.layers import Dropout, EncoderStack, Execution, Linear, Norm, PositionEmbedding
from jaxformers.models.patches import patchify, resized_table
from jaxformers.models.unified_io.config import UnifiedIOConfig
from jaxformers.models.unified_io.masks import pairwise_mask
from jaxformers.models.unified_io.position_bias import AbsoluteBias, RelativeBias
from jaxformers.sharding import constrain

TEXT, IMAGE = 0, 1  # rows of a segment table


@flax.struct.dataclass
class Patches:
    """Patches of images and where they lie.

    Attributes:
        values: `[B, P, E]`.
        positions: `[1, P]` or `[B, P]`, running numbers in the grid, row by row.
        columns: the grid's number of columns.
        resize_to: the grid (rows, columns) to which the position table is resized; None: it fits.
    """

    values: Array
    positions: Array
    columns: int = flax.struct.field(pytree_node=False)
    resize_to: tuple[int, int] | None = flax.struct.field(pytree_node=False, default=None)


class UnifiedIOEncoder(nn.Module):
    """Bidirectional blocks over text tokens and patches."""

    config: UnifiedIOConfig
    execution: Execution = Execution()

    def setup(self):
        c, execution = self.config, self.execution
        dtype, platform = execution.compute_dtype, execution.platform
        rows = c.encoder_text_length + c.encoder_image_length
        self.position_embedding = PositionEmbedding(rows, c.width, 1.0)
        self.type_embedding = PositionEmbedding(c.segments, c.width, 1.0)
        self.patch_projection = Linear(
            (c.numbers_per_patch,), (c.width,), False, "lecun", dtype, platform=platform
        )
        self.text_norm, self.image_norm, self.position_norm = (
            Norm("rms", c.norm_epsilon) for _ in range(3)
        )
        self.position_bias = AbsoluteBias(c, execution)
        self.relative_bias = RelativeBias(c.heads, True)
        self.stack = EncoderStack(c.block, c.encoder_layers, True, execution)
        self.drop = Dropout(c.dropout)

    def __call__(
        self,
        text: Float[Array, "B T D"],
        patches: Patches,
        mask: Bool[Array, "B L"] | None,
        *,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        """States of all tokens, text first.

        Args:
            text: embedded tokens; T may be 0.
            patches: P may be 0.
            mask: 1 for tokens and patches to attend to; None: all.
            train: dropout on.
        """
        dtype = self.execution.compute_dtype
        text_positions = np.arange(text.shape[1])[None]
        text_rows = self.position_embedding.rows(text.shape[1]).astype(dtype)  # [1, T, D]
        image_rows = self._image_rows(patches).astype(dtype)  # [1 or B, P, D]
        segments = self.type_embedding.rows(2).astype(dtype)  # [1, 2, D]

        image = self.patch_projection(patches.values)  # [B, P, D]
        image = constrain(image, "batch", "length", "embed")
        text = self.text_norm(text + segments[:, TEXT, None] + text_rows)
        image = self.image_norm(image + segments[:, IMAGE, None] + image_rows)
        x = self.drop(jnp.concatenate([text, image], axis=1), train=train)

        batch = image_rows.shape[0]
        text_rows = jnp.broadcast_to(text_rows, (batch, *text_rows.shape[1:]))
        rows = self.position_norm(jnp.concatenate([text_rows, image_rows], axis=1))
        bias = self.position_bias(rows, rows)
        bias = bias + self.relative_bias(
            text_positions, patches.positions, patches.columns, bias.dtype
        )
        bias = constrain(bias, None if batch == 1 else "batch", "heads", "length", "length")
        return self.stack(x, pairwise_mask(mask, mask), bias, train=train)

    def _image_rows(self, patches: Patches) -> Float[Array, "#B P D"]:
        """Position embeddings of the patches."""
        c = self.config
        if patches.resize_to is None:
            return self.position_embedding(patches.positions + c.encoder_text_length)
        side = math.isqrt(c.encoder_image_length)
        table = self.position_embedding.rows(c.encoder_text_length + c.encoder_image_length)
        # Bicubic as `jax.image.resize`: Keys' filter with a = -0.5, stretched where it shrinks.
        return resized_table(
            table[0, c.encoder_text_length :],
            (side, side),
            patches.resize_to,
            "bicubic_antialiased",
        )[None]


def cut_patches(
    images: Float[Array, "B H W channels"] | Float[Array, "B P E"],
    positions: Int[Array, "B P"] | None,
    config: UnifiedIOConfig,
) -> Patches:
    """Patches of whole images, or flat ones with their positions.

    Raises:
        DataError: images that do not divide into patches, or patches without a position.
    """
    if images.ndim == 3:
        if images.shape[-1] != config.numbers_per_patch:
            raise DataError(
                f"patches of {images.shape[-1]} numbers for a model of {config.numbers_per_patch} "
                f"({config.patch_size} x {config.patch_size} pixels of {config.channels} channels)"
            )
        values, columns = images, config.image_columns // config.patch_size
    else:
        if images.ndim != 4 or images.shape[-1] != config.channels:
            raise DataError(
                f"images of shape {tuple(images.shape)}: the model takes [batch, height, width, "
                f"{config.channels}], or patches [batch, patches, {config.numbers_per_patch}]"
            )
        values = patchify(images, config.patch_size)
        columns = images.shape[2] // config.patch_size
    count, length = values.shape[1], config.encoder_image_length
    if images.ndim == 4 and count not in (1, length):
        return Patches(values, np.arange(count)[None], columns, _resized_grid(count, length))
    if positions is None:
        if count > length:
            raise DataError(f"{count} patches are more than the model's {length} positions")
        positions = np.arange(count)[None]
    elif positions.shape != values.shape[:2]:
        raise DataError(
            f"image_positions of shape {tuple(positions.shape)} for patches of shape "
            f"{tuple(values.shape)}: give one position a patch"
        )
    return Patches(values, positions, columns)


def _resized_grid(count: int, length: int) -> tuple[int, int]:
    """The grid of `count` patches to which the table of `length` positions is resized."""
    side = math.isqrt(count)
    if side**2 != count or math.isqrt(length) ** 2 != length:
        raise DataError(
            f"images of {count} patches for a model of {length} positions: only square images "
            "take resized positions; resize or pad the images"
        )
    return side, side

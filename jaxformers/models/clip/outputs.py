"""Outputs of CLIP's towers and of the model, and the check of images that all towers share.

Axis letters: B batch, I images, T texts, E embedding.
"""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import DataError
from jaxformers.models.clip.config import ImageTowerConfig


@flax.struct.dataclass
class CLIPImageOutput:
    """Output of an image tower alone: `image_embeds [B, E]`, projected and not normalised."""

    image_embeds: Array


@flax.struct.dataclass
class CLIPTextOutput:
    """Output of a text tower alone: `text_embeds [B, E]`, projected and not normalised."""

    text_embeds: Array


@flax.struct.dataclass
class CLIPOutput:
    """Similarities and embeddings of images and texts.

    Attributes:
        logits_per_image: scaled cosines `[I, T]`, float32.
        image_embeds: `[I, E]`, of unit length.
        text_embeds: `[T, E]`, of unit length.
    """

    logits_per_image: Array
    image_embeds: Array
    text_embeds: Array

    @property
    def logits_per_text(self) -> Array:
        """The transpose of `logits_per_image`, `[T, I]`."""
        return self.logits_per_image.T


def normalise(x: Float[Array, "*batch E"]) -> Float[Array, "*batch E"]:
    """x divided by its length along the last axis."""
    # No epsilon, as in the published code: an encoding is never zero.
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def check_images(images: Array, config: ImageTowerConfig) -> None:
    """Raises DataError unless the images are `[B, image_size, image_size, channels]`."""
    side = config.image_size
    if images.ndim != 4 or images.shape[1:] != (side, side, config.channels):
        raise DataError(
            f"images of shape {tuple(images.shape)}: the model takes [batch, {side}, {side}, "
            f"{config.channels}]"
        )

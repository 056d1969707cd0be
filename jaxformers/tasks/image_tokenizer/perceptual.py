"""Perceptual distances of images, as configuration: of their gradients, or LPIPS.

Axis letters: B batch, H and W height and width, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.fields import CheckedFields, PositiveInt
from jaxformers.layers import Execution
from jaxformers.models.vqgan.lpips import LPIPS
from jaxformers.pretrained.vqgan.lpips import lpips_parameters, read_lpips

Variables = dict[str, Any]
COLLECTION = "perceptual"
"""Of the variables that a distance needs and training does not change."""


@dataclass(frozen=True)
class ImageGradients(CheckedFields):
    """Mean absolute difference of the images' gradients at several scales; needs no weights.

    Differences of neighbouring pixels, down and to the right, of the images and of their means over
    windows of 2, 4, ... pixels: blurred edges cost, whatever their place in the range of colours.
    """

    scales: PositiveInt = 3
    """The full resolution, half of it, a quarter, ...; fewer where a side is odd or below 4."""

    def init(self) -> Variables:
        """None."""
        return {}

    def load(self) -> Variables:
        """None."""
        return {}

    def distance(
        self, variables: Variables, x: Float[Array, "B H W C"], y: Float[Array, "B H W C"]
    ) -> Float[Array, "B"]:
        """The distance of each pair of images, float32."""
        difference, total = x - y, jnp.zeros(x.shape[0])
        for scale in range(self.scales):
            if scale:
                height, width = difference.shape[1:3]
                if height % 2 or width % 2 or min(height, width) < 4:
                    break
                difference = _halved(difference)
            down, right = difference[:, 1:] - difference[:, :-1], difference[:, :, 1:]
            right = right - difference[:, :, :-1]
            total = total + jnp.abs(down).mean((1, 2, 3)) + jnp.abs(right).mean((1, 2, 3))
        return total


@dataclass(frozen=True)
class Lpips(CheckedFields):
    """LPIPS with VGG-16 (Zhang et al. 2018), the perceptual loss of the published VQGAN."""

    files: tuple[str, ...]
    """Files of PyTorch tensors (`.safetensors`, `.pth`, `.ckpt`) that together hold VGG-16's
    features and the linear layers: torchvision's `vgg16` and LPIPS' `vgg.pth`, or one of taming's
    training checkpoints."""

    def init(self) -> Variables:
        """Zeros of the weights' shapes."""
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), lpips_parameters())
        return {COLLECTION: zeros}

    def load(self) -> Variables:
        """The files' weights.

        Raises:
            WeightsError: a missing or damaged file, or tensors that do not fit; one line.
        """
        return {COLLECTION: read_lpips(self.files)}

    def distance(
        self, variables: Variables, x: Float[Array, "B H W C"], y: Float[Array, "B H W C"]
    ) -> Float[Array, "B"]:
        """The distance of each pair of images in -1..1, float32."""
        return LPIPS(Execution()).apply({"params": variables[COLLECTION]}, x, y)


Perceptual = ImageGradients | Lpips


def _halved(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))

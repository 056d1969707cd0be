"""LPIPS: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", version 0.1 with VGG-16 (Simonyan and Zisserman 2014).

Axis letters: B batch, H and W height and width, h and w the same after pooling, C channels.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers import Execution
from jaxformers.layers.convolution import Conv, max_pool

# Widths of VGG-16's convolutions, by stages between which it pools.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# ImageNet's mean and deviation for images in -1..1, as the published code rounds them.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Perceptual distance `[B]` of pairs of RGB images in -1..1."""

    execution: Execution = Execution()

    def setup(self):
        inputs, stages = 3, []
        for widths in STAGES:
            stage = []
            for width in widths:
                stage.append(Conv(inputs, width, 3, 1, 1, use_bias=True, execution=self.execution))
                inputs = width
            stages.append(stage)
        self.stages = stages
        self.linear = [
            self.param(f"linear_{i}", nn.initializers.ones, (widths[-1],))
            for i, widths in enumerate(STAGES)
        ]

    def __call__(
        self, images: Float[Array, "B H W 3"], references: Float[Array, "B H W 3"]
    ) -> Float[Array, "B"]:
        """Weighted squared differences of normalised features, averaged over pixels, summed."""
        features, reference_features = self.features(images), self.features(references)
        distance = jnp.zeros(images.shape[0])
        for x, y, weights in zip(features, reference_features, self.linear, strict=True):
            squares = jnp.square(_normalised(x) - _normalised(y))  # [B, h, w, C]
            weighted = (squares * weights.reshape(1, 1, 1, -1)).sum(-1)
            distance = distance + weighted.mean((1, 2))
        return distance

    def features(self, images: Float[Array, "B H W 3"]) -> list[Float[Array, "B h w C"]]:
        """The last feature map of each stage, float32."""
        shift, scale = (jnp.asarray(v).reshape(1, 1, 1, 3) for v in (SHIFT, SCALE))
        x, maps = (images - shift) / scale, []
        for i, stage in enumerate(self.stages):
            x = max_pool(x, 2, 2) if i else x
            for convolution in stage:
                x = jax.nn.relu(convolution(x))
            maps.append(x.astype(jnp.float32))
        return maps


def _normalised(x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    # The square root of a sum that is 0 has no gradient: those pixels are divided by 1e-10 alone.
    squares = jnp.square(x).sum(-1, keepdims=True)
    length = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    return x / (length + 1e-10)

"""Patch discriminator (Isola et al. 2017, "pix2pix"), which VQGAN is trained against.

Axis letters: B batch, H and W pixels, h and w patches along height and width, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.fields import CheckedFields, PositiveInt
from jaxformers.layers import Execution
from jaxformers.layers.convolution import Conv
from jaxformers.layers.norm import BatchNorm


@dataclass(frozen=True)
class PatchDiscriminatorConfig(CheckedFields):
    """Shape of a patch discriminator; the defaults see 70 x 70 pixels: 2,765,633 parameters."""

    channels: PositiveInt = 3
    """Of the images."""
    width: PositiveInt = 64
    """Channels of the first convolution, doubled by each layer up to 8 times."""
    layers: PositiveInt = 3
    """Convolutions of stride 2."""


class PatchDiscriminator(nn.Module):
    """Whether each patch is real: logits, by convolutions, batch norm and leaky ReLU.

    With `train=True`, `mutable=["batch_stats"]` returns the updated running statistics.
    """

    config: PatchDiscriminatorConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B h w 1"]:
        """Float32 logits, high for real patches."""
        c = self.config
        widths = [c.width * min(2**i, 8) for i in range(c.layers + 1)]
        x, inputs = images, c.channels
        for i, width in enumerate(widths):
            stride = 1 if i == c.layers else 2
            # The first convolution alone has a bias: the norms after the others have one.
            x = self._conv(inputs, width, stride, i == 0, f"conv_{i}")(x)
            x = BatchNorm(name=f"norm_{i}")(x, train=train) if i else x
            x = jax.nn.leaky_relu(x, 0.2)
            inputs = width
        # A logit for each patch, [B, h, w, 1]; PyTorch's padding of 1 takes a pixel off twice.
        return self._conv(inputs, 1, 1, True, "conv_out")(x).astype(jnp.float32)

    def _conv(self, inputs: int, outputs: int, stride: int, use_bias: bool, name: str) -> Conv:
        return Conv(
            inputs,
            outputs,
            4,
            stride,
            1,
            use_bias,
            kernel_init=0.02,
            bias_init="fan_in_uniform",
            execution=self.execution,
            name=name,
        )

"""VQGAN's encoder and decoder: a convolutional U without its bridges.

Axis letters: B batch, H and W pixels, h and w codes along height and width, C channels, Z width of
the latents.
"""

from __future__ import annotations

import flax.linen as nn
import jax
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers import Execution
from jaxformers.models.vqgan.blocks import Downsample, Level, Middle, Upsample, conv, norm
from jaxformers.models.vqgan.config import VQGANConfig


class Encoder(nn.Module):
    """Images to latents, from the full resolution down."""

    config: VQGANConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w Z"]:
        """Latents before quantisation."""
        c, execution = self.config, self.execution
        x = conv(c.in_channels, c.ch, 3, execution, "conv_in")(x)
        width = c.ch
        for i, outputs in enumerate(c.widths):
            shape = (width, outputs, c.num_res_blocks, c.has_attention(i))
            x = Level(c, *shape, execution, name=f"down_{i}")(x, train)  # [B, H / 2^i, W / 2^i, .]
            width = outputs
            if i < len(c.widths) - 1:
                x = Downsample(width, execution, name=f"down_{i}_downsample")(x)
        x = Middle(c, width, execution, name="middle")(x, train)  # [B, h, w, C]
        x = jax.nn.silu(norm(c, "norm_out")(x))
        return conv(width, c.z_channels, 3, execution, "conv_out")(x)


class Decoder(nn.Module):
    """Latents to images, from the lowest resolution up: level `up_0` has the fewest pixels."""

    config: VQGANConfig
    execution: Execution = Execution()

    def setup(self):
        c, execution = self.config, self.execution
        self.conv_in = conv(c.z_channels, c.widths[-1], 3, execution, "conv_in")
        self.middle = Middle(c, c.widths[-1], execution, name="middle")
        width, levels, upsamples = c.widths[-1], [], []
        for i, level in enumerate(reversed(range(len(c.widths)))):
            shape = (width, c.widths[level], c.num_res_blocks + 1, c.has_attention(level))
            levels.append(Level(c, *shape, execution, name=f"up_{i}"))
            width = c.widths[level]
            if level:
                upsamples.append(Upsample(width, execution, name=f"up_{i}_upsample"))
        self.levels, self.upsamples = levels, upsamples
        self.norm_out = norm(c, "norm_out")
        self.conv_out = conv(width, c.out_ch, 3, execution, "conv_out")

    def features(self, z: Float[Array, "B h w Z"], train: bool) -> Float[Array, "B H W C"]:
        """What the last convolution takes."""
        x = self.middle(self.conv_in(z), train)  # [B, h, w, C]
        for i, level in enumerate(self.levels):
            x = level(x, train)
            if i < len(self.upsamples):
                x = self.upsamples[i](x)  # [B, 2^(i+1) h, 2^(i+1) w, C]
        return jax.nn.silu(self.norm_out(x))

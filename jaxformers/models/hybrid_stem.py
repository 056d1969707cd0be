"""The ResNet of hybrid ViTs such as "R50+ViT-B/16": Dosovitskiy et al. 2021, section 3.1.

As in Google's released code: convolutions with TensorFlow's "SAME" padding and weight
standardisation, group norm after each, and residual blocks with norms after the convolutions. BiT,
which the same paper compares with, differs in order, padding and epsilons.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, PositiveInt
from jaxformers.layers import Execution
from jaxformers.layers.convolution import Conv, max_pool
from jaxformers.layers.norm import GroupNorm
from jaxformers.models.residual import Block, make_stages

GROUPS = 32


@dataclass(frozen=True)
class HybridStemConfig(CheckedFields):
    """Shape of the ResNet; the defaults are those of R50+ViT-B/16, which ends after stage 3."""

    depths: tuple[PositiveInt, ...] = (3, 4, 9)
    """Number of blocks of each stage; R50+ViT-L/32 has (3, 4, 6, 3), R+ViT-Ti/16 no stage: ()."""
    width: PositiveInt = 64
    """Channels of the first convolution; stages have four times as many, doubled each time."""

    def __post_init__(self):
        super().__post_init__()
        if self.width % GROUPS:
            raise ConfigError(f"a hybrid stem's width of {self.width} does not divide by {GROUPS}")

    @property
    def stride(self) -> int:
        """Total stride: pixels of the image along a side of one pixel of the feature map."""
        return 4 * 2 ** max(len(self.depths) - 1, 0)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        return tuple(4 * self.width * 2**i for i in range(len(self.depths)))

    @property
    def outputs(self) -> int:
        """Channels of the feature map."""
        return self.stage_widths[-1] if self.depths else self.width


class Unit(nn.Module):
    """A convolution with weight standardisation, group norm, and optional ReLU."""

    inputs: int
    outputs: int
    size: int
    stride: int = 1
    activated: bool = True
    zero_init: bool = False
    execution: Execution = Execution()

    def setup(self):
        # Weights are divided by their standard deviation plus an epsilon; BiT's, by the root of
        # their variance plus one.
        self.conv = Conv(
            self.inputs,
            self.outputs,
            self.size,
            self.stride,
            standardisation="deviation",
            execution=self.execution,
        )
        self.norm = GroupNorm(GROUPS, 1e-6, self.zero_init)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """Returns ReLU(norm(conv(x))), or norm(conv(x))."""
        x = self.norm(self.conv(x))
        return jax.nn.relu(x) if self.activated else x


class HybridStem(nn.Module):
    """Computes the feature map that a ViT splits into patches."""

    config: HybridStemConfig
    channels: int = 3
    execution: Execution = Execution()

    def setup(self):
        c, unit = self.config, partial(Unit, execution=self.execution)
        self.root = unit(self.channels, c.width, 7, 2)
        self.stages = make_stages(c, self.execution, Block, dict(unit=unit, zero_init=True))

    def __call__(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B h w D"]:
        """Feature map of the last stage or, without stages, of the pooled first convolution."""
        x = max_pool(self.root(images, train), 3, 2, "SAME")  # [B, H/4, W/4, width]
        for stage in self.stages:
            x = stage(x, train)
        return x

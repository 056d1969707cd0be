"""BiT: Kolesnikov et al. 2020, "Big Transfer (BiT): General Visual Representation Learning".

A ResNet whose norms and ReLUs stand before the convolutions (He et al. 2016, ResNetV2), with group
norm in place of batch norm and standardised weights (section 2.1): it depends on no batch. The
released code settles the rest: symmetric padding, and zeros around the input of max pooling.

Axis letters: B batch, H height, W width, C channels, D width of the last stage, N classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError
from jaxformers.layers import Execution, Linear
from jaxformers.layers.basic import computed_once
from jaxformers.layers.convolution import Conv, GroupNorm, max_pool, sown
from jaxformers.models.residual import Classifier, ResidualConfig, check_images, stages
from jaxformers.sharding import constrain

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class BiTConfig(ResidualConfig):
    """Shape and choices of a BiT; the defaults are R50x1."""

    groups: int = 32
    standardisation_epsilon: float = 1e-10
    """Added to the variance of weights; 1e-8 in Hugging Face's port."""

    def __post_init__(self):
        super().__post_init__()
        if self.groups < 1:
            raise ConfigError(f"a BiT's groups of {self.groups} is not above 0")
        for width in (4 * self.width, *self.stage_widths):
            if width < 1 or width % (4 * self.groups):
                raise ConfigError(
                    f"a stage's width of {width} does not divide by 4 x {self.groups} groups"
                )

    @staticmethod
    def sized(layers: int, factor: int, **changes) -> BiTConfig:
        """50, 101 or 152 layers, `factor` times as wide as a ResNet."""
        return BiTConfig(**({"depths": DEPTHS[layers], "width": 64 * factor} | changes))

    @staticmethod
    def r50x1(**changes) -> BiTConfig:
        """25,549,352 parameters with 1,000 classes."""
        return BiTConfig.sized(50, 1, **changes)

    @staticmethod
    def r50x3(**changes) -> BiTConfig:
        """50 layers, three times as wide."""
        return BiTConfig.sized(50, 3, **changes)

    @staticmethod
    def r101x1(**changes) -> BiTConfig:
        """44,541,480 parameters with 1,000 classes."""
        return BiTConfig.sized(101, 1, **changes)

    @staticmethod
    def r101x3(**changes) -> BiTConfig:
        """101 layers, three times as wide."""
        return BiTConfig.sized(101, 3, **changes)

    @staticmethod
    def r152x2(**changes) -> BiTConfig:
        """236,335,208 parameters with 1,000 classes."""
        return BiTConfig.sized(152, 2, **changes)

    @staticmethod
    def r152x4(**changes) -> BiTConfig:
        """936,533,224 parameters with 1,000 classes: BiT-L is this."""
        return BiTConfig.sized(152, 4, **changes)


def standard_conv(
    config: BiTConfig, inputs: int, outputs: int, size: int, stride: int, execution: Execution
) -> Conv:
    """A convolution with PyTorch's padding and standardised weights."""
    return Conv(
        inputs,
        outputs,
        size,
        stride,
        padding=size // 2,
        standardisation="variance",
        epsilon=config.standardisation_epsilon,
        execution=execution,
    )


class Unit(nn.Module):
    """Group norm, ReLU, and then a convolution."""

    config: BiTConfig
    inputs: int
    outputs: int
    size: int
    stride: int = 1
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        self.norm = GroupNorm(c.groups, c.norm_epsilon)
        self.conv = standard_conv(
            c, self.inputs, self.outputs, self.size, self.stride, self.execution
        )

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """All three."""
        return self.conv(self.active(x))

    def active(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """What the convolution takes."""
        return jax.nn.relu(self.norm(x))


class Block(nn.Module):
    """A bottleneck with its norms before the convolutions; the first of a stage projects."""

    inputs: int
    outputs: int
    stride: int
    projects: bool
    config: BiTConfig
    execution: Execution = Execution()

    def setup(self):
        c, inner, execution = self.config, self.outputs // 4, self.execution
        self.units = [
            Unit(c, self.inputs, inner, 1, execution=execution),
            Unit(c, inner, inner, 3, self.stride, execution),
            Unit(c, inner, self.outputs, 1, execution=execution),
        ]
        if self.projects:
            self.shortcut_conv = standard_conv(
                c, self.inputs, self.outputs, 1, self.stride, execution
            )

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """Branch plus shortcut, which projects the normed input; sown as `blocks` if wanted."""
        active = self.units[0].active(x)
        shortcut = self.shortcut_conv(active) if self.projects else x
        y = self.units[2](self.units[1](self.units[0].conv(active)))
        y = computed_once(shortcut + y, self.execution.platform)
        return sown(self, constrain(y, "batch", None, None, None))


class Stem(nn.Module):
    """A 7x7 convolution and max pooling over an edge of zeros, with neither norm nor ReLU."""

    config: BiTConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        self.conv = standard_conv(c, c.channels, c.width, 7, 2, self.execution)

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """A quarter of the height and width."""
        return max_pool(self.conv(images), 3, 2, padding=1, fill=0.0)


class BiT(Classifier):
    """The network: `model.apply(variables, images)`.

    `train` changes nothing: it has neither dropout nor batch statistics.
    """

    config: BiTConfig

    def setup(self):
        c, execution = self.config, self.execution
        self.stem = Stem(c, execution)
        fields = dict(config=c, execution=execution)
        self.stages = stages(c, execution, Block, fields, projects=True)
        self.norm = GroupNorm(c.groups, c.norm_epsilon)
        if c.classes:
            shape = (c.stage_widths[-1],), (c.classes,)
            self.head = Linear(*shape, kernel_init="zeros", gathered=True)

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B h w D"]:
        """The last feature map, normed and active."""
        check_images(images, self.config.channels)
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x, train)
        return jax.nn.relu(self.norm(x))

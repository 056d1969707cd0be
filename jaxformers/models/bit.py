"""BiT: Kolesnikov et al. 2020, "Big Transfer (BiT): General Visual Representation Learning".

A ResNet with norms and ReLUs before the convolutions (He et al. 2016, ResNetV2), with group norm in
place of batch norm and with weight standardisation (section 2.1), so that no example depends on its
batch. The details follow the released code: symmetric padding, and max pooling over zero padding.

Axis letters: B batch, H and W height and width, h and w the same after strides, C channels,
D output channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError
from jaxformers.fields import PositiveFloat, PositiveInt
from jaxformers.layers import Execution, Linear, cpu
from jaxformers.layers.convolution import Conv, max_pool, sown
from jaxformers.layers.norm import GroupNorm
from jaxformers.models.residual import Classifier, ResidualConfig, check_images, make_stages
from jaxformers.sharding import constrain

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class BiTConfig(ResidualConfig):
    """Shape and choices of a BiT; the defaults are those of R50x1."""

    groups: PositiveInt = 32
    standardisation_epsilon: PositiveFloat = 1e-10
    """Added to the variance of weights; Hugging Face's port has 1e-8."""

    def __post_init__(self):
        super().__post_init__()
        for width in (4 * self.width, *self.stage_widths):
            if width < 1 or width % (4 * self.groups):
                raise ConfigError(
                    f"a stage's width of {width} does not divide by 4 x {self.groups} groups"
                )

    @staticmethod
    def sized(layers: int, factor: int, **changes) -> BiTConfig:
        """50, 101 or 152 layers, `factor` times as wide as a ResNet; `changes` set other fields."""
        size: dict[str, Any] = {"depths": DEPTHS[layers], "width": 64 * factor}
        return BiTConfig(**(size | changes))

    @staticmethod
    def r50x1(**changes) -> BiTConfig:
        """BiT R50x1: 25,549,352 parameters with 1,000 classes."""
        return BiTConfig.sized(50, 1, **changes)

    @staticmethod
    def r50x3(**changes) -> BiTConfig:
        """BiT R50x3: 50 layers, three times as wide."""
        return BiTConfig.sized(50, 3, **changes)

    @staticmethod
    def r101x1(**changes) -> BiTConfig:
        """BiT R101x1: 44,541,480 parameters with 1,000 classes."""
        return BiTConfig.sized(101, 1, **changes)

    @staticmethod
    def r101x3(**changes) -> BiTConfig:
        """BiT R101x3: 101 layers, three times as wide."""
        return BiTConfig.sized(101, 3, **changes)

    @staticmethod
    def r152x2(**changes) -> BiTConfig:
        """BiT R152x2: 236,335,208 parameters with 1,000 classes."""
        return BiTConfig.sized(152, 2, **changes)

    @staticmethod
    def r152x4(**changes) -> BiTConfig:
        """BiT R152x4, the paper's BiT-L: 936,533,224 parameters with 1,000 classes."""
        return BiTConfig.sized(152, 4, **changes)


def standard_conv(
    config: BiTConfig, inputs: int, outputs: int, size: int, stride: int, execution: Execution
) -> Conv:
    """A convolution with PyTorch's padding and weight standardisation (section 2.1)."""
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
    """Group norm, ReLU, then a convolution."""

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
        """Returns conv(ReLU(norm(x)))."""
        return self.conv(self.activate(x))

    def activate(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """ReLU(norm(x)), the convolution's input."""
        return jax.nn.relu(self.norm(x))


class Block(nn.Module):
    """A pre-activation bottleneck (He et al. 2016, figure 1b); a stage's first one projects."""

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
        """x + F(x), or with a projection W a + F(x), a the activated input; sown as `blocks`."""
        # The projection and the first convolution share one norm and ReLU, whereas the identity
        # shortcut takes x itself, so that nothing is between the blocks' sums.
        activated = self.units[0].activate(x)
        shortcut = self.shortcut_conv(activated) if self.projects else x
        y = self.units[2](self.units[1](self.units[0].conv(activated)))  # F(x): [B, h, w, D]
        y = cpu.computed_once(shortcut + y, self.execution.platform)
        return sown(self, constrain(y, "batch", None, None, None))


class Stem(nn.Module):
    """A 7x7 convolution and max pooling over zero padding, with neither norm nor ReLU."""

    config: BiTConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        self.conv = standard_conv(c, c.channels, c.width, 7, 2, self.execution)

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Feature map of a quarter of the images' height and width."""
        # [B, H, W, C] -> [B, H/2, W/2, D] -> [B, H/4, W/4, D]. Padding with 0 differs from padding
        # with -inf, since without a ReLU before it values may be below 0.
        return max_pool(self.conv(images), 3, 2, padding=1, fill=0.0)


class BiT(Classifier):
    """BiT with a classification head: `model.apply(variables, images)`.

    Kolesnikov et al., "Big Transfer (BiT): General Visual Representation Learning", 2019.
    `train` has no effect: there is neither dropout nor batch norm.

    Example:
        >>> config = jf.BiTConfig(image_size=32, classes=3, depths=(1, 1), width=32)
        >>> model, images = jf.BiT(config), jnp.zeros((2, 32, 32, 3))
        >>> variables = model.init(jax.random.key(0), images)
        >>> model.apply(variables, images).shape
        (2, 3)
    """

    config: BiTConfig

    def setup(self):
        c, execution = self.config, self.execution
        self.stem = Stem(c, execution)
        fields = dict(config=c, execution=execution)
        self.stages = make_stages(c, execution, Block, fields, projects=True)
        # The last block ends with a sum, so a norm and ReLU follow it.
        self.norm = GroupNorm(c.groups, c.norm_epsilon)
        if c.classes:
            shape = (c.stage_widths[-1],), (c.classes,)
            self.head = Linear(*shape, kernel_init="zeros", gathered=True)

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B h w D"]:
        """Last feature map after the final norm and ReLU."""
        check_images(images, self.config.channels)
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x, train)
        return jax.nn.relu(self.norm(x))

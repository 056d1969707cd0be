"""ResNet: He et al. 2015, "Deep Residual Learning for Image Recognition".

This is version 1.5, as nearly all published checkpoints are: a bottleneck's stride is on its 3x3
convolution, not on the 1x1 before it. Table 1 of the paper gives the sizes.

Axis letters: B batch, H and W height and width, h and w the same after strides, C channels,
D output channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError
from jaxformers.fields import PositiveInt, Rate
from jaxformers.layers import Execution, Linear
from jaxformers.layers.activations import Activation, activate
from jaxformers.layers.convolution import Conv, max_pool
from jaxformers.layers.norm import BatchNorm
from jaxformers.models.residual import Block, Classifier, ResidualConfig, check_images, make_stages
from jaxformers.sharding import constrain


@dataclass(frozen=True)
class ResNetConfig(ResidualConfig):
    """Shape and choices of a ResNet; the defaults are those of ResNet-50."""

    block: Literal["basic", "bottleneck"] = "bottleneck"
    stem: Literal["imagenet", "imagenet_halved", "small", "deep"] = "imagenet"
    """`imagenet`: 7x7 convolution with stride 2, then max pooling; `imagenet_halved`: the same,
    with stride 2 in the first stage too; `small`: 3x3 convolution, for images of 28 to 64; `deep`:
    three 3x3 convolutions, the first with stride 2, then max pooling (ResNet-C)."""
    stem_widths: tuple[PositiveInt, PositiveInt] = (32, 32)
    """Output channels of the first two convolutions of a deep stem; the third's are `width`."""
    average_down: bool = False
    """Whether a shortcut with a stride averages before it projects (ResNet-D), so that it skips no
    pixel."""
    norm_momentum: Rate = 0.9
    """Weight of the old running statistics at each step (1 minus PyTorch's `momentum`)."""
    zero_init: bool = False
    """Whether each block's last norm starts at scale 0: blocks start as their shortcuts."""
    stride_first: bool = False
    """Whether a bottleneck's first convolution has the stride, as in the paper (version 1)."""
    activation: Activation = "relu"
    pooling: Literal["average", "max", "average_max"] = "average"
    """Global pooling before the head: mean, maximum, or the mean of both."""

    def __post_init__(self):
        super().__post_init__()
        # The 3x3 convolution has width // expansion channels, which must not be 0.
        for width in self.stage_widths:
            if width < self.expansion:
                raise ConfigError(f"a {self.block} block's width of {width} is too small to divide")

    @property
    def expansion(self) -> int:
        """Ratio of a block's output channels to those of its 3x3 convolution."""
        return 4 if self.block == "bottleneck" else 1

    @staticmethod
    def resnet18(**changes) -> ResNetConfig:
        """Basic blocks, 18 layers: 11,689,512 parameters."""
        return ResNetConfig(**({"block": "basic", "depths": (2, 2, 2, 2)} | changes))

    @staticmethod
    def resnet34(**changes) -> ResNetConfig:
        """Basic blocks, 34 layers: 21,797,672 parameters."""
        return ResNetConfig(**({"block": "basic", "depths": (3, 4, 6, 3)} | changes))

    @staticmethod
    def resnet50(**changes) -> ResNetConfig:
        """Bottlenecks, 50 layers: 25,557,032 parameters."""
        return ResNetConfig(**({"depths": (3, 4, 6, 3)} | changes))

    @staticmethod
    def resnet101(**changes) -> ResNetConfig:
        """Bottlenecks, 101 layers: 44,549,160 parameters."""
        return ResNetConfig(**({"depths": (3, 4, 23, 3)} | changes))

    @staticmethod
    def resnet152(**changes) -> ResNetConfig:
        """Bottlenecks, 152 layers: 60,192,808 parameters."""
        return ResNetConfig(**({"depths": (3, 8, 36, 3)} | changes))


class Unit(nn.Module):
    """A convolution with PyTorch's padding, batch norm, and optional activation."""

    config: ResNetConfig
    inputs: int
    outputs: int
    size: int
    stride: int = 1
    activated: bool = True
    zero_init: bool = False
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        # PyTorch pads size // 2 on each side; "SAME" would pad a strided convolution unevenly.
        self.conv = Conv(
            self.inputs,
            self.outputs,
            self.size,
            self.stride,
            self.size // 2,
            execution=self.execution,
        )
        self.norm = BatchNorm(c.norm_epsilon, c.norm_momentum, self.zero_init)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """Returns act(norm(conv(x))), or norm(conv(x))."""
        x = self.norm(self.conv(x), train=train)
        return activate(x, self.config.activation) if self.activated else x


class DeepStem(nn.Module):
    """Three 3x3 convolutions in place of one 7x7 (He et al. 2018, "Bag of Tricks", ResNet-C)."""

    config: ResNetConfig
    unit: Callable[..., nn.Module]
    """Builds a convolution with norm and activation."""

    def setup(self):
        c, (first, second) = self.config, self.config.stem_widths
        self.units = [
            self.unit(c.channels, first, 3, 2),
            self.unit(first, second, 3),
            self.unit(second, c.width, 3),
        ]

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """Half the height and width."""
        for unit in self.units:
            x = unit(x, train)
        return x


class ResNet(Classifier):
    """ResNet with a classification head: `model.apply(variables, images)`.

    He et al., "Deep Residual Learning for Image Recognition", 2015.
    With `train=True`, `mutable=["batch_stats"]` returns the updated running statistics.

    Example:
        >>> config = jf.ResNetConfig(
        ...     image_size=16, classes=3, block="basic", depths=(1, 1), width=8, stem="small"
        ... )
        >>> model, images = jf.ResNet(config), jnp.zeros((2, 16, 16, 3))
        >>> variables = model.init(jax.random.key(0), images)
        >>> logits, changed = model.apply(variables, images, train=True, mutable=["batch_stats"])
        >>> logits.shape, list(changed)
        ((2, 3), ['batch_stats'])
    """

    config: ResNetConfig

    def setup(self):
        c, execution = self.config, self.execution
        unit = partial(Unit, c, execution=execution)
        size, stride = (3, 1) if c.stem == "small" else (7, 2)
        if c.stem == "deep":
            self.stem = DeepStem(c, unit)
        else:
            self.stem = unit(c.channels, c.width, size, stride)
        fields = dict(unit=unit, expansion=c.expansion, zero_init=c.zero_init)
        fields |= dict(stride_first=c.stride_first, activation=c.activation)
        fields |= dict(average_down=c.average_down)
        stages = make_stages(c, execution, Block, fields)
        # Stages have strides 1, 2, 2, 2; halved, 2, 2, 2, 2.
        if c.stem == "imagenet_halved":
            stages[0] = stages[0].clone(stride=2)
        self.stages = stages
        if c.classes:
            self.head = Linear((c.stage_widths[-1],), (c.classes,), gathered=True)

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B h w D"]:
        """Last feature map, 1/32 of the height and width with an `imagenet` stem and 4 stages."""
        check_images(images, self.config.channels)
        x = self.stem(images, train)  # [B, H/2, W/2, 64] at the paper's size
        if self.config.stem != "small":
            x = max_pool(x, 3, 2, 1)  # [B, H/4, W/4, 64]
        for stage in self.stages:
            x = stage(x, train)
        return x

    def pooled(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Global pooling of the last feature map, in float32: the input of the head."""
        x = self.features(images, train=train).astype(jnp.float32)  # [B, h, w, D]
        # [B, h, w, D] -> [B, D]
        match self.config.pooling:
            case "average":
                x = x.mean((1, 2))
            case "max":
                x = x.max((1, 2))
            case "average_max":
                x = (x.mean((1, 2)) + x.max((1, 2))) / 2
        return constrain(x, "batch", "embed")

"""ResNet: He et al. 2015, "Deep Residual Learning for Image Recognition".

Version 1.5, which nearly every published checkpoint of today is: the stride of a bottleneck stands
on its 3x3 convolution, not on the 1x1 before it. Table 1 of the paper gives the sizes.

Axis letters: B batch, H height, W width, C channels, D width of the last stage, N classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError
from jaxformers.layers import Execution, Linear
from jaxformers.layers.convolution import BatchNorm, Conv, max_pool
from jaxformers.models.residual import Block, Classifier, ResidualConfig, check_images, stages


@dataclass(frozen=True)
class ResNetConfig(ResidualConfig):
    """Shape and choices of a ResNet; the defaults are ResNet-50."""

    block: Literal["basic", "bottleneck"] = "bottleneck"
    stem: Literal["imagenet", "imagenet_halved", "small"] = "imagenet"
    """`imagenet`: 7x7 with stride 2, then max pooling; `imagenet_halved`: the same, and the first
    stage has stride 2 as the others have; `small`: 3x3, for pictures of 28 to 64."""
    norm_momentum: float = 0.9
    """Share of the old running statistics that is kept at each step."""
    zero_init: bool = False
    """Whether each block's last norm starts at scale 0, so that the block starts as nothing."""
    stride_first: bool = False
    """Whether a bottleneck's first convolution has the stride, as in the paper (version 1)."""

    def __post_init__(self):
        super().__post_init__()
        # The 3x3 convolution's width is the quotient, rounded down.
        for width in self.stage_widths:
            if width < self.expansion:
                raise ConfigError(f"a {self.block} block's width of {width} is too small to divide")

    @property
    def expansion(self) -> int:
        """How much wider a block's output is than its 3x3 convolution."""
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
    """A convolution with PyTorch's padding, its batch norm, and perhaps a ReLU."""

    config: ResNetConfig
    inputs: int
    outputs: int
    size: int
    stride: int = 1
    relu: bool = True
    zero_init: bool = False
    execution: Execution = Execution()

    def setup(self):
        c = self.config
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
        """Convolution, norm, ReLU."""
        x = self.norm(self.conv(x), train=train)
        return jax.nn.relu(x) if self.relu else x


class ResNet(Classifier):
    """The network: `model.apply(variables, images)`.

    Training changes the running statistics: `mutable=["batch_stats"]` gives the new ones.
    """

    config: ResNetConfig

    def setup(self):
        c, execution = self.config, self.execution
        unit = partial(Unit, c, execution=execution)
        size, stride = (3, 1) if c.stem == "small" else (7, 2)
        self.stem = unit(c.channels, c.width, size, stride)
        fields = dict(unit=unit, expansion=c.expansion, zero_init=c.zero_init)
        fields |= dict(stride_first=c.stride_first)
        made = stages(c, execution, Block, fields)
        if c.stem == "imagenet_halved":
            made[0] = made[0].clone(stride=2)
        self.stages = made
        if c.classes:
            self.head = Linear((c.stage_widths[-1],), (c.classes,), gathered=True)

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B h w D"]:
        """The last feature map."""
        check_images(images, self.config.channels)
        x = self.stem(images, train)
        if self.config.stem != "small":
            x = max_pool(x, 3, 2, 1)
        for stage in self.stages:
            x = stage(x, train)
        return x

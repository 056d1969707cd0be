"""ResNet: He et al. 2015, "Deep Residual Learning for Image Recognition".

Version 1.5, which every published checkpoint of today is: the stride of a bottleneck stands on its
3x3 convolution, not on the 1x1 before it. Table 1 of the paper gives the sizes.

Axis letters: B batch, H height, W width, C channels, D width of the last stage, N classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution, Linear
from jaxformers.layers.convolution import BatchNorm, Conv, max_pool, sown
from jaxformers.layers.execution import remat_policy
from jaxformers.sharding import constrain


@dataclass(frozen=True)
class ResNetConfig:
    """Shape and choices of a ResNet; the defaults are ResNet-50."""

    image_size: int = 224
    """Side of the squares that the model is made for; others are taken too."""
    channels: int = 3
    classes: int = 1000
    """0: no head."""
    class_names: tuple[str, ...] = ()
    """What the classes are called, in order; empty: numbers."""
    block: Literal["basic", "bottleneck"] = "bottleneck"
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of each stage."""
    width: int = 64
    """Channels of the stem."""
    widths: tuple[int, ...] = ()
    """Channels that each stage gives; empty: `width`, doubled from stage to stage, and four times
    that with bottlenecks."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """`imagenet`: 7x7 with stride 2, then max pooling; `small`: 3x3, for pictures of 28 to 64."""
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    """Share of the old running statistics that is kept at each step."""
    zero_init: bool = False
    """Whether each block's last norm starts at scale 0, so that the block starts as nothing."""

    def __post_init__(self):
        for name in ("image_size", "channels", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"a ResNet's {name} of {getattr(self, name)} is not above 0")
        check_classes(self.classes, self.class_names)
        if not self.depths or min(self.depths) < 1:
            raise ConfigError(f"a ResNet's depths {self.depths} need a block in every stage")
        if self.widths and len(self.widths) != len(self.depths):
            raise ConfigError(f"widths {self.widths} do not fit {len(self.depths)} stages")
        for width in self.stage_widths:
            if width % self.expansion or width < 1:
                raise ConfigError(f"a bottleneck's width of {width} does not divide by 4")

    @property
    def expansion(self) -> int:
        """How much wider a block's output is than its 3x3 convolution."""
        return 4 if self.block == "bottleneck" else 1

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels that each stage gives."""
        doubled = (self.expansion * self.width * 2**i for i in range(len(self.depths)))
        return self.widths or tuple(doubled)

    def without_plain_widths(self) -> ResNetConfig:
        """The same, with no `widths` where `width` alone says them."""
        plain = replace(self, widths=())
        return plain if plain.stage_widths == self.stage_widths else self

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


def check_classes(classes: int, names: tuple[str, ...]) -> None:
    """Raises ConfigError unless the classes are 0 or more and have a name each, or none."""
    if classes < 0:
        raise ConfigError(f"{classes} classes: 0 means no head, and fewer there cannot be")
    if names and len(names) != classes:
        raise ConfigError(f"class_names has {len(names)} names for {classes} classes")


def check_images(images: Array, channels: int) -> None:
    """Raises DataError unless the images are `[B, H, W, channels]`."""
    if images.ndim != 4 or images.shape[-1] != channels:
        raise DataError(
            f"images of shape {tuple(images.shape)}: the model takes [batch, height, width, "
            f"{channels}]"
        )


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
        c, dtype = self.config, self.execution.compute_dtype
        self.conv = Conv(
            self.inputs, self.outputs, self.size, self.stride, self.size // 2, dtype=dtype
        )
        self.norm = BatchNorm(c.norm_epsilon, c.norm_momentum, self.zero_init)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """Convolution, norm, ReLU."""
        x = self.norm(self.conv(x), train=train)
        return jax.nn.relu(x) if self.relu else x


class Block(nn.Module):
    """A residual block (figure 5): two 3x3 convolutions, or a 3x3 between two 1x1."""

    config: ResNetConfig
    inputs: int
    outputs: int
    stride: int = 1
    execution: Execution = Execution()

    def setup(self):
        c, execution = self.config, self.execution
        inner = self.outputs // c.expansion
        last = dict(relu=False, zero_init=c.zero_init, execution=execution)
        if c.block == "basic":
            self.units = [
                Unit(c, self.inputs, inner, 3, self.stride, execution=execution),
                Unit(c, inner, inner, 3, **last),
            ]
        else:
            self.units = [
                Unit(c, self.inputs, inner, 1, execution=execution),
                Unit(c, inner, inner, 3, self.stride, execution=execution),
                Unit(c, inner, self.outputs, 1, **last),
            ]
        self.projects = self.inputs != self.outputs or self.stride != 1
        if self.projects:
            self.shortcut = Unit(
                c, self.inputs, self.outputs, 1, self.stride, relu=False, execution=execution
            )

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """The ReLU of branch and shortcut; sown as `blocks` when that collection is mutable."""
        y = x
        for unit in self.units:
            y = unit(y, train)
        x = self.shortcut(x, train) if self.projects else x
        return sown(self, constrain(jax.nn.relu(x + y), "batch", None, None, None))


class Stage(nn.Module):
    """Blocks of one width, the first with the stride."""

    config: ResNetConfig
    inputs: int
    outputs: int
    depth: int
    stride: int
    execution: Execution = Execution()

    def setup(self):
        block = rematerialised(Block, self.execution)
        shapes = [(self.inputs, self.stride)] + [(self.outputs, 1)] * (self.depth - 1)
        self.blocks = [
            block(self.config, inputs, self.outputs, stride, self.execution)
            for inputs, stride in shapes
        ]

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """All blocks in turn."""
        for block in self.blocks:
            x = block(x, train)
        return x


class ResNet(nn.Module):
    """The network: `model.apply(variables, images)`.

    Training changes the running statistics: `mutable=["batch_stats"]` gives the new ones.
    """

    config: ResNetConfig
    execution: Execution = Execution()

    def setup(self):
        c, execution = self.config, self.execution
        size, stride = (7, 2) if c.stem == "imagenet" else (3, 1)
        self.stem = Unit(c, c.channels, c.width, size, stride, execution=execution)
        widths = (c.width, *c.stage_widths)
        self.stages = [
            Stage(c, widths[i], widths[i + 1], depth, 1 if i == 0 else 2, execution)
            for i, depth in enumerate(c.depths)
        ]
        if c.classes:
            self.head = Linear((widths[-1],), (c.classes,), gathered=True)

    def __call__(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B N"]:
        """Float32 logits of the classes; without a head, what `pooled` gives."""
        pooled = self.pooled(images, train=train)
        return self.head(pooled) if self.config.classes else pooled

    def pooled(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """The float32 mean of the last feature map's pixels: what the head sees."""
        return mean_pixel(self.features(images, train=train))

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B h w D"]:
        """The last feature map."""
        check_images(images, self.config.channels)
        x = self.stem(images, train)
        if self.config.stem == "imagenet":
            x = max_pool(x, 3, 2, 1)
        for stage in self.stages:
            x = stage(x, train)
        return x


def mean_pixel(x: Float[Array, "B H W D"]) -> Float[Array, "B D"]:
    """Global average pooling, in float32."""
    return constrain(x.astype(jnp.float32).mean((1, 2)), "batch", "embed")


def rematerialised(block: type[nn.Module], execution: Execution) -> type[nn.Module]:
    """The block, computed again in the backward pass as far as `execution.remat` says.

    Its call takes `(x, train)`.
    """
    if execution.remat == "none":
        return block
    return nn.remat(block, policy=remat_policy(execution.remat), static_argnums=(2,))

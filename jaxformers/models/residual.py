"""What ResNet, BiT and the hybrid ViTs' ResNet share: stages of residual blocks, a head over them.

Axis letters: B batch, H height, W width, C channels, D width of the last stage, N classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, DataError, check_choices
from jaxformers.layers import Execution
from jaxformers.layers.convolution import sown
from jaxformers.layers.execution import remat_policy
from jaxformers.sharding import constrain


@dataclass(frozen=True)
class ResidualConfig:
    """The fields of a ResNet and of a BiT; the defaults have 50 layers."""

    image_size: int = 224
    """Side of the squares that the model is made for; others are taken too."""
    channels: int = 3
    classes: int = 1000
    """0: no head."""
    class_names: tuple[str, ...] = ()
    """What the classes are called, in order; empty: numbers."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of each stage."""
    width: int = 64
    """Channels of the stem."""
    widths: tuple[int, ...] = ()
    """Channels that each stage gives; empty: `width`, doubled from stage to stage, and four times
    that with bottlenecks."""
    norm_epsilon: float = 1e-5

    def __post_init__(self):
        kind = type(self).__name__.removesuffix("Config")
        for name in ("image_size", "channels", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"a {kind}'s {name} of {getattr(self, name)} is not above 0")
        if self.classes < 0:
            raise ConfigError(f"{self.classes} classes: 0 means no head, and fewer there cannot be")
        if self.class_names and len(self.class_names) != self.classes:
            raise ConfigError(
                f"class_names has {len(self.class_names)} names for {self.classes} classes"
            )
        if not self.depths or min(self.depths) < 1:
            raise ConfigError(f"a {kind}'s depths {self.depths} need a block in every stage")
        if self.widths and len(self.widths) != len(self.depths):
            raise ConfigError(f"widths {self.widths} do not fit {len(self.depths)} stages")
        check_choices(self)

    @property
    def expansion(self) -> int:
        """How much wider a block's output is than its 3x3 convolution."""
        return 4

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels that each stage gives."""
        doubled = (self.expansion * self.width * 2**i for i in range(len(self.depths)))
        return self.widths or tuple(doubled)

    def without_plain_widths(self) -> ResidualConfig:
        """The same, with no `widths` where `width` alone says them."""
        plain = replace(self, widths=())
        return plain if plain.stage_widths == self.stage_widths else self


class Block(nn.Module):
    """A residual block, its norms after the convolutions (He et al. 2015, figure 5).

    Two 3x3 convolutions, or a 3x3, which has the stride, between two 1x1.
    """

    inputs: int
    outputs: int
    stride: int
    projects: bool
    """Whether the shortcut is a convolution of one pixel."""
    unit: Callable[..., nn.Module]
    """Makes a convolution, its norm and perhaps a ReLU, called with `(x, train)`."""
    expansion: int = 4
    """Outputs over inner channels; 1: two convolutions."""
    zero_init: bool = False
    """Whether the last norm starts at scale 0, so that the block starts as nothing."""
    stride_first: bool = False
    """Whether the first of three convolutions has the stride, and not the second."""

    def setup(self):
        unit, inner = self.unit, self.outputs // self.expansion
        strides = (self.stride, 1) if self.stride_first else (1, self.stride)
        last = dict(relu=False, zero_init=self.zero_init)
        if self.expansion == 1:
            self.units = [unit(self.inputs, inner, 3, self.stride), unit(inner, inner, 3, **last)]
        else:
            self.units = [
                unit(self.inputs, inner, 1, strides[0]),
                unit(inner, inner, 3, strides[1]),
                unit(inner, self.outputs, 1, **last),
            ]
        if self.projects:
            self.shortcut = unit(self.inputs, self.outputs, 1, self.stride, relu=False)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """The ReLU of branch and shortcut; sown as `blocks` when that collection is mutable."""
        y = x
        for unit in self.units:
            y = unit(y, train)
        x = self.shortcut(x, train) if self.projects else x
        return sown(self, constrain(jax.nn.relu(x + y), "batch", None, None, None))


class Stage(nn.Module):
    """Blocks of one width, the first with the stride."""

    block: Callable[..., nn.Module]
    """Makes a block of inputs, outputs, stride and whether it projects."""
    inputs: int
    outputs: int
    depth: int
    stride: int
    projects: bool
    """Whether the first block does where neither width nor stride asks for it."""

    def setup(self):
        projects = self.projects or self.inputs != self.outputs or self.stride != 1
        shapes = [(self.inputs, self.outputs, self.stride, projects)]
        shapes += [(self.outputs, self.outputs, 1, False)] * (self.depth - 1)
        self.blocks = [self.block(*shape) for shape in shapes]

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """All blocks in turn."""
        for block in self.blocks:
            x = block(x, train)
        return x


def stages(
    config: Any,
    execution: Execution,
    block: type[nn.Module],
    fields: dict[str, Any],
    projects: bool = False,
) -> list[Stage]:
    """The stages of a network, each but the first with stride 2.

    Args:
        config: has the `width` of the stem, `depths` and `stage_widths`.
        execution: blocks are computed again in the backward pass as far as its `remat` says.
        block: what stages are made of, called with `(x, train)`.
        fields: of each block, beside its shape.
        projects: whether the first block of a stage always does.
    """
    if execution.remat != "none":
        block = nn.remat(block, policy=remat_policy(execution.remat), static_argnums=(2,))
    widths = (config.width, *config.stage_widths)
    return [
        Stage(partial(block, **fields), *pair, depth, 1 if i == 0 else 2, projects)
        for i, (pair, depth) in enumerate(zip(pairwise(widths), config.depths, strict=True))
    ]


class Classifier(nn.Module):
    """A head over the mean pixel of `features`: `model.apply(variables, images)`.

    A network of this kind makes its `head`, if any, and says how `features` come to be.
    """

    config: Any
    execution: Execution = Execution()

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
        x = self.features(images, train=train)
        return constrain(x.astype(jnp.float32).mean((1, 2)), "batch", "embed")


def check_images(images: Array, channels: int) -> None:
    """Raises DataError unless the images are `[B, H, W, channels]`."""
    if images.ndim != 4 or images.shape[-1] != channels:
        raise DataError(
            f"images of shape {tuple(images.shape)}: the model takes [batch, height, width, "
            f"{channels}]"
        )

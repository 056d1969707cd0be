"""Stages of residual blocks and the classifier of ResNet, BiT and the hybrid ViTs' ResNet.

Axis letters: B batch, H and W height and width, h and w the same after strides, C channels,
D output channels, N classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import CheckedFields, NonNegativeInt, PositiveFloat, PositiveInt
from jaxformers.layers import Execution
from jaxformers.layers.activations import Activation, activate
from jaxformers.layers.convolution import average_pool, sown
from jaxformers.layers.execution import remat_policy
from jaxformers.models.problem_type import ProblemType
from jaxformers.sharding import constrain


@dataclass(frozen=True)
class ResidualConfig(CheckedFields):
    """Common fields of ResNet and BiT; the defaults have 50 layers."""

    image_size: PositiveInt = 224
    """Side of the square images that the model is meant for; it takes other sizes too."""
    channels: PositiveInt = 3
    classes: NonNegativeInt = 1000
    """Outputs of the head; 0: no head."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, in order; empty: numbers."""
    problem_type: ProblemType | None = None
    """What the logits mean, in `problem_type.class_scores`; None: a softmax over the classes, of a
    single class a sigmoid."""
    depths: tuple[PositiveInt, ...] = (3, 4, 6, 3)
    """Number of blocks of each stage."""
    width: PositiveInt = 64
    """Output channels of the stem."""
    widths: tuple[PositiveInt, ...] = ()
    """Output channels of each stage; empty: `width` x `expansion`, doubled from stage to stage."""
    norm_epsilon: PositiveFloat = 1e-5

    def __post_init__(self):
        super().__post_init__()
        if self.class_names and len(self.class_names) != self.classes:
            raise ConfigError(
                f"class_names has {len(self.class_names)} names for {self.classes} classes"
            )
        if not self.depths:
            raise ConfigError("depths is empty: give the number of blocks of each stage")
        if self.widths and len(self.widths) != len(self.depths):
            raise ConfigError(f"widths {self.widths} do not fit {len(self.depths)} stages")

    @property
    def expansion(self) -> int:
        """Ratio of a block's output channels to those of its 3x3 convolution."""
        return 4

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        # 4 x 64 = 256 channels after stage 1 of a ResNet-50, then 512, 1,024 and 2,048.
        doubled = (self.expansion * self.width * 2**i for i in range(len(self.depths)))
        return self.widths or tuple(doubled)

    def drop_default_widths(self) -> ResidualConfig:
        """This configuration with empty `widths`, if `width` alone gives the same stage widths."""
        default = replace(self, widths=())
        return default if default.stage_widths == self.stage_widths else self


class Block(nn.Module):
    """A residual block with norms after the convolutions (He et al. 2015, figure 5).

    A basic block has two 3x3 convolutions, a bottleneck a 3x3 between two 1x1.
    """

    inputs: int
    outputs: int
    stride: int
    projects: bool
    """Whether the shortcut is a 1x1 convolution rather than the identity."""
    unit: Callable[..., nn.Module]
    """Builds a convolution with norm and optional activation, called with `(x, train)`."""
    expansion: int = 4
    """Ratio of output channels to inner ones; 1: a basic block."""
    zero_init: bool = False
    """Whether the last norm starts at scale 0, so that the block starts as its shortcut."""
    stride_first: bool = False
    """Whether a bottleneck's first convolution has the stride, rather than its 3x3."""
    activation: Activation = "relu"
    """After the sum; the units' own is their builder's."""
    average_down: bool = False
    """Whether the shortcut averages windows of `stride` pixels before it projects them."""

    def setup(self):
        unit, inner = self.unit, self.outputs // self.expansion
        # In version 1.5 the 3x3 convolution has the stride: the 1x1 before it would skip pixels.
        strides = (self.stride, 1) if self.stride_first else (1, self.stride)
        # No activation before the sum: it follows the sum with the shortcut.
        last = dict(activated=False, zero_init=self.zero_init)
        if self.expansion == 1:
            self.units = [unit(self.inputs, inner, 3, self.stride), unit(inner, inner, 3, **last)]
        else:
            self.units = [
                unit(self.inputs, inner, 1, strides[0]),
                unit(inner, inner, 3, strides[1]),
                unit(inner, self.outputs, 1, **last),
            ]
        if self.projects:
            stride = 1 if self.average_down else self.stride
            self.shortcut = unit(self.inputs, self.outputs, 1, stride, activated=False)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """act(F(x) + shortcut(x)) (equations 1, 2); sown as `blocks` if that is mutable."""
        y = x
        for unit in self.units:
            y = unit(y, train)  # F(x): [B, h, w, D]
        if self.average_down and self.stride > 1:
            x = average_pool(x, self.stride)  # [B, h, w, C]
        x = self.shortcut(x, train) if self.projects else x
        y = activate(x + y, self.activation)
        return sown(self, constrain(y, "batch", None, None, None))


class Stage(nn.Module):
    """A stage: blocks of one output width, the first with the stride."""

    block: Callable[..., nn.Module]
    """Builds a block from `(inputs, outputs, stride, projects)`."""
    inputs: int
    outputs: int
    depth: int
    stride: int
    projects: bool
    """Whether the first block projects even if neither its width nor its stride needs it."""

    def setup(self):
        # Only the first block changes width and stride; the others map [B, h, w, D] to itself.
        projects = self.projects or self.inputs != self.outputs or self.stride != 1
        shapes = [(self.inputs, self.outputs, self.stride, projects)]
        shapes += [(self.outputs, self.outputs, 1, False)] * (self.depth - 1)
        self.blocks = [self.block(*shape) for shape in shapes]

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """Applies the blocks in order."""
        for block in self.blocks:
            x = block(x, train)
        return x


def make_stages(
    config: Any,
    execution: Execution,
    block: type[nn.Module],
    fields: dict[str, Any],
    projects: bool = False,
) -> list[Stage]:
    """Builds the stages of a network; all but the first have stride 2.

    Args:
        config: has the stem's `width`, `depths` and `stage_widths`.
        execution: its `remat` says what of a block the backward pass recomputes.
        block: class of the blocks, called with `(x, train)`.
        fields: fields of the blocks other than their shape.
        projects: whether the first block of each stage has a projecting shortcut in any case.
    """
    if execution.remat != "none":
        # Argument 2 of `__call__(self, x, train)` is a Python bool, which remat must not trace.
        block = nn.remat(block, policy=remat_policy(execution.remat), static_argnums=(2,))
    widths = (config.width, *config.stage_widths)
    return [
        Stage(partial(block, **fields), *pair, depth, 1 if i == 0 else 2, projects)
        for i, (pair, depth) in enumerate(zip(pairwise(widths), config.depths, strict=True))
    ]


class Classifier(nn.Module):
    """Global average pooling and a head: `model.apply(variables, images)`.

    A subclass defines `features(images, train=...)` and, if it has classes, `head` in `setup`.
    """

    config: Any
    execution: Execution = Execution()

    def __call__(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B N"]:
        """Float32 logits of the classes; without a head, the output of `pooled`."""
        pooled = self.pooled(images, train=train)
        return self.head(pooled) if self.config.classes else pooled

    def pooled(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """Global average pooling of the last feature map, in float32: the input of the head."""
        x = self.features(images, train=train)  # [B, h, w, D]
        return constrain(x.astype(jnp.float32).mean((1, 2)), "batch", "embed")


def check_images(images: Array, channels: int) -> None:
    """Raises DataError unless the images are `[B, H, W, channels]`."""
    if images.ndim != 4 or images.shape[-1] != channels:
        raise DataError(
            f"images of shape {tuple(images.shape)}: the model takes [batch, height, width, "
            f"{channels}]"
        )

"""Optimizers: small dataclasses that build optax transformations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax
import optax

from jaxformers.sharding import path_text

NOT_DECAYED = r".*(bias|norm/scale)"


@dataclass(frozen=True)
class Optimizer:
    """Base of the optimizers."""

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The optax transformation with this learning rate."""
        raise NotImplementedError


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam with bias correction (Kingma and Ba 2014); decoupled weight decay where it is asked.

    The defaults are those of "Attention Is All You Need", section 5.3.
    """

    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-9
    weight_decay: float = 0.0
    """Times the learning rate (Loshchilov and Hutter 2017); biases and norms are left out."""

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """`optax.adam`, or `optax.adamw` when weights decay."""
        if not self.weight_decay:
            return optax.adam(rate, self.b1, self.b2, self.eps)
        return optax.adamw(
            rate, self.b1, self.b2, self.eps, weight_decay=self.weight_decay, mask=decayed
        )


def decayed(params: Any) -> Any:
    """Which parameters decay: all but biases and the scales of norms."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: re.fullmatch(NOT_DECAYED, path_text(path)) is None, params
    )


def transformation(
    optimizer: Optimizer, rate: optax.Schedule, clip_norm: float | None
) -> optax.GradientTransformation:
    """The optimizer, after clipping by the gradients' global norm if that is asked for."""
    built = optimizer.build(rate)
    return built if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), built)

"""Optimizers: small dataclasses that build optax transformations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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


class BertAdamState(NamedTuple):
    """Moments of the gradients."""

    mu: Any
    nu: Any


@dataclass(frozen=True)
class BertAdam(Optimizer):
    """BERT's own Adam: no bias correction, epsilon outside the root, decoupled weight decay.

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w -= rate (m / (sqrt(v) + eps) + decay w), as
    in the released code (`optimization.py`); biases and norms do not decay.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    """Times the learning rate."""

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """Moments, decay, rate."""
        return optax.chain(
            scale_by_bert_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            optax.scale_by_learning_rate(rate),
        )


def scale_by_bert_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Gradients to m / (sqrt(v) + eps), the moments not corrected for their start at zero."""

    def init(params: Any) -> BertAdamState:
        return BertAdamState(*(jax.tree.map(jnp.zeros_like, params) for _ in range(2)))

    def update(grads: Any, state: BertAdamState, params: Any = None):
        mu = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * jnp.square(g), state.nu, grads)
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return scaled, BertAdamState(mu, nu)

    return optax.GradientTransformation(init, update)


@dataclass(frozen=True)
class Lamb(Optimizer):
    """LAMB (You et al. 2019, algorithm 2): Adam's step, scaled in each tensor to its weights' norm.

    A stack holds its layers in one array; each layer counts as a tensor of its own, as in the
    paper. Biases and norms neither decay nor are scaled.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    """Within the scaled step."""

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """Adam with bias correction, decay, trust ratio, rate."""
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            scale_by_trust_ratio(),
            optax.scale_by_learning_rate(rate),
        )


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """Updates times norm(weights) / norm(update), by tensor and layer; 1 where either is 0."""

    def scaled(path: Any, update: jax.Array, weights: jax.Array) -> jax.Array:
        name = path_text(path)
        if re.fullmatch(NOT_DECAYED, name):
            return update
        stacked = "blocks" in name.split("/")
        axes = tuple(range(1 if stacked else 0, weights.ndim))
        norms = [jnp.sqrt(jnp.square(x).sum(axes, keepdims=True)) for x in (weights, update)]
        known = (norms[0] > 0.0) & (norms[1] > 0.0)
        return update * jnp.where(known, norms[0] / jnp.where(known, norms[1], 1.0), 1.0)

    def update(updates: Any, state: optax.EmptyState, params: Any = None):
        return jax.tree_util.tree_map_with_path(scaled, updates, params), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


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

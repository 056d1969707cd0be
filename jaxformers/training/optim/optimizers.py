"""Optimizers: frozen dataclasses that build optax transformations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, NonNegativeFloat, PositiveFloat, PositiveFraction, Rate
from jaxformers.sharding import path_text

NOT_DECAYED = r".*(bias|norm\w*/scale|_layer_scale|logit_scale)"
KERNEL = r"(.*/)?kernel"
# Parameters below the first block, which `layer_decay` counts as layer 0.
EMBEDDINGS = r"(.*/)?(stem|\w*embedding|\w*embedding_norm|\w+_tokens?)(/.*)?"
Decays = Literal["weights", "kernels", "matrices"]


@dataclass(frozen=True)
class Optimizer(CheckedFields):
    """Base class of the optimizers."""

    @property
    def memory(self) -> str:
        """What the optimizer keeps beside the parameters, in words; empty: nothing."""
        return f"the state of {type(self).__name__}"

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """The optax transformation with this learning rate."""
        raise NotImplementedError


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam with bias correction (Kingma and Ba 2014), optionally with decoupled weight decay.

    The defaults are those of "Attention Is All You Need", section 5.3.
    """

    b1: Rate = 0.9
    b2: Rate = 0.98
    eps: PositiveFloat = 1e-9
    weight_decay: NonNegativeFloat = 0.0
    """Times the learning rate (Loshchilov and Hutter 2017)."""
    decays: Decays = "weights"
    """Which parameters decay: all but biases and norms, kernels only (no tokens or tables), or
    `matrices`, of the first those with two axes or more (open_clip: no class token)."""
    layer_decay: PositiveFraction = 1.0
    """Learning rate of each layer relative to the layer above it ("MAE", appendix A.1)."""

    @property
    def memory(self) -> str:
        """Two moments."""
        return "the two moments of Adam"

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """`optax.adam`, or `optax.adamw` with weight decay; then the layer-wise decay."""
        if self.weight_decay:
            adam = optax.adamw(
                rate,
                self.b1,
                self.b2,
                self.eps,
                weight_decay=self.weight_decay,
                mask={"weights": decayed, "kernels": kernels, "matrices": matrices}[self.decays],
            )
        else:
            adam = optax.adam(rate, self.b1, self.b2, self.eps)
        if self.layer_decay == 1.0:
            return adam
        return optax.chain(adam, scale_by_layer(self.layer_decay))


@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent with momentum, as BiT and ViT are fine-tuned."""

    momentum: Rate = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 0.0
    """Added to the gradient, times the weight, as in PyTorch; biases and norms are left out."""

    @property
    def memory(self) -> str:
        """The momentum."""
        return "the momentum of SGD"

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """`optax.sgd` over decayed gradients."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            optax.trace(self.momentum, self.nesterov),
            optax.scale_by_learning_rate(rate),
        )


@dataclass(frozen=True)
class Lars(Optimizer):
    """LARS (You et al. 2017, algorithm 1): each tensor's gradient scaled to its weights' norm.

    The rate comes after the momentum, and biases and norms are neither scaled nor decayed, as in
    MAE's linear probe (appendix A.1).
    """

    momentum: Rate = 0.9
    trust: PositiveFloat = 0.001
    weight_decay: NonNegativeFloat = 0.0
    """Added to the gradient, times the weight."""

    @property
    def memory(self) -> str:
        """The momentum."""
        return "the momentum of LARS"

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """Decay, trust ratio, momentum, rate."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            scale_by_trust_ratio(self.trust),
            optax.trace(self.momentum),
            optax.scale_by_learning_rate(rate),
        )


class BertAdamState(NamedTuple):
    """Moving averages of the gradients and of their squares."""

    mu: Any
    nu: Any


@dataclass(frozen=True)
class BertAdam(Optimizer):
    """BERT's own Adam: no bias correction, epsilon outside the root, decoupled weight decay.

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w -= rate (m / (sqrt(v) + eps) + decay w), as
    in the released code (`optimization.py`); biases and norms do not decay.
    """

    b1: Rate = 0.9
    b2: Rate = 0.999
    eps: PositiveFloat = 1e-6
    weight_decay: NonNegativeFloat = 0.01
    """Times the learning rate."""

    @property
    def memory(self) -> str:
        """Two moments."""
        return "the two moments of BERT's Adam"

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """Moments, weight decay, learning rate."""
        return optax.chain(
            scale_by_bert_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            optax.scale_by_learning_rate(rate),
        )


def scale_by_bert_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Scales gradients to m / (sqrt(v) + eps), without bias correction of the moments."""

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

    b1: Rate = 0.9
    b2: Rate = 0.999
    eps: PositiveFloat = 1e-6
    weight_decay: NonNegativeFloat = 0.01
    """Within the scaled step."""

    @property
    def memory(self) -> str:
        """Two moments."""
        return "the two moments of LAMB"

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """Adam with bias correction, decay, trust ratio, rate."""
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay, mask=decayed),
            scale_by_trust_ratio(),
            optax.scale_by_learning_rate(rate),
        )


def scale_by_trust_ratio(trust: float = 1.0) -> optax.GradientTransformation:
    """Scales updates by trust * |w| / |update| for each tensor and layer; by 1 if a norm is 0."""

    def scaled(path: Any, update: jax.Array, weights: jax.Array) -> jax.Array:
        name = path_text(path)
        if re.fullmatch(NOT_DECAYED, name):
            return update
        # A stack of L layers holds [L, ...]: one norm for each layer, not one for the stack.
        stacked = "blocks" in name.split("/")
        axes = tuple(range(1 if stacked else 0, weights.ndim))
        norms = [jnp.sqrt(jnp.square(x).sum(axes, keepdims=True)) for x in (weights, update)]
        nonzero = (norms[0] > 0.0) & (norms[1] > 0.0)
        ratio = trust * norms[0] / jnp.where(nonzero, norms[1], 1.0)
        return update * jnp.where(nonzero, ratio, 1.0)

    def update(updates: Any, state: optax.EmptyState, params: Any = None):
        return jax.tree_util.tree_map_with_path(scaled, updates, params), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Scales updates by decay^(depth below the head).

    With L blocks, block i (from 0) is scaled by decay^(L - i), embeddings by decay^(L + 1), head
    and last norm by 1. A stack holds its layers in one array [L, ...]: its factor is a vector [L].

    Raises:
        ConfigError: parameters with no stack of blocks, or with several.
    """

    def num_layers(params: Any) -> int:
        stacks: dict[str, int] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            stack, mark, _ = path_text(path).partition("/blocks/")
            if mark:
                stacks[stack] = leaf.shape[0]
        if len(stacks) != 1:
            raise ConfigError(
                f"layer_decay needs one stack of blocks; the model has {len(stacks)}: set "
                "--optimizer.layer-decay 1"
            )
        return next(iter(stacks.values()))

    def update(updates: Any, state: optax.EmptyState, params: Any = None):
        depth = num_layers(updates)

        def scaled(path: Any, leaf: jax.Array) -> jax.Array:
            name = path_text(path)
            if "/blocks/" in name:
                factors = decay ** np.arange(depth, 0, -1, dtype=np.float32)
                return leaf * factors.reshape(-1, *(1,) * (leaf.ndim - 1)).astype(leaf.dtype)
            if re.fullmatch(EMBEDDINGS, name):
                return leaf * decay ** (depth + 1)
            return leaf

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def freeze(patterns: tuple[str, ...]) -> optax.GradientTransformation:
    """Sets the updates of parameters to zero whose whole path matches one of `patterns`."""

    def update(updates: Any, state: optax.EmptyState, params: Any = None):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.zeros_like(leaf) if is_frozen(path, patterns) else leaf, updates
        ), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def is_frozen(path: Any, patterns: tuple[str, ...]) -> bool:
    """Whether the parameter at `path` matches one of these regular expressions, in full."""
    return any(re.fullmatch(pattern, path_text(path)) for pattern in patterns)


def kernels(params: Any) -> Any:
    """A tree of booleans: whether each parameter is a kernel."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: re.fullmatch(KERNEL, path_text(path)) is not None, params
    )


def matrices(params: Any) -> Any:
    """A tree of booleans: whether each parameter is a decayed one of two axes or more."""

    def num_axes(path, leaf) -> int:
        # A stack of L layers holds [L, ...], whose first axis is no axis of a layer's parameter.
        return leaf.ndim - ("blocks" in path_text(path).split("/"))

    axes = jax.tree_util.tree_map_with_path(num_axes, params)
    return jax.tree.map(lambda keeps, n: keeps and n >= 2, decayed(params), axes)


def decayed(params: Any) -> Any:
    """A tree of booleans: whether each parameter decays (all but biases and norms' scales)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: re.fullmatch(NOT_DECAYED, path_text(path)) is None, params
    )


def transformation(
    optimizer: Optimizer,
    rate: optax.Schedule,
    clip_norm: float | None,
    frozen_patterns: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """Clipping by the global norm of the gradients (None: no clipping), then the optimizer.

    Parameters whose paths match `frozen_patterns` keep their values.
    """
    chain = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    chain.append(optimizer.build(rate))
    if frozen_patterns:  # last, so that weight decay does not move frozen parameters either
        chain.append(freeze(frozen_patterns))
    # A chain of one would nest the optimizer's state one level deeper.
    return chain[0] if len(chain) == 1 else optax.chain(*chain)

"""Adafactor: second moments of matrices as products of row and column means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxformers.fields import PositiveFloat, PositiveInt, Rate
from jaxformers.sharding import path_text
from jaxformers.training.optim.optimizers import Optimizer


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor with momentum (Shazeer and Stern 2018, algorithms 4 and 5), as T5X computes it.

    With update n, gradient g of a matrix, its row means R and column means C of squares:

        d = 1 - n^-decay,  R = d R + (1 - d) rows(g^2 + eps),  C = d C + (1 - d) columns(g^2 + eps)
        u = g / sqrt(R C / mean(R)),  u = u / max(1, rms(u) / clip)
        m = b1 m + (1 - b1) rate max(rms(w), smallest_scale) u,  w = w - m

    Other parameters have a full second moment in place of R C / mean(R). A stack holds its layers
    in one array; each layer is a matrix of its own. A kernel of several axes counts as a matrix by
    the cut of its axes that makes the shorter side longest: [D, H, K] is D x (H K), as in T5X. The
    defaults are T5X's with the momentum of Unified-IO, which was trained with `T5Schedule` and
    `clip_norm=1.0`.
    """

    b1: Rate = 0.9
    """Momentum of the updates; 0: none, and no memory for it (T5)."""
    decay: PositiveFloat = 0.8
    """The second moments' decay at update n is 1 - n^-decay."""
    clip: PositiveFloat = 1.0
    """Root mean square that a matrix's update is scaled down to, before the learning rate."""
    scale_by_parameters: bool = True
    """Whether the learning rate is relative to the root mean square of each matrix."""
    smallest_scale: PositiveFloat = 1e-3
    """The least root mean square that a parameter counts with."""
    eps: PositiveFloat = 1e-30
    """Added to squared gradients."""
    shortest_factored: PositiveInt = 128
    """Shorter side from which a matrix's second moment is factored."""

    @property
    def memory(self) -> str:
        """Factored second moments, and the momentum where there is one."""
        momentum = " and the momentum" if self.b1 else ""
        return f"the factored second moments{momentum} of Adafactor"

    def build(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """Second moments, clipping, learning rate, momentum."""
        chain = [
            scale_by_factored_moments(self.decay, self.eps, self.shortest_factored),
            _map_layers(lambda u, _: u / jnp.maximum(1.0, _rms(u) / self.clip)),
            optax.scale_by_learning_rate(rate),
        ]
        if self.scale_by_parameters:
            chain.append(_map_layers(lambda u, w: u * jnp.maximum(_rms(w), self.smallest_scale)))
        if self.b1:
            chain.append(optax.ema(self.b1, debias=False))
        return optax.chain(*chain)


class FactoredMoments(NamedTuple):
    """Second moments: those of a factored matrix have axes of size 1 where means were taken."""

    count: jax.Array
    rows: Any
    """`[L, D, 1, 1]` for a stack of kernels [L, D, H, K]; without factoring the full moments."""
    columns: Any
    """`[L, 1, H, K]`; None without factoring."""


def scale_by_factored_moments(
    decay: float, eps: float, shortest_factored: int
) -> optax.GradientTransformation:
    """Divides gradients by the roots of their second moments; see `Adafactor`.

    Args:
        decay: of the second moments: 1 - n^-decay at update n.
        eps: added to squared gradients.
        shortest_factored: shorter side from which a matrix is factored.
    """

    def init(params: Any) -> FactoredMoments:
        def moments(path: Any, weights: jax.Array, side: int) -> jax.Array | None:
            axes = _matrix_axes(path, weights.shape, shortest_factored)
            if axes is None:
                return None if side else jnp.zeros_like(weights)
            return jnp.zeros_like(weights.mean(axes[1 - side], keepdims=True))

        rows, columns = (
            jax.tree_util.tree_map_with_path(lambda p, w, side=side: moments(p, w, side), params)
            for side in (0, 1)
        )
        return FactoredMoments(jnp.zeros((), jnp.int32), rows, columns)

    def update(grads: Any, state: FactoredMoments, params: Any = None):
        count = optax.safe_increment(state.count)
        beta = 1.0 - count.astype(jnp.float32) ** -decay

        def averages(path: Any, grad: jax.Array, old: jax.Array | None, side: int):
            if old is None:
                return None
            square = jnp.square(grad) + eps
            axes = _matrix_axes(path, grad.shape, shortest_factored)
            if axes is not None:
                square = square.mean(axes[1 - side], keepdims=True)
            return beta * old + (1.0 - beta) * square

        def scaled(path: Any, grad: jax.Array, rows: jax.Array, columns: jax.Array | None):
            if columns is None:
                return grad * rows**-0.5
            axes = _matrix_axes(path, grad.shape, shortest_factored)
            # Not (rows columns / mean)^-0.5: products of small squares underflow.
            relative = rows / rows.mean(axes[0], keepdims=True)
            return grad * relative**-0.5 * columns**-0.5

        tree_map = jax.tree_util.tree_map_with_path
        rows = tree_map(lambda *leaf: averages(*leaf, 0), grads, state.rows)
        columns = tree_map(lambda *leaf: averages(*leaf, 1), grads, state.columns)
        updates = tree_map(scaled, grads, rows, columns)
        return updates, FactoredMoments(count, rows, columns)

    return optax.GradientTransformation(init, update)


def _matrix_axes(
    path: Any, shape: tuple[int, ...], shortest: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Axes of the rows and of the columns of a parameter; None: it is not factored."""
    first = _first_axis(path)
    cuts = range(first + 1, len(shape))
    sides = [min(math.prod(shape[first:cut]), math.prod(shape[cut:])) for cut in cuts]
    if not sides or max(sides) < shortest:
        return None
    cut = cuts[sides.index(max(sides))]
    return tuple(range(first, cut)), tuple(range(cut, len(shape)))


def _first_axis(path: Any) -> int:
    """The first axis of a layer's parameter: a stack of L layers holds [L, ...]."""
    return 1 if "blocks" in path_text(path).split("/") else 0


def _map_layers(
    function: Callable[[jax.Array, jax.Array], jax.Array],
) -> optax.GradientTransformation:
    """Applies `function(update, weights)` to each parameter, and to each layer of a stack."""

    def mapped(path: Any, update: jax.Array, weights: jax.Array) -> jax.Array:
        return (jax.vmap(function) if _first_axis(path) else function)(update, weights)

    def update(updates: Any, state: optax.EmptyState, params: Any = None):
        return jax.tree_util.tree_map_with_path(mapped, updates, params), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.square(x).mean())

"""From attention to relevance of tokens: rollout and the two methods of Chefer et al. 2021.

Pure functions of arrays. Axis letters: n layers, H heads, T and S tokens; the axes between n and
H, such as batch, are any. A result's row t, column s says what token s gave to token t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError

Fusion = Literal["mean", "max", "min"]
_FUSE: dict[str, Callable[..., Array]] = {"mean": jnp.mean, "max": jnp.max, "min": jnp.min}


def rollout(
    probabilities: Float[Array, "n *batch H T T"],
    *,
    heads: Fusion = "mean",
    residual: float = 0.5,
    start_layer: int = 0,
) -> Float[Array, "*batch T T"]:
    """Attention rollout (Abnar and Zuidema 2020): the layers' mixing matrices multiplied.

    Args:
        probabilities: attention to itself, the first layer first.
        heads: how the heads of a layer become one.
        residual: the share that the residual connection carries.
        start_layer: the first layer that counts.
    """
    # A_l = residual I + (1 - residual) E_h A_lh, rows summing to 1; the rollout is A_n ... A_2 A_1.
    mixed = _FUSE[heads](from_layer(jnp.asarray(probabilities), start_layer), axis=-3)
    mixed = (1 - residual) * mixed + residual * _eye(mixed)
    return _chain(_rows_sum_to_one(mixed))


def attribution(
    relevance: Float[Array, "n *batch H T T"],
    gradients: Float[Array, "n *batch H T T"],
    *,
    start_layer: int = 0,
    normalized: bool = False,
) -> Float[Array, "*batch T T"]:
    """Transformer attribution (Chefer et al., CVPR 2021, equations 13 and 14).

    Args:
        relevance: what each probability passed on to the score, by propagation.
        gradients: the score's, by each probability.
        start_layer: the first layer that counts. The authors' pictures of ViT begin at the
            second or the first, their text explanations at the last.
        normalized: whether each layer's rows are divided by their sums, as for their text.
    """
    # Equations 13 and 14: A_l = I + E_h (grad A_lh * R_lh)+; C = A_n ... A_2 A_1.
    layers = from_layer(_positive(gradients, relevance), start_layer)
    layers = layers + _eye(layers)
    return _chain(_rows_sum_to_one(layers) if normalized else layers)


def generic(
    probabilities: Float[Array, "n *batch H T T"],
    gradients: Float[Array, "n *batch H T T"],
    *,
    start_layer: int = 0,
) -> Float[Array, "*batch T T"]:
    """Generic attention relevance of an encoder (Chefer et al., ICCV 2021, equations 5 and 6).

    Args:
        probabilities: attention to itself, the first layer first.
        gradients: the score's, by each probability.
        start_layer: the first layer that counts.
    """
    # Equation 6 by layer, R <- R + A R with A = E_h (grad A_h * A_h)+, is a product of I + A.
    layers = from_layer(_positive(gradients, probabilities), start_layer)
    return _chain(layers + _eye(layers))


def generic_translation(
    encoder: tuple[Array, Array], decoder: tuple[Array, Array], cross: tuple[Array, Array]
) -> tuple[Float[Array, "*batch T S"], Float[Array, "*batch T T"]]:
    """Generic attention relevance of an encoder-decoder (ICCV 2021, equations 5 to 10).

    Args:
        encoder: probabilities and gradients, `[n, ..., H, S, S]` each.
        decoder: those of the decoder's attention to itself, `[n, ..., H, T, T]`.
        cross: those of its attention to the encoder's output, `[n, ..., H, T, S]`.

    Returns what each source token, and what each decoder input, gave to each decoder token.
    """
    source = generic(*encoder)
    own_layers, cross_layers = _positive(*decoder), _positive(*cross)
    own = _eye(own_layers[0])
    across = jnp.zeros_like(cross_layers[0])
    # Equations 6 and 7 for self-attention, 8 to 10 for attention to the encoder's output.
    for to_self, to_source in zip(own_layers, cross_layers, strict=True):
        own, across = own + _dot(to_self, own), across + _dot(to_self, across)
        shared = _dot(jnp.swapaxes(_residual_apart(own), -1, -2), to_source)
        across = across + _dot(shared, _residual_apart(source))
    return across, own


def from_layer(layers: Float[Array, "n *rest"], start: int) -> Float[Array, "m *rest"]:
    """The layers from number `start` on.

    Raises:
        ConfigError: there is no such layer.
    """
    if start not in range(len(layers)):
        raise ConfigError(
            f"start_layer is {start!r}: the model has {len(layers)} layers, the first of them 0"
        )
    return layers[int(start) :]


def _positive(a: Array, b: Array) -> Array:
    """The mean over heads of what is positive of a product (equation 5)."""
    return jnp.maximum(a * b, 0).mean(-3)


def _residual_apart(r: Array) -> Array:
    """(R - I) with rows that sum to 1, and I again (equations 8 and 9); a row of zeros stays."""
    attended = r - _eye(r)
    total = attended.sum(-1, keepdims=True)
    return jnp.where(total == 0, 0.0, attended / jnp.where(total == 0, 1.0, total)) + _eye(r)


def _chain(layers: Array) -> Array:
    """The matrices' product, later layers on the left."""
    out = layers[0]
    for layer in layers[1:]:
        out = _dot(layer, out)
    return out


def _rows_sum_to_one(x: Array) -> Array:
    return x / x.sum(-1, keepdims=True)


def _eye(like: Array) -> Array:
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")

"""Mixtures of images and of their labels, and the losses against them."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array

Objective = Literal["softmax", "sigmoid"]
Batch = dict[str, Any]
PARTNERS = "partners"  # names what moves whole rows between devices, for checks


def mixed(batch: Batch, key: jax.Array, mixup: float, cutmix: float) -> Batch:
    """Each image mixed with the one at the other end of the batch, in one proportion for all.

    Mixup (Zhang et al. 2017) averages them; cutmix (Yun et al. 2019) pastes a rectangle. Where both
    are asked for, a batch takes either with equal chance. Adds `partners`, the labels mixed in
    in the shape of `labels`, and `shares` float32 [B], how much of each image is its own.

    Args:
        batch: `images` float32 `[B, H, W, C]` and `labels` int32 [B], or 0 and 1 [B, N].
        key: random.
        mixup: both parameters of the Beta distribution that the proportion is drawn from; 0: no
            mixup.
        cutmix: the same for cutmix.
    """
    images, labels = batch["images"], batch["labels"]  # labels [B] or [B, N]
    with jax.named_scope(PARTNERS):
        partner_images, partners = images[::-1], labels[::-1]
    which, proportion, rectangle_key = jax.random.split(key, 3)
    pasted = jax.random.bernoulli(which, 0.5 if mixup and cutmix else float(bool(cutmix)))
    alpha = jnp.where(pasted, cutmix or 1.0, mixup or 1.0)
    share = jax.random.beta(proportion, alpha, alpha)
    inside = _rectangle(images.shape[1:3], 1.0 - share, rectangle_key)
    averaged = jnp.full_like(inside, share)
    keep = jnp.where(pasted, 1.0 - inside, averaged)[None, :, :, None]
    rows = jnp.full(labels.shape[:1], keep.mean(), jnp.float32)
    images = keep * images + (1.0 - keep) * partner_images
    return {**batch, "images": images, "partners": partners, "shares": rows}


def _rectangle(size: tuple[int, int], area: jax.Array, key: jax.Array) -> Float[Array, "H W"]:
    """1 inside a rectangle of this share of the image, cut off where it sticks out."""
    edges = []
    for side, axis_key in zip(size, jax.random.split(key), strict=True):
        middle = jax.random.randint(axis_key, (), 0, side)
        half = (side * jnp.sqrt(area)).astype(jnp.int32) // 2
        at = jnp.arange(side)
        edges.append(((at >= middle - half) & (at < middle + half)).astype(jnp.float32))
    return edges[0][:, None] * edges[1][None]


def image_loss(
    logits: Float[Array, "B N"],
    labels: Int[Array, "B"] | Int[Array, "B N"],
    *,
    objective: Objective = "softmax",
    smoothing: float = 0.0,
    partners: Int[Array, "B"] | Int[Array, "B N"] | None = None,
    shares: Float[Array, "B"] | None = None,
) -> Float[Array, "B"]:
    """The loss of each image; of single labels without a target as wide as the classes.

    The target holds `shares` on the label, the remainder on the partner's, both times
    1 - smoothing, and smoothing / N more on every class (Szegedy et al. 2015, section 7).

    Args:
        logits: float32.
        labels: the class of each image, or 0 and 1 for each class of images with any number of
            labels, which need the sigmoid objective.
        objective: cross-entropy over softmax, or the sum of the classes' binary cross-entropies
            (how big_vision pre-trains on many classes).
        smoothing: mass spread over all classes.
        partners: labels of what is mixed in; None: nothing is.
        shares: how much of each image is its own.
    """
    picked = _at(logits, labels)
    if partners is not None:
        picked = shares * picked + (1.0 - shares) * _at(logits, partners)
    aimed = (1.0 - smoothing) * picked
    if smoothing:
        aimed = aimed + smoothing * logits.mean(-1)
    if objective == "sigmoid":
        return jax.nn.softplus(logits).sum(-1) - aimed
    return jax.nn.logsumexp(logits, axis=-1) - aimed


def _at(logits: Float[Array, "B N"], labels: Array) -> Float[Array, "B"]:
    """The logit of each image's label, or the sum of those of its labels."""
    if labels.ndim == 2:
        return (logits * labels.astype(logits.dtype)).sum(-1)
    return jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]

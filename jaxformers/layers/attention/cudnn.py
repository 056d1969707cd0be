"""Attention by cuDNN's fused kernel on GPU, through `jax.nn.dot_product_attention`.

The kernel writes no scores to memory; a mask is written out, as [B, 1, T, S]. Here it was lowered
for CUDA and compared with plain attention through JAX's own stand-in, but never run on a GPU: it
is taken only where it is asked for.

Axis letters: B batch, T queries, S keys, H heads, K width of a head.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers.attention.masks import Mask
from jaxformers.layers.attention.splash import seeing_something
from jaxformers.sharding import activation_spec

Implementation = Literal["cudnn", "xla"]


def cudnn_attention(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H S K"],
    v: Float[Array, "B H S K"],
    mask: Mask | None = None,
    *,
    implementation: Implementation = "cudnn",
) -> Float[Array, "B H T K"]:
    """softmax(q k^T) v, as plain attention gives it; the queries come already scaled.

    On a mesh every device runs the kernel on its share of the batch and the heads.

    Args:
        q, k, v: queries, keys and values, bfloat16 for the kernel.
        mask: any.
        implementation: of `jax.nn.dot_product_attention`; `xla` computes the same everywhere.
    """
    lengths = q.shape[2], k.shape[2]
    allowed = None if mask is None else mask.array(*lengths)
    if allowed is not None:  # the kernel spreads a mask over examples and heads alone
        allowed = jnp.broadcast_to(allowed, (*allowed.shape[:2], *lengths))
    run = partial(_kernel, implementation=implementation)
    if not jax.sharding.get_abstract_mesh().empty:
        heads = activation_spec(q.shape, "batch", "heads", "length", "head_width")
        # XLA does not see along which axes the kernel's outputs vary, so that is not checked.
        run = jax.shard_map(
            run,
            in_specs=(heads, heads, heads, _mask_spec(allowed)),
            out_specs=heads,
            check_vma=False,
        )
    mixed = run(q, k, v, allowed)
    return mixed if mask is None else seeing_something(mixed, v, mask)


def _kernel(q, k, v, allowed, *, implementation: Implementation):
    """The kernel, which reads and returns `[B, T, H, K]`, between two changes of axes."""
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    mixed = jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=allowed,
        scale=1.0,
        implementation=implementation,
    )
    return mixed.swapaxes(1, 2)


def _mask_spec(allowed: Array | None) -> jax.sharding.PartitionSpec | None:
    """A mask's share goes with its examples and heads, where it is not the same for all."""
    if allowed is None:
        return None
    examples, heads = (n > 1 for n in allowed.shape[:2])
    names = "batch" if examples else None, "heads" if heads else None
    return activation_spec(allowed.shape, *names, None, None)

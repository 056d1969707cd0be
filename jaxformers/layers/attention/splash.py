"""Splash attention: JAX's Pallas kernel for TPU, which never writes the scores to memory.

Axis letters: B batch, T queries, S keys, H heads, K width of a head.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers.attention.masks import Mask
from jaxformers.sharding import activation_spec

LANES = 128  # the width of a TPU register, which blocks are multiples of
BLOCK = 512  # at most
HIDDEN = int(np.iinfo(np.int32).min)  # the segment id of keys that no query attends to


def splash_attention(
    q: Float[Array, "B H T K"],
    k: Float[Array, "B H S K"],
    v: Float[Array, "B H S K"],
    mask: Mask | None = None,
    *,
    interpret: bool = False,
) -> Float[Array, "B H T K"]:
    """softmax(q k^T) v, as plain attention gives it; the queries come already scaled.

    On a mesh every device runs the kernel on its share of the batch and the heads. Lengths are
    padded to the kernel's blocks.

    Args:
        q, k, v: queries, keys and values.
        mask: any but a dense one; a causal one needs T = S.
        interpret: run in the Pallas interpreter, on any platform.
    """
    batch, queries, keys = q.shape[0], q.shape[2], k.shape[2]
    mask = Mask() if mask is None else mask
    run = partial(_kernel, causal=mask.causal, interpret=interpret)
    ids = _segments(mask, batch, queries, keys)
    if not jax.sharding.get_abstract_mesh().empty:
        heads = activation_spec(q.shape, "batch", "heads", "length", "head_width")
        rows = activation_spec((batch, keys), "batch", "length")
        # The kernel does not say along which axes its outputs vary, so that is not checked.
        run = jax.shard_map(
            run, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False
        )
    # [B, H, T', K] with T' a multiple of the block; the padded queries' rows are cut off again.
    mixed = run(_padded(q, 2), _padded(k, 2), _padded(v, 2), ids)[:, :, :queries]
    return mixed if ids is None else seeing_something(mixed, v, mask)


def _kernel(q, k, v, ids, *, causal: bool, interpret: bool):
    """Runs the kernel over lengths padded to whole blocks."""
    (_, heads, queries, _), keys = q.shape, k.shape[2]
    kind = splash.CausalMask if causal else splash.FullMask
    rows, columns = _block(queries), _block(keys)
    sizes = splash.BlockSizes(
        block_q=rows,
        block_kv=columns,
        block_q_dkv=rows,
        block_kv_dkv=columns,
        block_q_dq=rows,
        block_kv_dq=columns,
    )
    # The mask is static and by block: what is hidden as a whole is never computed.
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([kind((queries, keys))] * heads),
        block_sizes=sizes,
        interpret=interpret,
    )
    # The kernel takes one example, [H, T, K]; vmap adds the batch.
    return jax.vmap(kernel)(q, k, v, None if ids is None else splash.SegmentIds(*ids))


def _segments(mask: Mask, batch: int, queries: int, keys: int) -> tuple[Array, Array] | None:
    """Segment ids of padded queries and keys, which attend where equal; None: everywhere."""
    unmasked = mask.keys is None and mask.query_segments is None
    # A causal mask hides the padding, which comes after every query.
    if unmasked and (mask.causal or keys % _block(keys) == 0):
        return None
    query_ids = jnp.zeros((batch, queries), jnp.int32)
    key_ids = jnp.zeros((batch, keys), jnp.int32)
    if mask.query_segments is not None:
        query_ids += jnp.asarray(mask.query_segments, jnp.int32)
        key_ids += jnp.asarray(mask.key_segments, jnp.int32)
    if mask.keys is not None:
        # No query has this id, so that hidden keys are seen by none.
        key_ids = jnp.where(mask.keys.astype(bool), key_ids, HIDDEN)
    return _padded(query_ids, 1), _padded(key_ids, 1, HIDDEN)


def seeing_something(mixed: Array, v: Array, mask: Mask) -> Array:
    """`mixed`, but the mean of all values for a query that may see no key, as in plain attention.

    Splash attention would count its padding in, and lose the rows' gradients to rounding; cuDNN,
    which adds a mask to the scores, would give those scores gradients.
    """
    allowed = mask.array(mixed.shape[2], v.shape[2])
    if allowed is None:
        return mixed
    mean = v.mean(axis=2, keepdims=True, dtype=jnp.float32).astype(mixed.dtype)
    return jnp.where(jnp.any(allowed, -1, keepdims=True), mixed, mean)


def _block(length: int) -> int:
    """The block size that covers a length with the fewest blocks and the least padding."""
    # E.g. length 600: 2 blocks of 384 cover 768 positions, 2 of 512 would cover 1,024.
    num_blocks = -(-length // BLOCK)
    return LANES * -(-length // (num_blocks * LANES))


def _padded(x: Array, axis: int, value: int = 0) -> Array:
    """x padded along `axis` to whole blocks."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % _block(x.shape[axis]))
    return jnp.pad(x, widths, constant_values=value)

"""Keeps XLA for CPU from computing a value again in each of its uses."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxformers.arrays import Array
from jaxformers.layers.cpu.switch import uses_cpu_forms


def computed_once(x: Array, platform: str) -> Array:
    """x unchanged; on CPU, computed once and kept instead of fused into each of its uses.

    XLA for CPU would fuse a sum with many uses, such as a residual stream, into each of them,
    together with all sums before it: work that grows with the square of the depth. It never
    duplicates a division, so x is divided by a 1 that XLA cannot see to be 1.
    """
    if not uses_cpu_forms(platform) or x.dtype != jnp.float32 or not x.size:
        return x
    return x / opaque_one(x)


def opaque_one(x: Array) -> Array:
    """1.0 in x's type, computed from the bits of x so that XLA cannot fold it into a constant."""
    on_mesh = jax.sharding.get_abstract_mesh().size > 1
    # One element would do, but devices that share x would have to send it to each other.
    seed = jax.lax.stop_gradient(x if on_mesh else x[(0,) * x.ndim])
    bits = jax.lax.bitcast_convert_type(seed, jnp.int32)
    # n (n + 1) is even for every integer n, with overflow too: its last bit is 0.
    return (1 + ((bits * (bits + 1)) & 1)).astype(x.dtype)

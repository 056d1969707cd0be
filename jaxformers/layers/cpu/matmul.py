"""Products over several dimensions as products of two matrices."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxformers.arrays import Array


def matmul(x: Array, kernel: Array, num_inputs: int, dtype: jnp.dtype | None = None) -> Array:
    """x `[..., *inputs]` times a kernel `[*inputs, *outputs]`: `[..., *outputs]`, of type `dtype`.

    The gradient of a kernel sums over all of x's leading dimensions, and for a sum over several
    dimensions XLA for CPU makes transposed copies of both factors. Of two matrices it makes none.
    """
    leading, outputs = x.shape[: x.ndim - num_inputs], kernel.shape[num_inputs:]
    width = math.prod(kernel.shape[:num_inputs])
    x, kernel = x.reshape(-1, width), kernel.reshape(width, -1)  # [N, I], [I, O]
    return jax.lax.dot(x, kernel, preferred_element_type=dtype).reshape(*leading, *outputs)

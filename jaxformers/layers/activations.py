"""Activations of the published models."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from jaxformers.arrays import Array

Activation = Literal["relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh"]


def activate(x: Array, kind: Activation) -> Array:
    """One of the activations of the published models; `gelu` is exact, `gelu_tanh` its estimate."""
    match kind:
        case "relu":
            return jax.nn.relu(x)
        case "gelu":
            return _exact_gelu(x)
        case "gelu_tanh":
            return jax.nn.gelu(x, approximate=True)
        case "quick_gelu":
            return x * jax.nn.sigmoid(1.702 * x)
        case "silu":
            return jax.nn.silu(x)
        case "tanh":
            return jnp.tanh(x)
    raise ValueError(f"no activation named {kind!r}")


def _exact_gelu(x: Array) -> Array:
    # XLA's erfc, which JAX's own takes for the tails, costs more on CPU than erf. What erf loses
    # there is as small as in PyTorch's in float32, but large in a narrower type.
    if x.dtype != jnp.float32:
        return jax.nn.gelu(x, approximate=False)
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))

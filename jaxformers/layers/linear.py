"""Linear maps and their initialisers."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError
from jaxformers.fields import NonNegativeFloat
from jaxformers.layers import cpu
from jaxformers.sharding import constrain

Init = (
    Literal["xavier", "xavier_qkv", "lecun", "fan_in_uniform", "truncated_normal", "probe", "zeros"]
    | NonNegativeFloat
)
BiasInit = Literal["zeros", "fan_in_uniform"]


def initializer(init: Init, inputs: int):
    """Initialiser of a kernel whose first `inputs` dimensions are summed over.

    `xavier`: Glorot and Bengio 2010, uniform. `lecun`: a cut normal of variance 1 / inputs, Flax's
    default. `truncated_normal`: N(0, 0.02) cut at two standard deviations and, as TensorFlow does,
    not rescaled for the cut (BERT). `probe`: N(0, 0.01), the head of MAE's linear probe, whose LARS
    scales a rate by the size of the weights. `zeros`: heads of ViT and BiT in fine-tuning.
    `fan_in_uniform`: uniform within inputs^-0.5, PyTorch's default of linear layers and
    convolutions. `xavier_qkv`: Xavier over query, key and value as one matrix, PyTorch's default in
    attention. A number: N(0, that number).

    Raises:
        ConfigError: an unknown name.
    """
    if isinstance(init, float):
        return nn.initializers.normal(init)
    if init == "probe":
        return nn.initializers.normal(0.01)
    if init == "truncated_normal":
        return _truncated_normal
    if init == "zeros":
        return nn.initializers.zeros
    if init == "lecun":
        # 0.8796 is what cutting at two standard deviations leaves of the deviation.
        return lambda key, shape, dtype=jnp.float32: _truncated_normal(
            key, shape, dtype, math.prod(shape[:inputs]) ** -0.5 / 0.87962566
        )

    if init not in ("xavier", "xavier_qkv", "fan_in_uniform"):
        raise ConfigError(f"no initialiser named {init!r}")

    def uniform(key, shape, dtype=jnp.float32):
        # Attention's kernels are [D, H, K]: fans count the products over all their dimensions.
        fan_in, fan_out = math.prod(shape[:inputs]), math.prod(shape[inputs:])
        limits = {
            "xavier": math.sqrt(6.0 / (fan_in + fan_out)),
            "xavier_qkv": math.sqrt(6.0 / (fan_in + 3 * fan_out)),
            "fan_in_uniform": fan_in**-0.5,
        }
        return jax.random.uniform(key, shape, dtype, -limits[init], limits[init])

    return uniform


def _truncated_normal(key, shape, dtype=jnp.float32, std=0.02):
    return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


def multiply(
    x: Array,
    kernel: Array,
    num_inputs: int,
    platform: str | None,
    dtype: jnp.dtype | None = None,
) -> Array:
    """x `[..., *inputs]` times a kernel `[*inputs, *outputs]`: `[..., *outputs]`.

    Args:
        num_inputs: number of dimensions that are summed over.
        platform: platform compiled for; None: any.
        dtype: type of the output; None: that of the factors.
    """
    # The CPU form merges dimensions, which a mesh may have sharded.
    if cpu.uses_cpu_forms(platform) and jax.sharding.get_abstract_mesh().size <= 1:
        return cpu.matmul(x, kernel, num_inputs, dtype)
    summed = tuple(range(x.ndim - num_inputs, x.ndim)), tuple(range(num_inputs))
    return jax.lax.dot_general(x, kernel, (summed, ((), ())), preferred_element_type=dtype)


class Linear(nn.Module):
    """`y = x W + b` over the last `len(inputs)` dimensions of x.

    Kernel `[*inputs, *outputs]`, bias `[*outputs]`, both stored float32, computed in `dtype`.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    use_bias: bool = True
    kernel_init: Init = "xavier"
    dtype: jnp.dtype = jnp.dtype("float32")
    gathered: bool = False
    """Gather the kernel before the product, which XLA may otherwise shard along idle mesh axes."""
    bias_start: float = 0.0
    """Initial value of the bias."""
    bias_init: BiasInit = "zeros"
    """`fan_in_uniform`: PyTorch's default, in place of `bias_start`."""
    platform: str | None = None
    """Platform compiled for, which decides between the forms of `multiply`; None: any."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `[..., *inputs]` to `[..., *outputs]`."""
        shape = (*self.inputs, *self.outputs)
        kernel = self.param("kernel", initializer(self.kernel_init, len(self.inputs)), shape)
        if self.gathered:
            kernel = constrain(kernel, *(None,) * kernel.ndim)
        # Stored float32, cast for the product: the optimizer updates float32 parameters.
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = multiply(x, kernel, len(self.inputs), self.platform)
        if self.use_bias:
            start = nn.initializers.constant(self.bias_start)
            if self.bias_init == "fan_in_uniform":
                limit = math.prod(self.inputs) ** -0.5
                start = partial(jax.random.uniform, minval=-limit, maxval=limit)
            bias = self.param("bias", start, self.outputs).astype(self.dtype)
            y = y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
        return y

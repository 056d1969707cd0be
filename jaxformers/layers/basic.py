"""Linear maps, norms, dropout and activations: the smallest parts, each in a few lines.

Axis letters: B batch, L length, D model width, H heads, K width of a head, F feed-forward width.
"""

from __future__ import annotations

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.sharding import constrain

Activation = Literal["relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh"]
Init = Literal["xavier", "lecun", "truncated_normal", "probe", "zeros"]


def computed_once(x: Array, platform: str) -> Array:
    """x, which XLA for CPU then computes once and keeps.

    A sum with many uses, such as a residual stream, it would fuse into each of them, with all the
    sums before it: work that grows with the square of the depth. It repeats no division; the
    divisor is 1, which XLA cannot know.
    """
    if platform != "cpu" or x.dtype != jnp.float32 or not x.size:
        return x
    on_mesh = jax.sharding.get_abstract_mesh().size > 1
    # One number costs no memory to speak of, but devices that share x would have to send it.
    seed = jax.lax.stop_gradient(x if on_mesh else x[(0,) * x.ndim])
    bits = jax.lax.bitcast_convert_type(seed, jnp.int32)
    return x / (1 + ((bits * (bits + 1)) & 1)).astype(x.dtype)


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


def initializer(init: Init, inputs: int):
    """Initialiser of a kernel whose first `inputs` dimensions are summed over.

    `xavier`: Glorot and Bengio 2010, uniform. `lecun`: a cut normal of variance 1 / inputs, Flax's
    default. `truncated_normal`: N(0, 0.02) cut at two standard deviations and, as TensorFlow does,
    not rescaled for the cut (BERT). `probe`: N(0, 0.01), the head of MAE's linear probe, whose LARS
    scales a rate by the size of the weights. `zeros`: heads of ViT and BiT in fine-tuning.
    """
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

    def xavier(key, shape, dtype=jnp.float32):
        fan_in, fan_out = math.prod(shape[:inputs]), math.prod(shape[inputs:])
        limit = math.sqrt(6.0 / (fan_in + fan_out))
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return xavier


def _truncated_normal(key, shape, dtype=jnp.float32, std=0.02):
    return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


def multiply(
    x: Array, kernel: Array, inputs: int, platform: str | None, dtype: jnp.dtype | None = None
) -> Array:
    """x `[..., *inputs]` times a kernel `[*inputs, *outputs]`: `[..., *outputs]`, of type `dtype`.

    On CPU it is a product of two matrices, unless a mesh may cut the dimensions that this merges:
    where a product sums over several, as the gradient of a kernel does, XLA for CPU makes
    transposed copies of both its factors.
    """
    around, outputs = x.shape[: x.ndim - inputs], kernel.shape[inputs:]
    if platform != "cpu" or jax.sharding.get_abstract_mesh().size > 1:
        summed = tuple(range(len(around), x.ndim)), tuple(range(inputs))
        return jax.lax.dot_general(x, kernel, (summed, ((), ())), preferred_element_type=dtype)
    width = math.prod(kernel.shape[:inputs])
    x, kernel = x.reshape(-1, width), kernel.reshape(width, -1)
    return jax.lax.dot(x, kernel, preferred_element_type=dtype).reshape(*around, *outputs)


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
    """Whether the kernel is whole in the product, which XLA would else cut along idle mesh axes."""
    bias_start: float = 0.0
    """What the bias starts at."""
    platform: str | None = None
    """Platform compiled for, by which `multiply` goes its way; None: any."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `[..., *inputs]` to `[..., *outputs]`."""
        shape = (*self.inputs, *self.outputs)
        kernel = self.param("kernel", initializer(self.kernel_init, len(self.inputs)), shape)
        if self.gathered:
            kernel = constrain(kernel, *(None,) * kernel.ndim)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = multiply(x, kernel, len(self.inputs), self.platform)
        if self.use_bias:
            start = nn.initializers.constant(self.bias_start)
            bias = self.param("bias", start, self.outputs).astype(self.dtype)
            y = y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
        return y


class Norm(nn.Module):
    """Layer norm (Ba et al. 2016) or RMS norm (Zhang and Sennrich 2019) over the last dimension.

    Computed in float32 with the two-pass variance whatever the input's type, and cast back to it.
    """

    kind: Literal["layer", "rms"] = "layer"
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Normalises each vector, scales it, and for layer norm shifts it."""
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width)
        wide = (1,) * (x.ndim - 1) + width
        y = x.astype(jnp.float32)
        if self.kind == "layer":
            y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        y = y * scale.reshape(wide)
        if self.kind == "layer":
            y = y + self.param("bias", nn.initializers.zeros, width).reshape(wide)
        return y.astype(x.dtype)


def dropout(x: Array, rate: float, key: jax.Array) -> Array:
    """Zeroes entries with probability `rate` (to 1/65536) and scales the rest to keep the mean.

    Two 16-bit draws come from each 32-bit word: half the random bits of a Bernoulli draw.
    """
    keep = round((1.0 - rate) * 65536)
    if keep <= 0:
        return jnp.zeros_like(x)
    last = x.shape[-1]
    words = jax.random.bits(key, (*x.shape[:-1], -(-last // 2)), jnp.uint32)
    halves = jnp.stack([words & 0xFFFF, words >> 16], axis=-1)
    draws = halves.reshape(*x.shape[:-1], -1)[..., :last]
    scaled = x * jnp.asarray(65536 / keep, x.dtype)
    return jnp.where(draws < min(keep, 65535), scaled, jnp.zeros((), x.dtype))


class Dropout(nn.Module):
    """`dropout` with the module's own random stream; nothing when not training or at rate 0."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """Same shape and type as x."""
        if not train or self.rate == 0.0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))


def drop_path(x: Array, rate: Array | float, key: jax.Array) -> Array:
    """Stochastic depth (Huang et al. 2016): each example's x is dropped whole, or scaled up.

    `rate` may be traced, so that each layer of a scanned stack has its own.
    """
    keep = jax.random.uniform(key, (x.shape[0],) + (1,) * (x.ndim - 1)) >= rate
    scale = jnp.asarray(1.0 / (1.0 - rate), x.dtype)
    return jnp.where(keep, x * scale.reshape((1,) * x.ndim), jnp.zeros((), x.dtype))

"""Convolutions and pooling.

Images are `[B, H, W, C]`. PyTorch pads symmetrically (`padding` a number of pixels), TensorFlow as
little as its "SAME" needs, which on even sizes is one pixel more behind than before: the two give
different outputs, so every layer states which it means. Axis letters: B batch, H height, W width,
C channels in, D channels out.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.fields import NonNegativeFloat
from jaxformers.layers import cpu
from jaxformers.layers.execution import Execution
from jaxformers.layers.linear import BiasInit, initializer, multiply
from jaxformers.sharding import constrain

Padding = int | Literal["SAME"]
Standardisation = Literal["none", "variance", "deviation"]
Images = Float[Array, "B H W C"]
FLOAT32 = Execution()


KernelInit = Literal["he_normal", "fan_in_uniform"] | NonNegativeFloat


def he_normal(key, shape, dtype=jnp.float32):
    """N(0, 2 / (h w D)) for a kernel `[h, w, C, D]` (He et al. 2015, by outputs)."""
    return math.sqrt(2.0 / (shape[0] * shape[1] * shape[3])) * jax.random.normal(key, shape, dtype)


def pads(sizes: tuple[int, ...], window: int, stride: int, padding: Padding) -> tuple:
    """Pixels before and behind, for each of the spatial `sizes`."""
    if padding != "SAME":
        return ((padding, padding),) * len(sizes)
    totals = [max((-(-n // stride) - 1) * stride + window - n, 0) for n in sizes]
    return tuple((total // 2, total - total // 2) for total in totals)


def convolve(
    x: Images,
    kernel: Array,
    stride: int = 1,
    padding: Padding = "SAME",
    execution: Execution = FLOAT32,
) -> Array:
    """`x [B, H, W, C]` with a kernel `[h, w, C, D]`: `[B, h, w, D]`, of the same type."""
    around = pads(x.shape[1:3], kernel.shape[0], stride, padding)
    if kernel.shape[:2] == (1, 1) and around == ((0, 0), (0, 0)):
        # One pixel: a matrix product over the channels.
        return multiply(x[:, ::stride, ::stride], kernel[0, 0], 1, execution.platform)
    if x.shape[-1] >= cpu.LEAST_CHANNELS and cpu.uses_cpu_forms(execution.platform):
        return cpu.convolve(x, kernel, stride, around)
    axes, (x, kernel) = ("NHWC", "HWIO", "NHWC"), map(jnp.asarray, (x, kernel))
    return lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=axes)


def standardised(kernel: Array, kind: Standardisation, epsilon: float) -> Array:
    """Each output channel's weights brought to mean 0 and variance 1 (Qiao et al. 2019).

    `variance` divides by sqrt(var + epsilon) (BiT), `deviation` by sqrt(var) + epsilon (the hybrid
    Vision Transformers); var is the mean squared deviation.
    """
    if kind == "none":
        return kernel
    centred = kernel - kernel.mean((0, 1, 2), keepdims=True)
    variance = jnp.square(centred).mean((0, 1, 2), keepdims=True)
    if kind == "variance":
        return centred * lax.rsqrt(variance + epsilon)
    return centred / (jnp.sqrt(variance) + epsilon)


class Conv(nn.Module):
    """A square convolution: kernel `[size, size, inputs, outputs]` float32."""

    inputs: int
    outputs: int
    size: int = 3
    stride: int = 1
    padding: Padding = "SAME"
    use_bias: bool = False
    standardisation: Standardisation = "none"
    """Whether, and how, the weights are standardised before they are used."""
    epsilon: float = 1e-5
    """Of the standardisation."""
    kernel_init: KernelInit = "he_normal"
    """`fan_in_uniform`: PyTorch's default, uniform within (h w C)^-0.5. A number: N(0, that
    number)."""
    bias_init: BiasInit = "zeros"
    """`fan_in_uniform`: PyTorch's default, as for the kernel."""
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Maps `[B, H, W, inputs]` to `[B, h, w, outputs]`."""
        dtype = self.execution.compute_dtype
        shape = (self.size, self.size, self.inputs, self.outputs)
        init = he_normal if self.kernel_init == "he_normal" else initializer(self.kernel_init, 3)
        kernel = self.param("kernel", init, shape)
        kernel = standardised(kernel, self.standardisation, self.epsilon).astype(dtype)
        # Whole in the product, which XLA would else cut along idle mesh axes.
        kernel = constrain(kernel, None, None, None, None)
        y = convolve(x.astype(dtype), kernel, self.stride, self.padding, self.execution)
        if self.use_bias:
            bias = self.param("bias", self._bias_initializer(), (self.outputs,))
            y = y + bias.astype(dtype).reshape(1, 1, 1, -1)
        return constrain(y, "batch", None, None, None)

    def _bias_initializer(self):
        if self.bias_init == "zeros":
            return nn.initializers.zeros
        limit = (self.size * self.size * self.inputs) ** -0.5
        return partial(jax.random.uniform, minval=-limit, maxval=limit)


def max_pool(
    x: Images, window: int, stride: int, padding: Padding = 0, fill: float = -math.inf
) -> Array:
    """The greatest of each window `[window, window]`; the edge is padded with `fill`.

    PyTorch and TensorFlow pad with minus infinity, which never wins; BiT pads with 0, which does
    where all pixels are negative.
    """
    around = pads(x.shape[1:3], window, stride, padding)
    x = jnp.pad(x, ((0, 0), *around, (0, 0)), constant_values=fill)
    return _greatest(_greatest(x, 1, window, stride), 2, window, stride)


def average_pool(x: Images, window: int) -> Array:
    """The mean of each window `[window, window]`; those cut by the edge average what they hold.

    As PyTorch's `AvgPool2d(ceil_mode=True, count_include_pad=False)`.
    """
    batch, height, width, channels = x.shape
    rows, columns = -(-height // window), -(-width // window)
    beyond = (0, rows * window - height), (0, columns * window - width)
    padded = jnp.pad(x.astype(jnp.float32), ((0, 0), *beyond, (0, 0)))
    sums = padded.reshape(batch, rows, window, columns, window, channels).sum((2, 4))
    # Pixels in each window, [rows, 1] times [columns]: whole but at the far edges.
    sizes = [np.minimum(window, n - window * np.arange(-(-n // window))) for n in (height, width)]
    counts = np.outer(*sizes).astype(np.float32)[None, :, :, None]
    return (sums / counts).astype(x.dtype)


def _greatest(x: Array, axis: int, window: int, stride: int) -> Array:
    """Over windows of one axis: slices compared, whose gradient is fast on every platform."""
    stop = x.shape[axis] - window + 1
    shifted = (lax.slice_in_dim(x, i, i + stop, stride, axis) for i in range(window))
    greatest = next(shifted)
    for window_slice in shifted:
        greatest = jnp.maximum(greatest, window_slice)
    return greatest


def sown(module: nn.Module, x: Array) -> Array:
    """x, which is sown as the module's `output` when the collection `blocks` is mutable."""
    if module.is_mutable_collection("blocks") and not module.is_initializing():
        module.sow("blocks", "output", x, reduce_fn=lambda _, new: new, init_fn=lambda: None)
    return x

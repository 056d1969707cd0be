"""Convolutions, pooling, and the norms that stand between them.

Images are `[B, H, W, C]`. PyTorch pads symmetrically (`padding` a number of pixels), TensorFlow as
little as its "SAME" needs, which on even sizes is one pixel more behind than before: the two give
different outputs, so every layer states which it means. Axis letters: B batch, H height, W width,
C channels in, D channels out.
"""

from __future__ import annotations

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers import winograd
from jaxformers.layers.basic import computed_once
from jaxformers.layers.execution import Execution
from jaxformers.sharding import constrain

Padding = int | Literal["SAME"]
Standardisation = Literal["none", "variance", "deviation"]
Images = Float[Array, "B H W C"]
FLOAT32 = Execution()


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
    """`x [B, H, W, C]` with a kernel `[h, w, C, D]`, of the same type.

    A kernel of one pixel is a matrix product. On CPUs, where XLA's convolutions reach a fraction of
    a product's speed, the kernel's gradient always is one, and where no gradient is asked for,
    kernels of 3 x 3 go Winograd's way; in training they go to the faster of XLA's two libraries.
    The derivatives written for that go backwards only: `jax.jvp`, `jax.hessian` and the like need
    `Execution(target="gpu")`, which runs on CPU as well.
    """
    around = pads(x.shape[1:3], kernel.shape[0], stride, padding)
    on_cpu = execution.platform == "cpu"
    return (_convolve_on_cpu if on_cpu else _convolve)(x, kernel, stride, around)


def _convolve(x: Images, kernel: Array, stride: int, around: tuple) -> Array:
    if kernel.shape[:2] == (1, 1) and around == ((0, 0), (0, 0)):
        return lax.dot_general(x[:, ::stride, ::stride], kernel[0, 0], (((3,), (0,)), ((), ())))
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=axes)


def _fast(x: Images, kernel: Array, stride: int, around: tuple) -> Array:
    if not winograd.suits(x, kernel, stride, around):
        return _convolve(x, kernel, stride, around)

    def plain(x: Array, kernel: Array) -> Array:
        return _convolve(x, kernel, stride, around)

    def fast(x: Array, kernel: Array) -> Array:
        return winograd.convolve(x, kernel, around)

    # On a CPU `plain` is never compiled; by it the FLOPs that the model needs are counted.
    return lax.platform_dependent(x, kernel, cpu=fast, default=plain)


_convolve_on_cpu = jax.custom_vjp(_fast, nondiff_argnums=(2, 3))


def _forward(x: Images, kernel: Array, stride: int, around: tuple) -> tuple[Array, tuple]:
    # Not Winograd's way: in ResNet-50's training step it was no faster.
    return _padded(x, kernel, stride, around), (x, kernel)


def _padded(x: Images, kernel: Array, stride: int, around: tuple) -> Array:
    """`_convolve`; where the height stays, with a row too many, which is dropped.

    The library that XLA for CPU takes by default is slow here, and refuses outputs that grow. FLOPs
    counted of training on CPU include that row.
    """
    (top, bottom), columns = around
    if kernel.shape[0] == 1 or stride != 1 or top + bottom != kernel.shape[0] - 1:
        return _convolve(x, kernel, stride, around)
    return _convolve(x, kernel, 1, ((top, bottom + 1), columns))[:, :-1]


def _backward(stride: int, around: tuple, saved: tuple, gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    gradient = computed_once(gradient, "cpu")  # and not a norm's gradient in each of its two uses
    height, width = (stride * (n - 1) + 1 for n in gradient.shape[1:3])
    padded = jnp.pad(x, ((0, 0), *around, (0, 0)))
    windows = jnp.concatenate(
        [
            padded[:, i : i + height : stride, j : j + width : stride]
            for i in range(kernel.shape[0])
            for j in range(kernel.shape[1])
        ],
        axis=3,
    )
    # Two matrices: of both factors of a sum over three dimensions XLA makes transposed copies.
    rows = (a.reshape(-1, a.shape[3]) for a in (windows, gradient))
    of_kernel = lax.dot_general(*rows, (((0,), (0,)), ((), ())))
    return _of_input(x, kernel, stride, around, gradient), of_kernel.reshape(kernel.shape)


def _of_input(x: Images, kernel: Array, stride: int, around: tuple, gradient: Array) -> Array:
    """The gradient by x."""
    if stride != 1 or kernel.shape[0] == 1:
        return jax.vjp(lambda x: _convolve(x, kernel, stride, around), x)[1](gradient)[0]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    size = kernel.shape[0] - 1
    return _padded(gradient, turned, 1, tuple((size - a, size - b) for a, b in around))


_convolve_on_cpu.defvjp(_forward, _backward)


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
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Maps `[B, H, W, inputs]` to `[B, h, w, outputs]`."""
        dtype = self.execution.compute_dtype
        shape = (self.size, self.size, self.inputs, self.outputs)
        kernel = self.param("kernel", he_normal, shape)
        kernel = standardised(kernel, self.standardisation, self.epsilon).astype(dtype)
        # Whole in the product, which XLA would else cut along idle mesh axes.
        kernel = constrain(kernel, None, None, None, None)
        y = convolve(x.astype(dtype), kernel, self.stride, self.padding, self.execution)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.outputs,))
            y = y + bias.astype(dtype).reshape(1, 1, 1, -1)
        return constrain(y, "batch", None, None, None)


class BatchNorm(nn.Module):
    """Batch norm (Ioffe and Szegedy 2015) over all rows and pixels, in float32.

    In training the statistics are the batch's, which is the whole batch whatever the mesh; the
    running ones (collection `batch_stats`) move towards them where that collection is mutable. The
    running variance is the unbiased one, as in PyTorch.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    """Share of the old running statistics that is kept at each step (PyTorch's 1 - momentum)."""
    zero_init: bool = False
    """Whether the scale starts at 0, so that a residual branch starts as nothing."""
    affine: bool = True
    """Whether there are a scale and a bias."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch C"], *, train: bool = False
    ) -> Float[Array, "*batch C"]:
        """Normalises each channel, scales and shifts it; the type stays."""
        width = (x.shape[-1],)
        start = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        scale, bias = jnp.ones(width), jnp.zeros(width)
        if self.affine:
            scale = self.param("scale", start, width)
            bias = self.param("bias", nn.initializers.zeros, width)
        means = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        variances = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        y = x.astype(jnp.float32)
        mean, variance = means.value, variances.value
        if train:
            axes = tuple(range(y.ndim - 1))
            mean = y.mean(axes)
            variance = _variance(y, mean)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = variance * (count / max(count - 1, 1))
                means.value = self.momentum * means.value + (1.0 - self.momentum) * mean
                variances.value = self.momentum * variances.value + (1.0 - self.momentum) * unbiased
        factor = scale * lax.rsqrt(variance + self.epsilon)
        shift = _wide(bias - mean * factor, y.ndim)
        return (y * _wide(factor, y.ndim) + shift).astype(x.dtype)


@jax.custom_jvp
def _variance(y: Float[Array, "*batch C"], mean: Float[Array, "C"]) -> Float[Array, "C"]:
    """Each channel's mean squared deviation from `mean`, which must be y's own."""
    return jnp.square(y - _wide(mean, y.ndim)).mean(tuple(range(y.ndim - 1)))


def _variance_rate(rate: Array, _, y: Array, mean: Array) -> Array:
    return (2 * (y - _wide(mean, y.ndim)) * rate).mean(tuple(range(y.ndim - 1)))


# A variance has its least value about the mean, so the mean's own rate does not enter: one pass
# over y less in the backward pass.
_variance.defjvps(_variance_rate, None)


class GroupNorm(nn.Module):
    """Group norm (Wu and He 2018): each image's channels in groups, in float32, variance in two
    passes."""

    groups: int = 32
    epsilon: float = 1e-5
    zero_init: bool = False
    """Whether the scale starts at 0."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Normalises each group over its pixels and channels, scales and shifts each channel."""
        width = (x.shape[-1],)
        start = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        scale = self.param("scale", start, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        y = x.astype(jnp.float32).reshape(*x.shape[:3], self.groups, -1)
        y = y - y.mean((1, 2, 4), keepdims=True)
        y = y * lax.rsqrt(jnp.square(y).mean((1, 2, 4), keepdims=True) + self.epsilon)
        return (y.reshape(x.shape) * _wide(scale) + _wide(bias)).astype(x.dtype)


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


def _greatest(x: Array, axis: int, window: int, stride: int) -> Array:
    """Over windows of one axis: slices compared, whose gradient is fast on every platform."""
    stop = x.shape[axis] - window + 1
    parts = (lax.slice_in_dim(x, i, i + stop, stride, axis) for i in range(window))
    greatest = next(parts)
    for part in parts:
        greatest = jnp.maximum(greatest, part)
    return greatest


def _wide(vector: Array, rank: int = 4) -> Array:
    """`[C]` as `[1, 1, 1, C]`, or of another rank."""
    return vector.reshape(*(1,) * (rank - 1), -1)


def sown(module: nn.Module, x: Array) -> Array:
    """x, which is sown as the module's `output` when the collection `blocks` is mutable."""
    if module.is_mutable_collection("blocks") and not module.is_initializing():
        module.sow("blocks", "output", x, reduce_fn=lambda _, new: new, init_fn=lambda: None)
    return x

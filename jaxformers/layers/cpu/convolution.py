"""Convolutions whose gradients are fast in XLA for CPU.

XLA's own convolutions reach a fraction of a matrix product's speed there. The kernel's gradient is
therefore a product of patches with the output's gradient, and the image's gradient takes the faster
of XLA's two convolution libraries. Both are reached through a tangent rule alone, made of ordinary
linear JAX operations whose transposes are the fast forms, so forward- and reverse-mode
differentiation of any order work.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxformers.arrays import Array
from jaxformers.layers.cpu.materialize import opaque_one

Pads = tuple[tuple[int, int], tuple[int, int]]
LEAST_CHANNELS = 32
"""Of the input, from which these forms pay: patches of fewer are all copying, no product."""


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def convolve(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """`x [B, H, W, C]` with a kernel `[h, w, C, D]`, `pads` around rows and columns."""
    (top, bottom), columns = pads
    if not _keeps_height(kernel, stride, pads):
        return _convolve(x, kernel, stride, pads)
    # XLA's default library is slow here, and refuses outputs larger than the input: one row more
    # is computed and dropped, which brings the other library. FLOPs count that row.
    return _convolve(x, kernel, 1, ((top, bottom + 1), columns))[:, :-1]


def _tangent_rule(stride: int, pads: Pads, primals: tuple, tangents: tuple):
    (x, kernel), (dx, dkernel) = primals, tangents
    y = convolve(x, kernel, stride, pads)
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(_convolve_tangent(dx, kernel, stride, pads))
    if not isinstance(dkernel, SymbolicZero):
        # Checkpointed, so that x is kept for the backward pass and not its patches.
        product = jax.checkpoint(partial(_patch_product, stride=stride, pads=pads))
        terms.append(product(x, dkernel))
    dy = sum(terms[1:], terms[0])
    # The transpose divides the output's gradient by 1, so that XLA computes it once for both terms.
    return y, dy / opaque_one(y) if y.dtype == jnp.float32 and y.size else dy


convolve.defjvp(_tangent_rule, symbolic_zeros=True)


def _convolve_tangent(dx: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """`convolve(dx, kernel)`, in the form whose transpose drops a row as `convolve` does.

    A zero row is added below instead of one more of padding: the transpose of that is a convolution
    with one output row too many, which is sliced off.
    """
    (top, bottom), columns = pads
    if not _keeps_height(kernel, stride, pads) or bottom == 0:
        return _convolve(dx, kernel, stride, pads)
    dx = jnp.pad(dx, ((0, 0), (0, 1), (0, 0), (0, 0)))
    return _convolve(dx, kernel, 1, ((top, bottom - 1), columns))


def _patch_product(x: Array, kernel: Array, *, stride: int, pads: Pads) -> Array:
    """The convolution as one matrix product: patches `[B h w, size size C]` times the kernel.

    Its transpose by the kernel is a matrix product too. Patches and kernel are two matrices, since
    of the factors of a sum over three dimensions XLA would make transposed copies.
    """
    size, batch = kernel.shape[0], x.shape[0]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
    patches = jnp.concatenate(
        [
            lax.slice(
                x,
                (0, row, column, 0),
                (
                    batch,
                    row + stride * (height - 1) + 1,
                    column + stride * (width - 1) + 1,
                    x.shape[3],
                ),
                (1, stride, stride, 1),
            )
            for row in range(size)
            for column in range(size)
        ],
        axis=3,
    )  # [B, h, w, size * size * C], in the kernel's order
    flat_kernel = kernel.reshape(-1, kernel.shape[3])  # [size * size * C, D]
    y = lax.dot(patches.reshape(-1, patches.shape[3]), flat_kernel)
    return y.reshape(batch, height, width, -1)


def _convolve(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    axes, (x, kernel) = ("NHWC", "HWIO", "NHWC"), map(jnp.asarray, (x, kernel))
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=axes)


def _keeps_height(kernel: Array, stride: int, pads: Pads) -> bool:
    """Whether the output has as many rows as the input."""
    return stride == 1 and sum(pads[0]) == kernel.shape[0] - 1 > 0

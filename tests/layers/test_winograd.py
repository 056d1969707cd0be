"""Winograd's convolution against the definition, and where it stands in for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.costs import count_flops
from jaxformers.layers import Execution, winograd
from jaxformers.layers.convolution import convolve


def normal(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def defined(x, kernel, around):
    """The sum over windows, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), *around, (0, 0)))
    cut = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    return np.einsum("bhwcij,ijcd->bhwd", cut, kernel.astype(np.float64))


@pytest.mark.parametrize("around", [((1, 1), (1, 1)), ((0, 0), (0, 0)), ((0, 1), (2, 1))], ids=str)
@pytest.mark.parametrize("side", [(8, 6), (7, 10), (5, 3)], ids=str)
def test_it_is_the_sum_over_windows(side, around):
    x, kernel = normal(3, *side, 5), normal(3, 3, 5, 7, seed=1)
    found = winograd.convolve(jnp.asarray(x), jnp.asarray(kernel), around)
    np.testing.assert_allclose(found, defined(x, kernel, around), atol=2e-5)


def test_its_error_is_that_of_plain_float32():
    x, kernel = normal(2, 14, 14, 256), normal(3, 3, 256, 32, seed=1) / 48
    around = ((1, 1), (1, 1))
    exact = defined(x, kernel, around)
    plain = convolve(jnp.asarray(x), jnp.asarray(kernel), 1, 1, Execution(target="tpu"))
    found = winograd.convolve(jnp.asarray(x), jnp.asarray(kernel), around)
    assert np.abs(found - exact).max() < 4 * np.abs(plain - exact).max()
    assert np.abs(found - exact).max() < 5e-6


LARGE = (4, 15, 16, 32), (3, 3, 32, 48)


def layer(target):
    execution = Execution(target=target)
    return lambda x, kernel: convolve(x, kernel, 1, 1, execution)


def test_a_layer_uses_it_where_no_gradient_is_asked_for_and_stays_what_it_is():
    x, kernel = normal(*LARGE[0]), normal(*LARGE[1], seed=1)
    assert winograd.suits(x, kernel, 1, ((1, 1), (1, 1)))
    assert "convolution" not in jax.jit(layer("cpu")).lower(x, kernel).as_text()
    np.testing.assert_allclose(layer("cpu")(x, kernel), layer("tpu")(x, kernel), atol=2e-4)
    kept, back = jax.vjp(layer("cpu"), x, kernel)
    plain, wanted = jax.vjp(layer("tpu"), x, kernel)
    assert (
        "convolution" in jax.jit(lambda *a: jax.vjp(layer("cpu"), *a)[0]).lower(x, kernel).as_text()
    )
    np.testing.assert_allclose(kept, plain, atol=1e-4)
    for found, each in zip(back(plain), wanted(plain), strict=True):
        np.testing.assert_allclose(found, each, atol=1e-5 * np.abs(each).max())


def test_its_flops_are_those_that_the_model_needs():
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in LARGE)
    assert count_flops(layer("cpu"), x, kernel) == count_flops(layer("tpu"), x, kernel)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pad"),
    [
        ((4, 16, 16, 32), (3, 3, 32, 31), 1, 1),
        ((1, 8, 8, 64), (3, 3, 64, 64), 1, 1),
        ((4, 16, 16, 32), (3, 3, 32, 32), 2, 1),
        ((4, 16, 16, 32), (5, 5, 32, 32), 1, 1),
    ],
)
def test_what_it_is_not_for(shape, kernel, stride, pad):
    x, kernel = np.zeros(shape, np.float32), np.zeros(kernel, np.float32)
    assert not winograd.suits(x, kernel, stride, ((pad, pad), (pad, pad)))

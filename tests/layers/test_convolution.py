"""Convolutions, norms and pooling against direct statements in NumPy."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.layers import Execution, convolution
from jaxformers.layers.convolution import (
    Conv,
    convolve,
    max_pool,
    pads,
    standardised,
)
from jaxformers.layers.cpu import LEAST_CHANNELS
from jaxformers.layers.norm import BatchNorm, GroupNorm


def normal(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def windows(x, size, stride, padding, fill):
    """Every window `[B, h, w, size, size, C]` of the padded images."""
    x = np.pad(
        x, ((0, 0), *pads(x.shape[1:3], size, stride, padding), (0, 0)), constant_values=fill
    )
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return view[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(3, 1, 1), (3, 2, 1), (3, 2, "SAME"), (7, 2, 3), (7, 2, "SAME"), (1, 1, 0), (1, 2, 0)],
)
@pytest.mark.parametrize("channels", [3, LEAST_CHANNELS])
def test_a_convolution_is_the_sum_over_its_windows(size, stride, padding, channels):
    x, kernel = normal(2, 8, 11, channels), normal(size, size, channels, 5, seed=1)
    cut = windows(x, size, stride, padding, 0.0)
    expected = np.einsum("bhwijc,ijcd->bhwd", cut.astype(np.float64), kernel)
    # A sum of n products of order 1 is of order sqrt(n); float32 keeps 6e-8 of the largest term.
    atol = 2e-6 * math.sqrt(size * size * channels)
    np.testing.assert_allclose(convolve(x, kernel, stride, padding), expected, atol=atol)


def test_same_padding_puts_the_odd_pixel_behind_and_torchs_is_symmetric():
    assert pads((8, 9), 3, 2, "SAME") == ((0, 1), (1, 1))
    assert pads((8, 9), 3, 2, 1) == ((1, 1), (1, 1))
    assert pads((224, 224), 7, 2, "SAME") == ((2, 3), (2, 3))


@pytest.mark.parametrize(
    ("padding", "fill"), [(1, -np.inf), (1, 0.0), ("SAME", -np.inf), (0, -np.inf)]
)
def test_max_pooling_and_its_gradient(padding, fill):
    x = normal(2, 9, 12, 3) - 1.0
    cut = windows(x, 3, 2, padding, fill)
    expected = cut.max((3, 4))
    np.testing.assert_array_equal(max_pool(x, 3, 2, padding, fill), expected)
    weight = normal(*expected.shape, seed=1)
    gradient = jax.grad(lambda x: (max_pool(x, 3, 2, padding, fill) * weight).sum())(jnp.asarray(x))
    won = np.where(expected == fill, 0.0, weight)  # what an edge of zeros won goes nowhere
    assert np.abs(np.sum(gradient) - won.sum()) < 1e-4
    at = np.unravel_index(np.abs(gradient[0, :, :, 0]).argmax(), x.shape[1:3])
    assert x[0, *at, 0] in expected[0, ..., 0]


def test_weights_are_standardised_as_each_publisher_does():
    kernel = normal(3, 3, 4, 6) * 1e-3 + 0.5
    centred = kernel - kernel.mean((0, 1, 2))
    deviation = kernel.std((0, 1, 2))
    np.testing.assert_allclose(
        standardised(kernel, "variance", 1e-6), centred / np.sqrt(deviation**2 + 1e-6), rtol=1e-4
    )
    np.testing.assert_allclose(
        standardised(kernel, "deviation", 1e-3), centred / (deviation + 1e-3), rtol=1e-4
    )
    assert standardised(kernel, "none", 1.0) is kernel


def test_group_norm_normalises_each_image_by_itself():
    x = 3.0 + 5.0 * normal(3, 4, 5, 6)
    scale, bias = normal(6, seed=1), normal(6, seed=2)
    groups = x.reshape(3, 4, 5, 2, 3)
    mean, variance = groups.mean((1, 2, 4), keepdims=True), groups.var((1, 2, 4), keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-2)).reshape(x.shape) * scale + bias
    output = GroupNorm(2, 1e-2).apply({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def batch_norm(x, train, **fields):
    scale, bias, mean, var = (np.abs(normal(5, seed=i)) + 0.5 for i in range(1, 5))
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }
    norm = BatchNorm(1e-2, **fields)
    output, new = norm.apply(variables, x, train=train, mutable=["batch_stats"])
    return output, new["batch_stats"], (scale, bias, mean, var)


def test_batch_norm_in_training_takes_the_batch_and_keeps_the_unbiased_variance():
    x = 2.0 + 3.0 * normal(4, 3, 2, 5)
    output, new, (scale, bias, mean, var) = batch_norm(x, True, momentum=0.8)
    rows = x.reshape(-1, 5)
    expected = (x - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-2) * scale + bias
    np.testing.assert_allclose(output, expected, atol=2e-5)
    np.testing.assert_allclose(new["mean"], 0.8 * mean + 0.2 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.8 * var + 0.2 * rows.var(0, ddof=1), rtol=1e-5)


def test_batch_norm_outside_training_takes_the_running_statistics_and_leaves_them():
    x = normal(4, 3, 2, 5)
    output, new, (scale, bias, mean, var) = batch_norm(x, False)
    expected = (x - mean) / np.sqrt(var + 1e-2) * scale + bias
    np.testing.assert_allclose(output, expected, atol=1e-5)
    np.testing.assert_array_equal(new["mean"], mean)
    np.testing.assert_array_equal(new["var"], var)


def test_batch_norm_has_the_gradient_of_its_formula():
    x, weight = 2.0 + normal(4, 3, 2, 5), normal(4, 3, 2, 5, seed=9)
    scale, bias = normal(5, seed=1), normal(5, seed=2)
    statistics = {"mean": np.zeros(5, np.float32), "var": np.ones(5, np.float32)}

    def ours(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": statistics}
        return (BatchNorm(1e-2).apply(variables, x, train=True) * weight).sum()

    def plain(x, scale, bias):
        mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
        y = (x - mean) / jnp.sqrt(var + 1e-2)
        return ((y * scale[None, None, None] + bias[None, None, None]) * weight).sum()

    arrays = [jnp.asarray(array) for array in (x, scale, bias)]
    gradients = jax.grad(ours, (0, 1, 2))(*arrays)
    for a, b in zip(gradients, jax.grad(plain, (0, 1, 2))(*arrays), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)

    direction = jnp.asarray(1.0 + normal(4, 3, 2, 5, seed=5))  # moves the mean, too

    def bent(function):
        return jax.jvp(
            jax.grad(lambda x: function(x, *arrays[1:]) ** 2), (arrays[0],), (direction,)
        )

    for a, b in zip(bent(ours), bent(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * np.abs(b).max())


@pytest.mark.default_cases(4)
@pytest.mark.parametrize("target", ["cpu", "tpu"])
@pytest.mark.parametrize(
    ("size", "stride", "side"), [(3, 1, 14), (3, 2, 9), (3, 2, 10), (1, 2, 9), (7, 2, 12)]
)
def test_the_gradients_of_a_convolution_are_its_transposes(size, stride, side, target):
    """On CPU the kernel's comes from a product; as for a TPU it is XLA's own."""

    def convolve(x, kernel, stride, padding):
        return convolution.convolve(x, kernel, stride, padding, Execution(target=target))

    x = normal(2, side, side, LEAST_CHANNELS)
    kernel = normal(size, size, LEAST_CHANNELS, 6, seed=1)
    cut = windows(x, size, stride, size // 2, 0.0)
    dy = normal(*cut.shape[:3], 6, seed=2)
    gradient = jax.grad(lambda k: (convolve(x, k, stride, size // 2) * dy).sum())(
        jnp.asarray(kernel)
    )
    np.testing.assert_allclose(gradient, np.einsum("bhwijc,bhwd->ijcd", cut, dy), atol=2e-4)
    back = jax.grad(lambda x: (convolve(x, kernel, stride, size // 2) * dy).sum())(jnp.asarray(x))
    moved = 1e-2 * normal(*x.shape, seed=3)
    change = (convolve(moved, kernel, stride, size // 2) * dy).sum()
    np.testing.assert_allclose(np.vdot(back, moved), change, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1, 3])
def test_on_cpu_neither_the_slow_library_nor_copies_of_images_stand_in_training(size):
    x, kernel, dy = (
        jnp.ones((2, 14, 14, 64)),
        jnp.ones((size, size, 64, 32)),
        jnp.ones((2, 14, 14, 32)),
    )

    def both_ways(target):
        def convolve(x, kernel):
            return convolution.convolve(x, kernel, 1, size // 2, Execution(target=target))

        def run(x, kernel, dy):
            y, back = jax.vjp(convolve, x, kernel)
            return y, back(dy)

        return jax.jit(run).lower(x, kernel, dy).compile().as_text()

    def in_library(text):
        return len(re.findall(r"conv_general_dilated[^\n]*__ynn_fusion", text))

    def copies(text):
        shapes = re.findall(r"= f32\[([\d,]+)\]\S* (?:transpose|copy)\(", text)
        return [s for s in shapes if math.prod(map(int, s.split(","))) > kernel.size]

    general, ours = both_ways("tpu"), both_ways("cpu")
    assert copies(general) and not copies(ours)
    assert in_library(general) == (2 if size == 3 else 0) and not in_library(ours)


def test_a_layer_computes_in_its_type_and_adds_its_bias():
    layer = Conv(3, 4, 3, padding=1, use_bias=True, execution=Execution("bfloat16"))
    x = normal(1, 5, 5, 3)
    variables = layer.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].dtype == jnp.float32
    assert layer.apply(variables, x).dtype == jnp.bfloat16
    more = {"params": {**variables["params"], "bias": jnp.ones(4)}}
    difference = layer.apply(more, x) - layer.apply(variables, x)
    np.testing.assert_allclose(np.float32(difference), 1.0, atol=0.05)

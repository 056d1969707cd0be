"""Linear maps, norms, dropout and activations, against plain NumPy."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.layers import Dropout, Linear, Norm, activate, dropout
from jaxformers.layers.linear import multiply
from jaxformers.sharding import MeshConfig, make_mesh

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5, 8)).astype(np.float32)


def erf(x):
    return np.vectorize(math.erf)(x)


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_are_their_formulas(kind):
    np.testing.assert_allclose(activate(X, kind), ACTIVATIONS[kind](X), atol=1e-6)


def test_the_three_gelus_differ_as_published():
    x = np.linspace(-8, 8, 20001, dtype=np.float32)
    exact = activate(x, "gelu")
    assert np.abs(activate(x, "gelu_tanh") - exact).max() == pytest.approx(4.74e-4, rel=0.01)
    assert np.abs(activate(x, "quick_gelu") - exact).max() == pytest.approx(2.03e-2, rel=0.01)


def test_an_unknown_activation_is_refused():
    with pytest.raises(Exception, match="swishy"):
        activate(X, "swishy")


@pytest.mark.parametrize("platform", [None, "cpu"])
@pytest.mark.parametrize(("inputs", "outputs"), [((8,), (3,)), ((8,), (2, 3)), ((5, 8), (4,))])
def test_a_linear_map_is_a_product_over_its_inputs_and_a_bias(inputs, outputs, platform):
    layer = Linear(inputs, outputs, platform=platform)
    params = {
        "kernel": RNG.standard_normal((*inputs, *outputs)).astype(np.float32),
        "bias": RNG.standard_normal(outputs).astype(np.float32),
    }
    expected = np.tensordot(X, params["kernel"], len(inputs)) + params["bias"]
    np.testing.assert_allclose(layer.apply({"params": params}, X), expected, atol=1e-5)
    shapes = jax.eval_shape(lambda: Linear(inputs, outputs, False).init(jax.random.key(0), X))
    assert list(shapes["params"]) == ["kernel"]


def test_on_cpu_the_gradient_of_a_kernel_copies_neither_factor():
    x, kernel, dy = jnp.ones((4, 50, 96)), jnp.ones((96, 4, 32)), jnp.ones((4, 50, 4, 32))

    def copies(platform):
        def run(x, kernel, dy):
            return jax.vjp(lambda x, k: multiply(x, k, 1, platform), x, kernel)[1](dy)

        text = jax.jit(run).lower(x, kernel, dy).compile().as_text()
        return len(re.findall(r" (?:transpose|copy)\(", text))

    assert copies(None) > 0 and copies("cpu") == 0


def test_what_a_mesh_may_cut_is_not_merged():
    x, kernel = jnp.ones((2, 6, 8)), jnp.ones((8, 2, 4))

    def primitives():
        jaxpr = jax.make_jaxpr(lambda x, k: multiply(x, k, 1, "cpu"))(x, kernel)
        return [eqn.primitive.name for eqn in jaxpr.eqns]

    assert primitives() == ["reshape", "reshape", "dot_general", "reshape"]
    with jax.set_mesh(make_mesh(MeshConfig(4, 2))):
        assert primitives() == ["dot_general"]


@pytest.mark.parametrize("epsilon", [1e-12, 1e-6, 1e-5])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_layer_norm_is_its_formula(epsilon, scale):
    x = (scale * X + 0.1 * scale).astype(np.float64)
    gamma, beta = RNG.standard_normal((2, 8)).astype(np.float32)
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gamma + beta
    ours = Norm("layer", epsilon).apply({"params": {"scale": gamma, "bias": beta}}, np.float32(x))
    np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_rms_norm_has_no_mean_and_no_bias():
    gamma = RNG.standard_normal(8).astype(np.float32)
    expected = X / np.sqrt((X**2).mean(-1, keepdims=True) + 1e-6) * gamma
    ours = Norm("rms").apply({"params": {"scale": gamma}}, X)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    shapes = jax.eval_shape(lambda: Norm("rms").init(jax.random.key(0), X))
    assert list(shapes["params"]) == ["scale"]


def test_a_norm_far_from_zero_keeps_its_precision():
    # The one-pass variance E[x^2] - E[x]^2 would lose every digit here.
    x = (1e4 + X).astype(np.float32)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    ours = Norm().apply(
        {"params": {"scale": np.ones(8, np.float32), "bias": np.zeros(8, np.float32)}}, x
    )
    np.testing.assert_allclose(ours, exact, atol=2e-3)


def test_a_norm_of_bfloat16_is_computed_in_float32_and_given_back():
    layer, x = Norm(), jnp.asarray(X, jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    ours = layer.apply(variables, x)
    assert ours.dtype == jnp.bfloat16
    exact = layer.apply(variables, x.astype(jnp.float32))
    np.testing.assert_array_equal(ours, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    out = np.asarray(dropout(jnp.ones((400, 301)), rate, jax.random.key(1)))
    count = out.size
    assert (out == 0).mean() == pytest.approx(rate, abs=5 * np.sqrt(rate * (1 - rate) / count))
    assert out.mean() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(out[out > 0], 1 / (1 - rate), rtol=1e-4)


def test_dropout_is_whole_at_its_ends():
    assert (dropout(jnp.ones((8, 3)), 1.0, jax.random.key(0)) == 0).all()
    layer = Dropout(0.5)
    np.testing.assert_array_equal(layer.apply({}, X), X)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, X, train=True), X)


def test_neighbouring_entries_are_dropped_independently():
    # Two draws share a random word; they must not share their fate.
    out = np.asarray(dropout(jnp.ones((2000, 64)), 0.5, jax.random.key(2))) > 0
    for shift in (1, 2, 32):
        together = (out[:, :-shift] == out[:, shift:]).mean()
        assert together == pytest.approx(0.5, abs=0.01)
    columns = out.mean(0)
    assert np.abs(columns - 0.5).max() < 0.06


def test_the_same_key_drops_the_same_entries_on_any_mesh():
    x, key = jnp.ones((8, 6, 16)), jax.random.key(3)
    alone = np.asarray(jax.jit(lambda x: dropout(x, 0.3, key))(x))
    for shape in ((8, 1, 1), (2, 2, 2)):
        mesh = make_mesh(MeshConfig(*shape))
        spread = jax.sharding.PartitionSpec(("data", "fsdp"), None, "tensor")
        where = jax.sharding.NamedSharding(mesh, spread)
        there = jax.jit(lambda x: dropout(x, 0.3, key), out_shardings=where)(x)
        np.testing.assert_array_equal(np.asarray(there), alone)


def test_bfloat16_dropout_stays_bfloat16():
    assert dropout(jnp.ones((4, 4), jnp.bfloat16), 0.5, jax.random.key(0)).dtype == jnp.bfloat16


def test_initial_kernels_have_their_spread():
    draw = Linear((64,), (64,)).init(jax.random.key(0), jnp.ones((1, 64)))["params"]["kernel"]
    limit = np.sqrt(6 / 128)
    assert np.abs(draw).max() <= limit and np.std(draw) == pytest.approx(
        limit / np.sqrt(3), rel=0.05
    )
    layer = Linear((64,), (8, 8), kernel_init="truncated_normal")
    draw = layer.init(jax.random.key(0), jnp.ones((1, 64)))["params"]["kernel"]
    assert np.abs(draw).max() <= 0.04 and np.std(draw) == pytest.approx(0.0176, rel=0.05)

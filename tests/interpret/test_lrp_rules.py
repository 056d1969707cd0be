"""Relevance passes single operations as the rules say, and is neither made nor lost."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxformers.errors import ConfigError
from jaxformers.interpret.jaxpr_interpreter import trace
from jaxformers.layers import Norm, activate

DRAWS = np.random.RandomState(0)


def draws(*shape):
    return jnp.asarray(DRAWS.randn(*shape), jnp.float32)


def shares(fn, inputs, weights=(), relevance=None):
    """Each input's relevance; None where none arrived."""
    tape, out = trace(lambda x, w: fn(*x, *w), inputs, weights)
    y = tape.values[out].array
    relevances = tape.relevance([(out, jnp.ones_like(y) if relevance is None else relevance)])
    return [relevances.get(i) for i in range(len(inputs))]


X, R = draws(3, 5), draws(3, 5)


@pytest.mark.parametrize("kind", ["relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh"])
def test_an_activation_passes_all_of_it_unchanged(kind):
    (got,) = shares(lambda x: activate(x, kind), (X,), relevance=R)
    assert_allclose(got, R)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_norm_passes_all_of_it_unchanged(kind):
    norm = Norm(kind)
    weights = jax.tree.map(lambda x: x + 0.5, norm.init(jax.random.key(0), X))
    (got,) = shares(lambda x, w: norm.apply(w, x), (X,), (weights,), R)
    assert_allclose(got, R)


def test_a_softmax_passes_all_of_it_unchanged():
    allowed = jnp.asarray(DRAWS.rand(3, 5) > 0.3)
    masked = lambda x: jax.nn.softmax(jnp.where(allowed, x, -1e9))  # noqa: E731
    (got,) = shares(masked, (X,), relevance=R)
    assert_allclose(got, jnp.where(allowed, R, 0))


def test_a_softmax_over_one_place_passes_all_of_it_too():
    (got,) = shares(jax.nn.softmax, (X[:, :1],), relevance=R[:, :1])
    assert_allclose(got, R[:, :1])


def test_a_mean_over_one_place_is_a_signal_of_its_own():
    mixed = lambda x, w: x[:, :1].mean(1) @ w  # noqa: E731
    (got,) = shares(mixed, (X[:, :2, None],), (draws(1, 4),), draws(3, 4))
    assert (got[:, 0] != 0).any() and (got[:, 1] == 0).all()


def test_a_product_with_weights_shares_by_what_pushed_up_and_ignores_the_bias():
    w, r = draws(5, 4), draws(3, 4)
    (got,) = shares(lambda x, w, b: x @ w + b, (X,), (w, draws(1, 4)), r)
    want = np.zeros((3, 5))
    for i, j, k in np.ndindex(3, 4, 5):
        up = [max(X[i, m] * w[m, j], 0) for m in range(5)]
        want[i, k] += up[k] / (sum(up) or 1) * r[i, j]
    assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_product_of_two_signals_gives_each_half():
    a, b = X, draws(5, 4)
    of_a, of_b = shares(jnp.matmul, (a, b))
    assert_allclose([of_a.sum(), of_b.sum()], [6, 6], rtol=1e-4)
    z = a @ b
    assert_allclose(of_a, a * ((1 / z) @ b.T) / 2, rtol=1e-3, atol=1e-4)


def test_a_sum_of_two_signals_keeps_the_whole_and_gives_by_size():
    a, b = X, draws(3, 5)
    of_a, of_b = shares(jnp.add, (a, b), relevance=R)
    sizes = [abs(float((x * R / (a + b)).sum())) for x in (a, b)]
    assert_allclose(float(of_a.sum() / R.sum()), sizes[0] / sum(sizes), rtol=1e-3)
    assert_allclose(float((of_a + of_b).sum()), float(R.sum()), rtol=1e-3)


def test_what_moves_numbers_moves_their_relevance():
    r = draws(2, 4)
    (got,) = shares(lambda x: x.T.reshape(5, 3)[1:3, :2].reshape(4)[None].repeat(2, 0), (X,), (), r)
    want = np.zeros((5, 3))
    want[1:3, :2] = np.asarray(r).sum(0).reshape(2, 2)
    assert_allclose(got, want.T, rtol=1e-5)


def test_a_mean_shares_by_value():
    (got,) = shares(lambda x: x.mean(1), (jnp.abs(X),))
    assert_allclose(got, jnp.abs(X) / jnp.abs(X).sum(1, keepdims=True), rtol=1e-4)


def test_a_convolution_keeps_relevance_whole():
    x, w = jnp.abs(draws(1, 6, 6, 2)), draws(3, 3, 2, 4)
    numbers = ("NHWC", "HWIO", "NHWC")
    conv = lambda x, w: jax.lax.conv_general_dilated(  # noqa: E731
        x, w, (2, 2), "SAME", dimension_numbers=numbers
    )
    (got,) = shares(conv, (x,), (w,))
    assert_allclose(float(got.sum()), 36, rtol=1e-3)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_is_its_turns_one_after_another(reverse):
    weights, xs = draws(3, 5, 5), draws(3, 5)

    def turn(carry, inputs):
        w, x = inputs
        carry = jnp.tanh(carry @ w) + x
        return carry, carry * 2

    def scanned(start, xs, weights):
        last, outputs = jax.lax.scan(turn, start, (weights, xs), reverse=reverse)
        return jnp.concatenate([outputs, last[None]])

    def unrolled(start, xs, weights):
        outputs = [None] * 3
        for i in reversed(range(3)) if reverse else range(3):
            start, outputs[i] = turn(start, (weights[i], xs[i]))
        return jnp.stack([*outputs, start])

    r, start = draws(4, 5), draws(5)
    got = shares(scanned, (start, xs), (weights,), r)
    want = shares(unrolled, (start, xs), (weights,), r)
    for a, b in zip(got, want, strict=True):
        assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_an_operation_without_a_rule_is_named():
    with pytest.raises(ConfigError, match="'cumprod'"):
        shares(lambda x: jnp.cumprod(x, 1), (X,))

"""Multi-head attention against plain NumPy, with every kind of mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.layers import Execution, Mask, MultiHeadAttention

RNG = np.random.default_rng(0)
B, T, S, D, H, K = 3, 5, 7, 12, 3, 4  # odd lengths, width that is no power of two


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


PARAMS = {
    **{n: {"kernel": normal(D, H, K), "bias": normal(H, K)} for n in ("query", "key", "value")},
    "out": {"kernel": normal(H, K, D), "bias": normal(D)},
}
X, MEMORY = normal(B, T, D), normal(B, S, D)
KEYS = np.array([[1] * 7, [1, 1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1, 0]], bool)
QUERIES, SEGMENTS = RNG.integers(1, 3, (B, T)), RNG.integers(1, 3, (B, S))


def plain(x, memory, allowed=None):
    """Equation 1 of the paper, a head at a time."""
    out = np.zeros((*x.shape[:2], D))
    for h in range(H):
        q, k, v = (
            inputs @ PARAMS[n]["kernel"][:, h] + PARAMS[n]["bias"][h]
            for n, inputs in (("query", x), ("key", memory), ("value", memory))
        )
        scores = q @ k.swapaxes(1, 2) / np.sqrt(K)
        if allowed is not None:
            scores = np.where(
                np.broadcast_to(allowed, (B, H, *scores.shape[1:]))[:, h], scores, -1e9
            )
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        out += (scores / scores.sum(-1, keepdims=True)) @ v @ PARAMS["out"]["kernel"][h]
    return out + PARAMS["out"]["bias"]


LAYER = MultiHeadAttention(D, H, K)
CAUSAL = np.tril(np.ones((T, T), bool))[None, None]
DENSE = RNG.integers(0, 2, (B, H, T, S)).astype(bool)
CASES = {
    "none": (MEMORY, None, None),
    "keys": (MEMORY, Mask(keys=KEYS), KEYS[:, None, None]),
    "integer keys": (MEMORY, Mask(keys=KEYS.astype(np.int32)), KEYS[:, None, None]),
    "segments": (
        MEMORY,
        Mask(query_segments=QUERIES, key_segments=SEGMENTS),
        (QUERIES[:, :, None] == SEGMENTS[:, None])[:, None],
    ),
    "dense by head": (MEMORY, Mask(dense=DENSE), DENSE),
    "dense for all heads": (MEMORY, Mask(dense=DENSE[:, :1]), DENSE[:, :1]),
    "causal": (None, Mask(causal=True), CAUSAL),
    "causal and segments": (
        None,
        Mask(query_segments=QUERIES, key_segments=QUERIES, causal=True),
        CAUSAL & (QUERIES[:, :, None] == QUERIES[:, None])[:, None],
    ),
    "keys and dense": (MEMORY, Mask(keys=KEYS, dense=DENSE), KEYS[:, None, None] & DENSE),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_attention_is_the_papers_formula(name, train):
    memory, mask, allowed = CASES[name]
    ours = LAYER.apply({"params": PARAMS}, X, memory, mask, train=train)
    np.testing.assert_allclose(ours, plain(X, X if memory is None else memory, allowed), atol=3e-5)


def test_a_causal_query_does_not_see_what_comes_later():
    changed = X.copy()
    changed[:, 3:] += 5
    ours = [LAYER.apply({"params": PARAMS}, x, mask=Mask(causal=True)) for x in (X, changed)]
    np.testing.assert_array_equal(ours[0][:, :3], ours[1][:, :3])
    assert np.abs(ours[0][:, 3:] - ours[1][:, 3:]).min() > 0


def test_a_row_that_may_see_nothing_stays_finite_with_its_gradient():
    mask = Mask(keys=np.zeros((B, S), bool))

    def total(params):
        return LAYER.apply({"params": params}, X, MEMORY, mask).sum()

    value, grads = jax.value_and_grad(total)(PARAMS)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_masked_keys_get_no_gradient():
    grad = jax.grad(lambda m: LAYER.apply({"params": PARAMS}, X, m, Mask(keys=KEYS)).sum())(MEMORY)
    assert (np.asarray(grad)[~KEYS] == 0).all() and np.abs(np.asarray(grad)[KEYS]).max() > 0


def test_without_biases_there_are_four_kernels():
    layer = MultiHeadAttention(D, H, K, use_bias=False)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), X))["params"]
    assert {n: list(p) for n, p in shapes.items()} == {
        n: ["kernel"] for n in ("query", "key", "value", "out")
    }


def test_probabilities_are_given_when_asked_for_and_sum_to_one():
    _, state = LAYER.apply({"params": PARAMS}, X, MEMORY, Mask(keys=KEYS), mutable=["probs"])
    probs = np.asarray(state["probs"]["probs"])
    assert probs.shape == (B, H, T, S)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    assert (probs[~np.broadcast_to(KEYS[:, None, None], probs.shape)] < 1e-30).all()


def test_a_perturbation_is_added_to_the_probabilities_and_has_their_gradient():
    weight, zeros = normal(B, T, D), np.zeros((B, H, T, S), np.float32)

    def through(perturb):
        variables = {"params": PARAMS, "perturb": {"probs": perturb}}
        return (LAYER.apply(variables, X, MEMORY) * weight).sum()

    grad = jax.grad(through)(zeros)
    values = np.einsum("BSD,DHK->BHSK", MEMORY, PARAMS["value"]["kernel"])
    values = values + PARAMS["value"]["bias"][None, :, None]
    mixed = np.einsum("BTD,HKD->BHTK", weight, PARAMS["out"]["kernel"])
    np.testing.assert_allclose(grad, np.einsum("BHTK,BHSK->BHTS", mixed, values), atol=1e-3)


def test_bfloat16_attention_keeps_its_softmax_float32():
    layer = MultiHeadAttention(D, H, K, execution=Execution(dtype="bfloat16"))
    x = jnp.asarray(X, jnp.bfloat16)
    ours, state = layer.apply({"params": PARAMS}, x, mask=Mask(causal=True), mutable=["probs"])
    assert ours.dtype == jnp.bfloat16 and state["probs"]["probs"].dtype == jnp.float32
    assert np.abs(np.float32(ours) - plain(X, X, CAUSAL)).max() < 0.5


def test_a_bias_and_a_scale_enter_the_scores_before_the_mask_and_softmax():
    layer, bias = MultiHeadAttention(D, H, K, scale=0.3), normal(1, H, T, S)

    def run(bias):
        mask = Mask(keys=KEYS)
        return layer.apply({"params": PARAMS}, X, MEMORY, mask, bias=bias, mutable=["probs"])

    q, k = (
        np.einsum("BTD,DHK->BHTK", x, PARAMS[n]["kernel"]) + PARAMS[n]["bias"][None, :, None]
        for n, x in (("query", X), ("key", MEMORY))
    )
    scores = np.where(KEYS[:, None, None], 0.3 * q @ k.swapaxes(2, 3) + bias, -1e9)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    probs = run(bias)[1]["probs"]["probs"]
    np.testing.assert_allclose(probs, weights / weights.sum(-1, keepdims=True), atol=2e-5)
    gradient = jax.grad(lambda b: jnp.square(run(b)[0]).sum())(bias)
    assert np.abs(gradient).max() > 1e-3

"""Splash attention in the Pallas interpreter against plain attention: values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.layers import (
    BlockConfig,
    EncoderBlock,
    EncoderStack,
    Execution,
    Mask,
    MultiHeadAttention,
    log_attention_backends,
)
from jaxformers.layers.attention import multi_head
from jaxformers.layers.attention.multi_head import attention_probabilities
from jaxformers.layers.attention.splash import BLOCK, splash_attention
from jaxformers.sharding import MeshConfig, batch_sharding, make_mesh, shardings

RNG = np.random.default_rng(0)
B = 3
interpreted = partial(splash_attention, interpret=True)


def plain(q, k, v, mask=None):
    probs = attention_probabilities(q, k, mask).astype(v.dtype)
    return jnp.einsum("BHTS,BHSK->BHTK", probs, v)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def padding(keys):
    """An example without padding, one with some, and one of nothing else."""
    return np.arange(keys)[None] < np.array([keys, keys // 3, 0])[:, None]


def segments(length, examples=3):
    """Packed rows: examples from 1 on, then padding, 0; they differ from row to row."""
    cuts = np.sort(RNG.integers(1, length, (B, examples)), axis=1)
    ids = 1 + (np.arange(length)[None, :, None] >= cuts[:, None]).sum(-1)
    return np.where(ids > examples, 0, ids).astype(np.int32)


def within(length, **changes):
    ids = segments(length)
    return Mask(query_segments=ids, key_segments=ids, **changes)


# Translation's cross-attention; queries of the third and fourth segment may see nothing.
TO_SOURCE = Mask(
    keys=np.arange(150)[None] < np.array([150, 140, 90])[:, None],
    query_segments=segments(100),
    key_segments=1 + (np.arange(150)[None] >= np.array([60, 80, 90])[:, None]),
)
# Queries, keys, heads, width of a head, mask.
CASES = {
    "no mask": (128, 128, 2, 16, None),
    "no mask, odd lengths": (197, 77, 3, 20, None),
    "several blocks": (BLOCK + 1, 130, 1, 8, None),
    "padding": (5, 197, 2, 8, Mask(keys=padding(197).astype(np.int32))),
    "packed, to a source": (100, 150, 2, 8, TO_SOURCE),
    "causal": (197, 197, 2, 64, Mask(causal=True)),
    "causal over several blocks": (BLOCK + 8, BLOCK + 8, 1, 8, Mask(causal=True)),
    "causal, packed": (130, 130, 1, 8, within(130, causal=True)),
    "causal, packed, padded": (130, 130, 1, 8, within(130, causal=True, keys=padding(130))),
}


def values_and_gradients(attend, q, k, v, weight):
    def total(q, k, v):
        out = attend(q, k, v)
        return (out * weight).astype(jnp.float32).sum(), out

    grads, out = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return out, *grads


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", CASES)
def test_splash_attention_is_plain_attention_with_its_gradients(name):
    queries, keys, heads, width, mask = CASES[name]
    q, k, v = normal(B, heads, queries, width), *normal(2, B, heads, keys, width)
    q = q * np.float32(width**-0.5)
    weight = normal(*q.shape)
    expected = values_and_gradients(partial(plain, mask=mask), q, k, v, weight)
    ours = values_and_gradients(partial(interpreted, mask=mask), q, k, v, weight)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_in_bfloat16_it_is_the_truth_to_bfloat16s_rounding():
    mask, shape = within(130, causal=True), (B, 2, 130, 16)
    rounded = [jnp.asarray(normal(*shape), jnp.bfloat16) for _ in range(4)]
    ours = values_and_gradients(partial(interpreted, mask=mask), *rounded)
    truth = values_and_gradients(partial(plain, mask=mask), *map(np.float32, rounded))
    for a, b in zip(ours, truth, strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.abs(np.float32(a) - b).mean() < jnp.finfo(a.dtype).eps * np.abs(b).mean()


@pytest.fixture
def in_the_interpreter(monkeypatch):
    monkeypatch.setattr(multi_head, "splash_attention", interpreted)


@pytest.mark.slow
def test_a_sharded_stack_trains_as_with_plain_attention(in_the_interpreter):
    """Scanned and recomputed blocks, on a mesh that divides batch, parameters and heads."""
    mesh, length = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), 20
    config = BlockConfig(8, 2, 8, norm_position="pre")
    x, ids = normal(4, length, 8), np.repeat(segments(length)[:1], 4, axis=0)
    mask = Mask(query_segments=ids, key_segments=ids, causal=True)
    variables = drawn(EncoderStack(config, 2), x)
    where = {"params": shardings(variables["params"], mesh)}

    def gradients(attention):
        execution = Execution(target="tpu", remat="full", attention=attention)
        stack = EncoderStack(config, 2, execution=execution)

        def loss(variables, x, mask):
            return jnp.square(stack.apply(variables, x, mask)).mean()

        rows = batch_sharding(mesh)
        with jax.set_mesh(mesh):
            step = jax.jit(jax.value_and_grad(loss), in_shardings=(where, rows, rows))
            return step(variables, x, mask)

    messages = []
    with log_attention_backends(messages.append):
        fast, slow = gradients("splash"), gradients("plain")
    assert messages == [f"attention of {length} queries to {length} keys: splash"]
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def drawn(module, x):
    """Parameters from NumPy, for compiling an initialisation takes seconds."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    return jax.tree.map(lambda leaf: 0.3 * normal(*leaf.shape), shapes)


def test_one_device_needs_no_mesh(in_the_interpreter):
    fast = MultiHeadAttention(8, 2, 4, execution=Execution(target="tpu", attention="splash"))
    slow, x = MultiHeadAttention(8, 2, 4), normal(2, 20, 8)
    variables, mask = drawn(slow, x), Mask(causal=True)
    ours, theirs = (jax.jit(layer.apply)(variables, x, mask=mask) for layer in (fast, slow))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_splash_attention_cannot_do_is_done_plainly_and_told_once(monkeypatch):
    monkeypatch.setattr(multi_head, "splash_attention", None)  # whose call would fail
    config = BlockConfig(8, 2, 8, attention_dropout=0.5)
    block = EncoderBlock(config, Execution(target="tpu", attention="splash"))
    x, messages, rngs = normal(2, 20, 8), [], {"dropout": jax.random.key(1)}
    variables = drawn(block, x)
    with log_attention_backends(messages.append):
        for _ in range(2):
            jax.eval_shape(lambda: block.apply(variables, x, train=True, rngs=rngs))
        _, collections = jax.eval_shape(lambda: block.apply(variables, x, mutable=["probs"]))
    assert collections["probs"]["self_attention"]["probs"].shape == (2, 2, 20, 20)
    start = "attention of 20 queries to 20 keys: plain (splash attention"
    assert messages == [
        f"{start} applies no attention dropout)",
        f"{start} gives no probabilities)",
    ]

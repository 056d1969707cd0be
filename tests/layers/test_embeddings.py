"""Token tables and the three sinusoid conventions, each against a statement of its own."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.layers import Execution, PositionEmbedding, TokenEmbedding, sinusoids


def paper(position, channel, width):
    """Section 3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(same)."""
    angle = position / 10000 ** (2 * (channel // 2) / width)
    return math.cos(angle) if channel % 2 else math.sin(angle)


def tensor2tensor(position, channel, width):
    """Sines, then cosines; wavelengths in a geometric progression from 2 pi to 10000 x 2 pi."""
    half = width // 2
    scale = math.exp(-math.log(10000) / (half - 1) * (channel % half))
    return math.sin(position * scale) if channel < half else math.cos(position * scale)


def marian(position, channel, width):
    """The paper's values with the even channels first."""
    half = width // 2
    return paper(position, 2 * (channel % half) + channel // half, width)


KINDS = {"interleaved": paper, "concatenated": tensor2tensor, "marian": marian}


@pytest.mark.parametrize("width", [8, 64, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_sinusoids_are_those_of_their_source(kind, width):
    entries = [(p, c) for p in (0, 1, 2, 77, 255) for c in (0, 1, width // 2, width - 2, width - 1)]
    table = sinusoids(256, width, kind)
    assert table.shape == (256, width) and table.dtype == np.float32
    for position, channel in entries:
        assert table[position, channel] == pytest.approx(
            KINDS[kind](position, channel, width), abs=1e-6
        )


def test_tensor2tensors_and_marians_tables_differ_as_measured():
    difference = sinusoids(256, 512, "concatenated") - sinusoids(256, 512, "marian")
    assert np.abs(difference).max() == pytest.approx(0.36, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_width_has_a_table_too(kind):
    assert np.isfinite(sinusoids(9, 7, kind)).all()


def embedding(**changes):
    return TokenEmbedding(101, 6, std=1.0, **changes)


TABLE = np.random.default_rng(0).standard_normal((104, 6)).astype(np.float32)
IDS = np.array([[0, 5, 100], [7, 0, 0]], np.int32)


def test_tokens_take_their_rows_and_the_zero_token_none():
    ours = embedding().apply({"params": {"table": TABLE[:101]}}, IDS, method="embed")
    np.testing.assert_array_equal(ours, TABLE[IDS])
    ours = embedding(pad_id=0, zero_pad=True).apply(
        {"params": {"table": TABLE[:101]}}, IDS, method="embed"
    )
    np.testing.assert_array_equal(ours, TABLE[IDS] * (IDS > 0)[..., None])


def test_logits_are_products_with_the_same_table_padding_masked():
    layer, x = embedding(execution=Execution(vocab_multiple=8)), TABLE[None, :4]
    logits = np.asarray(layer.apply({"params": {"table": TABLE}}, x, method="logits"))
    assert logits.shape == (1, 4, 104) and logits.dtype == np.float32
    np.testing.assert_allclose(logits[0, :, :101], x[0] @ TABLE[:101].T, atol=1e-5)
    assert (logits[..., 101:] < -1e8).all()


def test_bfloat16_logits_are_summed_in_float32():
    layer = embedding(execution=Execution(dtype="bfloat16"))
    logits = layer.apply({"params": {"table": TABLE[:101]}}, TABLE[None, :4], method="logits")
    rounded = TABLE.astype(jnp.bfloat16).astype(np.float32)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits[0], rounded[:4] @ rounded[:101].T, atol=1e-5)


def test_learned_positions_take_their_rows():
    layer = PositionEmbedding(9, 6)
    variables = layer.init(jax.random.key(0), IDS)
    assert variables["params"]["table"].shape == (9, 6)
    positions = np.array([[0, 1, 2], [8, 0, 3]], np.int32)
    ours = layer.apply({"params": {"table": TABLE[:9]}}, positions)
    np.testing.assert_array_equal(ours, TABLE[positions])


@pytest.mark.parametrize("zero_pad", [True, False])
def test_looking_padding_up_teaches_the_table_nothing(zero_pad):
    layer = embedding(pad_id=0, zero_pad=zero_pad)
    grad = jax.grad(lambda t: layer.apply({"params": {"table": t}}, IDS, method="embed").sum())
    counted = np.asarray(grad(TABLE[:101])).sum(-1)
    assert counted[0] == 0 and counted[5] == counted[7] == counted[100] == 6

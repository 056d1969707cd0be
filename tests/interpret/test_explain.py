"""Explanations of pictures, texts and translations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shaken
from numpy.testing import assert_allclose

import jaxformers as jf
from jaxformers.errors import ConfigError, DataError
from jaxformers.interpret import relevance
from jaxformers.interpret.attention import attention_maps, explained_attention, token_scores
from jaxformers.interpret.explain import explain, explain_text, explain_translation
from jaxformers.layers import Execution
from jaxformers.models.vit import ViT

DRAWS = np.random.RandomState(0)


def test_rollout_is_the_product_of_mixed_layers():
    probs = DRAWS.dirichlet(np.ones(5), (3, 2, 4, 5)).astype(np.float32)
    for fuse in ("mean", "max", "min"):
        got = relevance.rollout(probs, heads=fuse, residual=0.5)
        for b in range(2):
            want = np.eye(5)
            for layer in getattr(probs[:, b], fuse)(1):
                mixed = layer + np.eye(5)
                want = mixed / mixed.sum(1, keepdims=True) @ want
            assert_allclose(got[b], want, atol=1e-5)
    assert_allclose(relevance.rollout(probs).sum(-1), 1, atol=1e-5)
    later = relevance.rollout(probs, start_layer=2, residual=0.0)
    assert_allclose(later, probs[2].mean(1), atol=1e-6)


def test_attribution_may_start_late_and_divide_rows():
    r, g = DRAWS.randn(2, 3, 2, 5, 4, 4).astype(np.float32)
    c = (r * g).clip(0).mean(2)
    got = relevance.attribution(r, g, start_layer=2)
    assert_allclose(got, c[2] + np.eye(4), atol=1e-6)
    got = relevance.attribution(r, g, start_layer=1, normalized=True)
    a, b = ((x + np.eye(4)) / (x + np.eye(4)).sum(-1, keepdims=True) for x in c[1:])
    assert_allclose(got, b @ a, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attribution", "generic", "rollout", "attention"])
def test_an_image_is_explained_by_its_top_classes(vit, explained, method):
    config, variables, images = vit
    got = explain(ViT(config), variables, images, method=method, top=2)
    logits = ViT(config).apply(variables, images)
    order = np.argsort(-np.asarray(logits), axis=1)[:, :2]
    assert (got.classes == order).all()
    likely = np.take_along_axis(np.asarray(jax.nn.softmax(logits)), order, axis=1)
    assert_allclose(got.probabilities, likely, atol=1e-5)
    assert got.relevance.shape == (2, 2, 9) and np.isfinite(got.relevance).all()
    same = np.allclose(got.relevance[:, 0], got.relevance[:, 1])
    assert same == (method in ("rollout", "attention"))
    if method == "generic":
        expected = relevance.generic(
            explained.probabilities.encoder[:, :, None], explained.gradients.encoder
        )
        at = list(order[1]).index(2) if 2 in order[1] else None
        if at is not None:
            assert_allclose(got.relevance[1, at], expected[1, 0, 0, 1:], atol=1e-4)


def test_a_model_in_bfloat16_is_explained_in_float32(vit):
    config, variables, images = vit
    model = ViT(config, Execution(dtype="bfloat16"))
    got = explain(model, variables, images, [[0, 1], [1, 2]], "generic")
    want = explain(ViT(config), variables, images, [[0, 1], [1, 2]], "generic")
    assert_allclose(got.relevance, want.relevance, atol=1e-6)


def test_a_method_that_is_none_is_answered_in_a_line(vit):
    config, variables, images = vit
    with pytest.raises(ConfigError, match="did you mean rollout"):
        explain(ViT(config), variables, images, method="rollot")


@pytest.mark.parametrize("method", ["attribution", "generic", "rollout", "attention"])
def test_a_layer_that_there_is_not_is_named_beside_how_many_there_are(vit, method):
    config, variables, images = vit
    for start in (2, -1, "1"):
        with pytest.raises(ConfigError, match=f"start_layer is {start!r}: the model has 2 layers"):
            explain(ViT(config), variables, images, [[0], [1]], method, start_layer=start)


def test_generic_relevance_may_start_late(vit, explained):
    config, variables, images = vit
    got = explain(ViT(config), variables, images, [[2, 0]] * 2, "generic", start_layer=1)
    e = explained
    c = np.asarray(e.gradients.encoder)[1] * np.asarray(e.probabilities.encoder)[1][:, None]
    assert_allclose(got.relevance, c.clip(0).mean(2)[:, :, 0, 1:], atol=1e-5)


def test_a_model_without_attention_is_named_as_such():
    class Plain(jf.layers.Linear):
        pass

    model = Plain((3,), (2,))
    variables = model.init(jax.random.key(0), jnp.ones((1, 3)))
    with pytest.raises(DataError, match="no attention"):
        attention_maps(model, variables, jnp.ones((1, 3)))


@pytest.fixture(scope="module")
def bert():
    config = jf.BertConfig(
        vocab_size=20, width=8, heads=2, feed_forward=12, layers=2, max_length=8, labels=3
    )
    model = jf.BertForSequenceClassification(config)
    ids = jnp.asarray([[1, 4, 5, 6, 2, 0], [1, 9, 8, 7, 3, 2]])
    return model, shaken(jax.jit(model.init)(jax.random.key(0), ids)), ids


@pytest.mark.slow
def test_a_texts_padding_has_no_relevance_and_its_tokens_have(bert):
    model, variables, ids = bert
    mask = (ids > 0).astype(jnp.int32)
    for method in ("attribution", "generic"):
        got = explain_text(model, variables, ids, None, mask, [[1, 2], [0, 2]], method)
        assert got.relevance.shape == (2, 2, 6)
        assert_allclose(got.relevance[0, :, 5], 0, atol=1e-6)
        assert (got.relevance[:, :, 0] == 0).all() and (got.relevance >= -1e-6).all()
        assert (got.relevance.sum(-1) > 0).all()


@pytest.mark.slow
def test_an_examples_relevance_does_not_depend_on_its_batch(bert):
    model, variables, ids = bert
    mask = (ids > 0).astype(jnp.int32)
    batched = explained_attention(
        model, variables, ids, targets=jnp.asarray([[1], [1]]), attention_mask=mask
    )
    single = explained_attention(
        model, variables, ids[1:], targets=jnp.asarray([[1]]), attention_mask=mask[1:]
    )
    assert_allclose(
        batched.relevance.encoder[:, 1:], single.relevance.encoder, rtol=1e-3, atol=1e-5
    )


@pytest.fixture(scope="module")
def translator():
    config = jf.TransformerConfig(
        20, width=8, heads=2, feed_forward=12, encoder_layers=2, decoder_layers=2
    )
    model = jf.Transformer(config)
    source, target = jnp.asarray([[3, 4, 5, 1, 0]]), jnp.asarray([[0, 7, 8]])
    return model, shaken(jax.jit(model.init)(jax.random.key(0), source, target)), source, target


def apart(r):
    change = r - np.eye(len(r))
    total = change.sum(1, keepdims=True)
    return np.divide(change, total, out=np.zeros_like(change), where=total != 0) + np.eye(len(r))


@pytest.mark.slow
def test_translation_relevance_equals_the_rules_step_by_step(translator):
    model, variables, source, target = translator
    mask = (source > 0).astype(jnp.int32)
    positions, tokens = jnp.asarray([[0, 2]]), jnp.asarray([[7, 1]])
    got = explain_translation(
        model, variables, source, target, mask, positions=positions, tokens=tokens
    )
    e = explained_attention(
        model,
        variables,
        source,
        target,
        targets=(positions, tokens),
        select=token_scores,
        relevance=False,
        source_mask=mask,
    )
    assert e.relevance is None
    for m, at in enumerate((0, 2)):
        encoder, decoder, cross = (
            (np.asarray(g[:, 0, m]) * np.asarray(p[:, 0])).clip(0).mean(1)
            for p, g in zip(e.probabilities, e.gradients, strict=True)
        )
        ss, tt, ts = np.eye(5), np.eye(3), np.zeros((3, 5))
        for c in encoder:
            ss = ss + c @ ss
        for c, d in zip(decoder, cross, strict=True):
            tt, ts = tt + c @ tt, ts + c @ ts
            ts = ts + apart(tt).T @ d @ apart(ss)
        assert_allclose(got.source[0, m], ts[at], atol=1e-5)
        assert_allclose(got.target[0, m], tt[at], atol=1e-5)
    assert_allclose(got.source[0, :, 4], 0, atol=1e-6)  # padding
    assert_allclose(got.target[0, 0, 1:], 0, atol=1e-6)  # what comes later


def test_a_translation_is_explained_token_by_token_by_default(translator):
    model, variables, source, target = translator
    got = explain_translation(model, variables, source, target, method="attribution")
    assert got.source.shape == (1, 3, 5) and got.target.shape == (1, 3, 3)
    assert np.isfinite(got.source).all()

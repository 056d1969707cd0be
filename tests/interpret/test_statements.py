"""Explanations of pooled ViTs, BERTs and translators equal NumPy statements from end to end."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PATCH, shaken
from numpy.testing import assert_allclose

import jaxformers as jf
from jaxformers.interpret.explain import explain, explain_text, explain_translation
from jaxformers.models.vit import ViT

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import relevance_statement as statement
import relevance_texts as texts

CLASSES = (2, 0)


@pytest.fixture(scope="module", params=[True, False], ids=["class token", "no class token"])
def averaged(request, vit):
    """A ViT whose patches are averaged; for image 1 NumPy's probabilities, gradients, relevance."""
    config, _, images = vit
    model = ViT(replace(config, pooling="average", class_token=request.param))
    variables = shaken(jax.jit(model.init)(jax.random.key(0), images), 2)
    p, image = statement.tree64(variables["params"]), images[1].astype(np.float64)
    layers = statement.forward(p, image, PATCH)[2]
    grads = [statement.gradients(p, image, PATCH, c, True) for c in CLASSES]
    shares = [statement.relevance(p, image, PATCH, c, True) for c in CLASSES]
    return model, variables, images, np.stack([k.seen.probs for k in layers]), grads, shares


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attribution", "generic", "rollout"])
def test_a_vit_that_averages_is_explained_by_the_mean_of_its_patches_rows(averaged, method):
    model, variables, images, probs, grads, shares = averaged
    got = explain(model, variables, images, [CLASSES] * 2, method).relevance[1]
    first = int(model.config.class_token)
    for m in range(2):
        values = shares[m] if method == "attribution" else probs
        matrix = statement.accumulate((grads[m] * values).clip(0).mean(1))
        matrix = statement.rollout(probs) if method == "rollout" else matrix
        want = matrix[first:].mean(0)[first:]
        assert_allclose(got[m], want, atol=1e-3 * want.max())


@pytest.fixture(scope="module")
def bert():
    """A BERT, two texts, one with padding, and NumPy's statement of each."""
    config = jf.BertConfig(
        vocab_size=20, width=8, heads=2, feed_forward=12, layers=2, max_length=8, labels=3
    )
    model, ids = jf.BertForSequenceClassification(config), [[1, 4, 5, 6, 2, 0], [1, 9, 8, 7, 3, 2]]
    ids = np.array(ids)
    mask = (ids > 0).astype(np.int32)
    variables = shaken(jax.jit(model.init)(jax.random.key(0), jnp.asarray(ids)), 3)
    p = statement.tree64(variables["params"])
    attention = [texts.bert_attention(p, *text) for text in zip(ids, mask, strict=True)]
    shares = [
        [texts.bert_relevance(p, *text, c) for c in CLASSES] for text in zip(ids, mask, strict=True)
    ]
    return model, variables, ids, mask, attention, shares


@pytest.mark.slow
@pytest.mark.parametrize("method", ["attribution", "generic", "rollout"])
def test_a_text_is_explained_by_its_first_tokens_row(bert, method):
    model, variables, ids, mask, attention, shares = bert
    got = explain_text(model, variables, ids, None, mask, [CLASSES] * 2, method).relevance
    for b, (probs, grads) in enumerate(attention):
        for m, of in enumerate(CLASSES):
            if method == "attribution":
                layers = (grads[of] * shares[b][m]).clip(0).mean(1)
                matrix = statement.accumulate_rows(layers)
            elif method == "generic":
                matrix = statement.accumulate((grads[of] * probs).clip(0).mean(1))
            else:
                matrix = statement.rollout(probs)
            want = matrix[0] * (np.arange(6) > 0)
            assert_allclose(got[b, m], want, atol=1e-3 * want.max())


def apart(r):
    """Without the residual's identity, rows that sum to 1, and the identity again."""
    change = r - np.eye(len(r))
    return statement.ratio(change, change.sum(1, keepdims=True)) + np.eye(len(r))


@pytest.mark.slow
def test_a_translation_is_explained_by_the_rules_of_encoder_and_decoder():
    config = jf.TransformerConfig(
        20, width=8, heads=2, feed_forward=12, encoder_layers=2, decoder_layers=2
    )
    model = jf.Transformer(config)
    source, target, mask = np.array([3, 4, 5, 1, 0]), np.array([0, 7, 8]), np.array([1, 1, 1, 1, 0])
    variables = jax.jit(model.init)(jax.random.key(0), source[None], target[None])
    variables = shaken(variables, 4)
    p = statement.tree64(variables["params"])
    positions, tokens = (0, 2, 1), (9, 1, 19)
    got = explain_translation(
        model,
        variables,
        source[None],
        target[None],
        mask[None],
        positions=jnp.asarray([positions]),
        tokens=jnp.asarray([tokens]),
    )
    attention = texts.translator_attention(p, source, target, mask)
    for m, (at, token) in enumerate(zip(positions, tokens, strict=True)):
        encoder, decoder, cross = (
            (grads[at, token] * probs).clip(0).mean(1) for probs, grads in attention
        )
        ss, tt, ts = statement.accumulate(encoder), np.eye(3), np.zeros((3, 5))
        for c, d in zip(decoder, cross, strict=True):
            tt, ts = tt + c @ tt, ts + c @ ts
            ts = ts + apart(tt).T @ d @ apart(ss)
        assert_allclose(got.source[0, m], ts[at], atol=1e-3 * ts[at].max())
        assert_allclose(got.target[0, m], tt[at], atol=1e-3 * tt[at].max())
        assert ts[at, :4].min() > 1e-3 and ts[at, 4] == 0

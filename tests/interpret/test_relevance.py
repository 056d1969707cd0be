"""Attention, gradients and relevance of a model equal a NumPy statement of the formulas."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxformers.interpret import relevance
from jaxformers.interpret.attention import attention_maps, explained_attention
from jaxformers.layers import Execution
from jaxformers.models.vit import ViT

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import relevance_statement as statement

CLASSES, PATCH = (2, 0), 2


def stated(vit):
    return statement.tree64(vit[1]["params"]), vit[2].astype(np.float64)


@pytest.fixture(scope="module")
def expected(vit):
    """For image 1: by class, NumPy's gradients and relevance."""
    p, images = stated(vit)
    shares = [statement.relevance(p, images[1], PATCH, c) for c in CLASSES]
    grads = [statement.gradients(p, images[1], PATCH, c) for c in CLASSES]
    probs = np.stack([layer.seen.probs for layer in statement.forward(p, images[1], PATCH)[2]])
    return probs, np.stack(grads), np.stack(shares)


@pytest.mark.slow
def test_attention_maps_are_the_models_own_probabilities(vit, expected, explained):
    config, variables, images = vit
    maps = attention_maps(ViT(config), variables, images)
    assert maps.encoder.shape == (2, 2, 2, 10, 10) and maps.decoder is None is maps.cross
    assert_allclose(maps.encoder.sum(-1), 1, atol=1e-5)
    assert_allclose(maps.encoder[:, 1], expected[0], atol=1e-5)
    assert_allclose(explained.probabilities.encoder, maps.encoder, atol=1e-6)


def test_scores_are_the_models_logits(vit, explained):
    p, images = stated(vit)
    logits = np.stack([statement.forward(p, image, PATCH)[0] for image in images])
    assert_allclose(explained.scores, logits[:, list(CLASSES)], atol=1e-4)


def test_gradients_of_probabilities_equal_finite_differences(expected, explained):
    for m in range(2):
        assert_allclose(explained.gradients.encoder[:, 1, m], expected[1][m], atol=1e-4)


def test_relevance_equals_the_rules_stated_layer_by_layer(expected, explained):
    for m in range(2):
        scale = np.abs(expected[2][m]).max()
        assert_allclose(
            explained.relevance.encoder[:, 1, m] / scale, expected[2][m] / scale, atol=1e-3
        )


def test_attribution_and_generic_relevance_equal_their_formulas(expected, explained):
    probs, grads, shares = expected
    e = explained
    ours = relevance.attribution(e.relevance.encoder, e.gradients.encoder)
    plain = relevance.generic(e.probabilities.encoder[:, :, None], e.gradients.encoder)
    assert ours.shape == plain.shape == (2, 2, 10, 10)
    for m in range(2):
        by_rules = statement.accumulate((grads[m] * shares[m]).clip(0).mean(1))
        assert_allclose(ours[1, m], by_rules, atol=1e-3 * by_rules.max())
        by_values = statement.accumulate((grads[m] * probs).clip(0).mean(1))
        assert_allclose(plain[1, m], by_values, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("choices", [dict(target="tpu"), dict(remat="full")])
def test_a_rolled_scan_and_recomputed_blocks_give_the_same(vit, explained, choices):
    config, variables, images = vit
    model = ViT(config, Execution(**choices))
    got = explained_attention(model, variables, images[:1], targets=jnp.asarray([CLASSES[:1]]))
    want = jax.tree.map(lambda x: x[:, :1, :1], (explained.gradients, explained.relevance))
    for a, b in zip((got.gradients.encoder, got.relevance.encoder), want, strict=True):
        assert_allclose(a, b.encoder, rtol=1e-3, atol=1e-4)

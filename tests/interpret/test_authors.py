"""Transformer attribution equals what the authors' own code gives for the same weights."""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxformers.interpret import relevance
from jaxformers.interpret.attention import explained_attention
from jaxformers.models.vit import ViT, ViTConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import relevance_cases as cases

AUTHORS = np.load(cases.GOLDEN)


@pytest.fixture(scope="module")
def ours():
    c = cases
    shape = dict(width=c.WIDTH, heads=c.HEADS, feed_forward=c.WIDE, layers=c.LAYERS)
    model = ViT(ViTConfig(c.SIZE, c.PATCH, classes=c.NAMES, activation="gelu", **shape))
    classes = jnp.asarray(c.CLASSES)
    return explained_attention(model, {"params": c.parameters()}, c.images(), targets=classes)


def by_image(maps):
    """`[n, B, M, ...]` to the file's `[B, M, n, ...]`."""
    return np.moveaxis(np.asarray(maps.encoder), 0, 2)


def test_scores_and_gradients_are_the_authors(ours):
    assert_allclose(ours.scores, AUTHORS["scores"], atol=1e-5)
    assert_allclose(by_image(ours.gradients), AUTHORS["gradients"], atol=2e-5)


def test_propagated_relevance_is_the_authors(ours):
    scale = np.abs(AUTHORS["relevance"]).max()
    assert_allclose(by_image(ours.relevance) / scale, AUTHORS["relevance"] / scale, atol=2e-4)


@pytest.mark.parametrize("start", cases.START_LAYERS)
def test_the_map_over_patches_is_the_authors(ours, start):
    theirs = AUTHORS["maps"][:, :, cases.START_LAYERS.index(start)]
    maps = relevance.attribution(ours.relevance.encoder, ours.gradients.encoder, start_layer=start)
    assert_allclose(maps[:, :, 0, 1:] / theirs.max(), theirs / theirs.max(), atol=2e-4)

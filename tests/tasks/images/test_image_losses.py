"""Losses of mixed and smoothed targets, against targets written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.tasks.images.image_losses import image_loss, mixed

N = 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, N)).astype(np.float32)
LABELS, PARTNERS = (RNG.integers(0, N, 5).astype(np.int32) for _ in range(2))
SHARES = RNG.uniform(size=5).astype(np.float32)


def target(smoothing, shares=None):
    targets = np.eye(N)[LABELS]
    if shares is not None:
        targets = shares[:, None] * targets + (1 - shares[:, None]) * np.eye(N)[PARTNERS]
    return (1 - smoothing) * targets + smoothing / N


@pytest.mark.parametrize("shares", [None, SHARES], ids=["own", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_with_the_target_written_out(smoothing, shares):
    goal = target(smoothing, shares)
    mix = {} if shares is None else dict(partners=jnp.asarray(PARTNERS), shares=jnp.asarray(shares))
    losses = image_loss(jnp.asarray(LOGITS), jnp.asarray(LABELS), smoothing=smoothing, **mix)
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    np.testing.assert_allclose(losses, -(goal * log_p).sum(-1), rtol=1e-5)
    p = 1 / (1 + np.exp(-LOGITS))
    expected = -(goal * np.log(p) + (1 - goal) * np.log(1 - p)).sum(-1)
    losses = image_loss(
        jnp.asarray(LOGITS), jnp.asarray(LABELS), objective="sigmoid", smoothing=smoothing, **mix
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def batch(rows=4, side=12):
    images = jnp.broadcast_to(
        jnp.arange(rows, dtype=jnp.float32)[:, None, None, None], (rows, side, side, 1)
    )
    return {"images": images, "labels": jnp.arange(rows, dtype=jnp.int32)}


@pytest.mark.parametrize("key", range(4))
def test_mixup_averages_each_image_with_the_one_at_the_other_end(key):
    mixed_batch = mixed(batch(), jax.random.key(key), 0.8, 0.0)
    share = float(mixed_batch["shares"][0])
    assert 0 < share < 1 and mixed_batch["partners"].tolist() == [3, 2, 1, 0]
    means = np.asarray(mixed_batch["images"]).mean((1, 2, 3))
    np.testing.assert_allclose(
        means, [share * i + (1 - share) * (3 - i) for i in range(4)], rtol=1e-5
    )
    assert np.asarray(mixed_batch["images"]).std((1, 2, 3)).max() < 1e-5


@pytest.mark.parametrize("key", range(6))
def test_cutmix_pastes_a_rectangle_and_counts_its_pixels(key):
    mixed_batch = mixed(batch(), jax.random.key(key), 0.0, 1.0)
    images = np.asarray(mixed_batch["images"])[..., 0]
    assert set(np.unique(images[0])) <= {0.0, 3.0}
    np.testing.assert_allclose(mixed_batch["shares"][0], (images[0] == 0).mean(), rtol=1e-5)
    rows, columns = np.nonzero(images[0] == 3)
    if len(rows):
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert area == len(rows)


def test_a_batch_takes_either_with_equal_chance():
    batches = [mixed(batch(), jax.random.key(k), 0.8, 1.0)["images"] for k in range(60)]
    pasted = sum(set(np.unique(np.asarray(images[0]))) <= {0.0, 3.0} for images in batches)
    assert 18 <= pasted <= 42

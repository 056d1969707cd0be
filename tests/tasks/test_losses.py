"""Label smoothing in closed form, against RECIPES' formula written out."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.tasks import label_smoothed_loss, negative_log_likelihood

RNG = np.random.default_rng(0)
B, T, V = 3, 5, 11
LOGITS = (3 * RNG.standard_normal((B, T, V))).astype(np.float32)
LABELS = RNG.integers(0, V, (B, T)).astype(np.int32)
WEIGHTS = RNG.integers(0, 2, (B, T)).astype(np.float32)


def written_out(logits, labels, weights, smoothing, xp=np):
    """-sum of target x log-softmax, the target 1 - e on the label and e / (V-1) elsewhere."""
    size = logits.shape[-1]
    target = xp.full(logits.shape, smoothing / (size - 1), xp.float32)
    here = xp.arange(size).reshape((1,) * labels.ndim + (size,)) == labels[..., None]
    target = xp.where(here, xp.float32(1 - smoothing), target)
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))
    return (-(target * log_p).sum(-1) * weights).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_the_formulas(smoothing):
    total, weight = label_smoothed_loss(LOGITS, LABELS, WEIGHTS, smoothing)
    np.testing.assert_allclose(total, written_out(LOGITS, LABELS, WEIGHTS, smoothing), rtol=1e-5)
    assert weight == WEIGHTS.sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_is_that_of_the_formula(smoothing):
    ours = jax.grad(lambda x: label_smoothed_loss(x, LABELS, WEIGHTS, smoothing)[0])(LOGITS)
    plain = jax.grad(lambda x: written_out(x, LABELS, WEIGHTS, smoothing, jnp))(LOGITS)
    np.testing.assert_allclose(ours, plain, atol=1e-6)


def test_logits_of_a_padded_vocabulary_count_for_nothing():
    padded = np.concatenate([LOGITS, np.full((B, T, 5), -1e9, np.float32)], -1)

    def loss(x, size):
        return label_smoothed_loss(x, LABELS, WEIGHTS, 0.1, size)[0]

    np.testing.assert_allclose(loss(padded, V), loss(LOGITS, V), rtol=1e-6)
    grad = jax.grad(loss)(padded, V)
    np.testing.assert_allclose(grad[..., :V], jax.grad(loss)(LOGITS, V), atol=1e-6)
    assert not grad[..., V:].any()


def test_positions_of_weight_zero_change_nothing():
    changed = np.where(WEIGHTS[..., None] > 0, LOGITS, LOGITS[..., ::-1] + 7)
    ours = label_smoothed_loss(LOGITS, LABELS, WEIGHTS, 0.1)[0]
    np.testing.assert_allclose(
        label_smoothed_loss(changed, LABELS, WEIGHTS, 0.1)[0], ours, rtol=1e-6
    )


def test_unsmoothed_it_is_the_negative_log_likelihood():
    total, _ = label_smoothed_loss(LOGITS, LABELS, np.ones((B, T), np.float32))
    np.testing.assert_allclose(total, negative_log_likelihood(LOGITS, LABELS).sum(), rtol=1e-6)


def test_huge_logits_stay_finite():
    total, _ = label_smoothed_loss(1e4 * LOGITS, LABELS, WEIGHTS, 0.1)
    grad = jax.grad(lambda x: label_smoothed_loss(x, LABELS, WEIGHTS, 0.1)[0])(1e4 * LOGITS)
    assert np.isfinite(total) and np.isfinite(grad).all()


def widths(jaxpr, size):
    """Primitives whose result is as wide as the logits, nested ones included."""
    for eqn in jaxpr.eqns:
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from widths(inner, size)
        if any(getattr(v.aval, "shape", ()) == (B, T, V) for v in eqn.outvars):
            yield eqn.primitive.name


def test_the_forward_pass_holds_no_target_as_wide_as_the_vocabulary():
    closed = jax.make_jaxpr(lambda x: label_smoothed_loss(x, LABELS, WEIGHTS, 0.1)[0])(LOGITS)
    wide = set(widths(closed.jaxpr, (B, T, V)))
    assert not wide & {"eq", "select_n", "iota", "one_hot", "scatter", "mul"}, wide

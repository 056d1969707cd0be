"""Contrastive losses: both forms, on every mesh, against a plain statement in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.image_text import contrastive_loss as losses
from jaxformers.tasks.image_text.contrastive_loss import contrastive_loss

BATCH, WIDTH = 16, 6
GROUPS = np.array([0, 1, 2, 1, 4, 5, 6, 7, 8, 0, 10, 11, 0, 13, 14, 15])
# Duplicates by the first number (rows 1 and 3) or by the second (rows 0, 9 and 12).
INDEX = np.arange(BATCH)
TWO_GROUPS = np.stack([np.where(GROUPS == 1, 1, INDEX), np.where(GROUPS == 0, 0, INDEX)], 1)
CASES = [
    ("softmax", "negatives"),
    ("sigmoid", "negatives"),
    ("softmax", "positives"),
    ("softmax", "masked"),
    ("sigmoid", "positives"),
    ("sigmoid", "masked"),
]


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    embeds = rng.standard_normal((2, BATCH, WIDTH))
    embeds /= np.linalg.norm(embeds, axis=-1, keepdims=True)
    return *embeds.astype(np.float32), np.float32(1.3), np.float32(-0.7)


def stated(image, text, scale, bias, objective, duplicates):
    """The published losses, written out."""
    logits = np.exp(scale) * image @ text.T + bias
    same = GROUPS[:, None] == GROUPS[None]
    diagonal = np.eye(BATCH, dtype=bool)
    positives = same if duplicates == "positives" else diagonal
    counts = ~same | diagonal if duplicates == "masked" else np.ones_like(same)
    if objective == "sigmoid":
        signed = np.where(positives, logits, -logits)
        return np.sum(counts * np.log1p(np.exp(-signed)))
    total = 0.0
    for scores, target, allowed in ((logits, positives, counts), (logits.T, positives.T, counts.T)):
        exponentials = np.exp(scores) * allowed
        log_probabilities = scores - np.log(exponentials.sum(1, keepdims=True))
        total -= np.sum(target * log_probabilities / target.sum(1, keepdims=True)) / 2
    return total


def stated_gradients(arguments, objective, duplicates, step=1e-6):
    """Central differences of `stated` in float64."""
    arguments = [np.asarray(a, np.float64) for a in arguments]
    gradients = []
    for number, argument in enumerate(arguments):
        gradient = np.zeros_like(argument)
        for index in np.ndindex(argument.shape):
            values = []
            for sign in (1, -1):
                moved = [a.copy() for a in arguments]
                moved[number][index] += sign * step
                values.append(stated(*moved, objective, duplicates))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def loss_and_gradients(form, objective, duplicates):
    def loss(*arguments):
        return contrastive_loss(
            *arguments,
            groups=jnp.asarray(TWO_GROUPS),
            objective=objective,
            duplicates=duplicates,
            form=form,
        )

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(*inputs())


def check(result, objective, duplicates):
    value, gradients = result
    expected = stated(*(np.asarray(a, np.float64) for a in inputs()), objective, duplicates)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for gradient, truth in zip(
        gradients, stated_gradients(inputs(), objective, duplicates), strict=True
    ):
        # The sums have 256 terms of order 1; the softmax's gradient of the bias is 0.
        np.testing.assert_allclose(gradient, truth, rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize("form", ["plain", "ring"])
@pytest.mark.parametrize(("objective", "duplicates"), CASES)
def test_loss_and_gradients_are_those_stated(form, objective, duplicates):
    check(loss_and_gradients(form, objective, duplicates), objective, duplicates)


@pytest.mark.default_cases(4)
@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (2, 4, 1)], ids=str)
@pytest.mark.parametrize("form", ["plain", "ring"])
@pytest.mark.parametrize(("objective", "duplicates"), [CASES[0], CASES[4], CASES[3], CASES[1]])
def test_negatives_are_those_of_all_devices(form, objective, duplicates, shape):
    """Without the gather's gradient the loss would be right, and gradients off by half."""
    mesh = make_mesh(MeshConfig(*shape))
    with jax.set_mesh(mesh):
        check(loss_and_gradients(form, objective, duplicates), objective, duplicates)


def test_blocks_of_the_ring_change_nothing(monkeypatch):
    unblocked = loss_and_gradients("ring", "softmax", "positives")
    monkeypatch.setattr(losses, "BLOCK", 5)  # the largest divisor of 16 up to 5 is 4
    blocked = loss_and_gradients("ring", "softmax", "positives")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), unblocked, blocked
    )


def test_the_form_goes_by_the_number_of_logits(monkeypatch):
    forms = []
    monkeypatch.setattr(losses, "_ring_loss", lambda *a: forms.append("ring") or jnp.zeros(()))
    monkeypatch.setattr(losses, "_plain_loss", lambda *a: forms.append("plain") or jnp.zeros(()))
    for limit in (BATCH * BATCH, BATCH * BATCH - 1):
        monkeypatch.setattr(losses, "LARGEST_PLAIN", limit)
        contrastive_loss(*inputs())
    assert forms == ["plain", "ring"]


def test_the_rings_memory_does_not_grow_with_the_square_of_the_batch():
    def temporaries(batch, form):
        spec = jax.ShapeDtypeStruct((batch, WIDTH), jnp.float32)
        scalar = jax.ShapeDtypeStruct((), jnp.float32)

        def loss(*arguments):
            return contrastive_loss(*arguments, form=form)

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(spec, spec, scalar).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    ring = [temporaries(batch, "ring") for batch in (2048, 8192)]
    plain = [temporaries(batch, "plain") for batch in (2048, 8192)]
    assert ring[1] < 6 * ring[0] and plain[1] > 12 * plain[0] and ring[1] < plain[1] / 4

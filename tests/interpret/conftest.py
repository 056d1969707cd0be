"""A small ViT with weights that are not trivial, and what explains its logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.interpret.attention import explained_attention
from jaxformers.models.vit import ViT, ViTConfig

PATCH, CLASSES = 2, (2, 0)


def shaken(variables, seed=0):
    """Every parameter moved, biases and norms too."""
    leaves, tree = jax.tree.flatten(variables)
    draws = np.random.RandomState(seed)
    moved = [x + jnp.asarray(0.3 * draws.randn(*x.shape), x.dtype) for x in leaves]
    return jax.tree.unflatten(tree, moved)


@pytest.fixture(scope="session")
def vit():
    """(config, variables, images [2, 6, 6, 3])."""
    config = ViTConfig(6, PATCH, width=8, heads=2, feed_forward=12, layers=2, classes=3)
    images = np.random.RandomState(1).randn(2, 6, 6, 3).astype(np.float32)
    variables = jax.jit(ViT(config).init)(jax.random.key(0), images)
    return config, shaken(variables), images


@pytest.fixture(scope="session")
def explained(vit):
    """Both images' classes 2 and 0, explained."""
    config, variables, images = vit
    targets = jnp.asarray([CLASSES] * 2)
    return explained_attention(ViT(config), variables, images, targets=targets)

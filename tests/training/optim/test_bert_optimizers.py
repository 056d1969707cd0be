"""BERT's Adam and LAMB against plain statements of them in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxformers.training import BertAdam, Lamb

SHAPES = {
    "dense": {"kernel": (5, 3), "bias": (3,)},
    "norm": {"scale": (4,), "bias": (4,)},
    "blocks": {"up": {"kernel": (2, 4, 3), "bias": (2, 3)}},
}
DECAYED = {"dense/kernel", "blocks/up/kernel"}


def draw(seed, spread=1.0):
    rng = np.random.default_rng(seed)
    arrays = jax.tree.map(
        lambda shape: rng.standard_normal(shape) * spread,
        SHAPES,
        is_leaf=lambda x: type(x) is tuple,
    )
    return {
        "/".join(k.key for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    }


def nested(leaves):
    tree = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        at = tree
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = jnp.asarray(leaf, jnp.float32)
    return tree


def flat(tree):
    return {
        "/".join(k.key for k in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def trained(optimizer, steps=12, rate=0.01):
    tx, params = optimizer.build(lambda count: rate), nested(draw(0))
    state = tx.init(params)

    @jax.jit
    def step(params, state, grads):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for n in range(steps):
        params, state = step(params, state, nested(draw(n + 1, 0.1)))
    return flat(params)


def stated(update, steps=12, rate=0.01):
    w = draw(0)
    m, v = ({name: 0.0 * leaf for name, leaf in w.items()} for _ in range(2))
    for n in range(steps):
        for name, g in draw(n + 1, 0.1).items():
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            w[name] = w[name] - rate * update(name, w[name], m[name], v[name], n + 1)
    return w


def test_berts_adam_corrects_no_bias_and_decays_no_norm_and_no_bias():
    def update(name, w, m, v, _):
        return m / (np.sqrt(v) + 1e-6) + (0.01 * w if name in DECAYED else 0.0)

    expected = stated(update)
    for name, leaf in trained(BertAdam()).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=0, atol=2e-6, err_msg=name)


def test_lamb_scales_each_layer_of_a_stack_by_its_own_norms():
    def scaled(w, u):
        norms = np.linalg.norm(w), np.linalg.norm(u)
        return u * (norms[0] / norms[1] if min(norms) > 0 else 1.0)

    def update(name, w, m, v, n):
        u = (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.999**n)) + 1e-6)
        if name not in DECAYED:
            return u
        u = u + 0.01 * w
        if name.startswith("blocks"):
            return np.stack([scaled(*layer) for layer in zip(w, u, strict=True)])
        return scaled(w, u)

    expected = stated(update)
    for name, leaf in trained(Lamb()).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("zero", ["weights", "gradients"])
def test_lambs_ratio_is_one_where_a_norm_is_zero(zero):
    params = {"dense": {"kernel": jnp.full((2, 2), float(zero != "weights"))}}
    grads = {"dense": {"kernel": jnp.full((2, 2), float(zero != "gradients"))}}
    tx = Lamb(weight_decay=0.0).build(lambda count: 1.0)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(grads, tx.init(params), params)
    assert np.isfinite(updates["dense"]["kernel"]).all()

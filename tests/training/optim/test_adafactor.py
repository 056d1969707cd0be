"""Adafactor against a plain statement in NumPy, against optax, and on a mesh."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxformers.sharding import MeshConfig, like_parameters, make_mesh, path_text, shardings
from jaxformers.training import Adafactor, T5Schedule

SHAPES = {
    "token_embedding/table": (264, 160),
    "encoder/blocks/attention/query/kernel": (2, 160, 4, 40),
    "encoder/blocks/attention/out/kernel": (2, 4, 40, 160),
    "encoder/blocks/feed_forward/up/kernel": (2, 160, 128),
    "encoder/blocks/feed_forward/up/bias": (2, 128),
    "encoder/blocks/norm/scale": (2, 160),
    "patch_projection/kernel": (12, 160),  # too short to be factored
    "relative_bias/text": (4, 32),
    "norm/scale": (160,),
}
FACTORED = {  # rows and columns of a layer's matrix
    "token_embedding/table": (264, 160),
    "encoder/blocks/attention/query/kernel": (160, 160),
    "encoder/blocks/attention/out/kernel": (160, 160),
    "encoder/blocks/feed_forward/up/kernel": (160, 128),
}
STEPS = 20


def draw(seed, spread=1.0):
    rng = np.random.default_rng(seed)
    return {path: rng.standard_normal(shape) * spread for path, shape in SHAPES.items()}


@cache
def gradients(step):
    """Between 0.01 and 100 in size, so that clipping and momentum matter."""
    return draw(100 + step, 10.0 ** ((step * 7) % 5 - 2))


def nested(leaves):
    tree = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = jnp.asarray(leaf, jnp.float32)
    return tree


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_text(path): np.asarray(leaf) for path, leaf in leaves}


def trained(tx, mesh=None):
    """The parameters after `STEPS` updates."""
    with jax.numpy_dtype_promotion("standard"):
        params = nested(draw(0, 0.05))
        state = tx.init(params)
        if mesh is not None:
            param_shardings = shardings(params, mesh)
            state_shardings = like_parameters(state, params, param_shardings, mesh)
            params = jax.device_put(params, param_shardings)
            state = jax.device_put(state, state_shardings)

        @jax.jit
        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        for n in range(STEPS):
            params, state = step(params, state, nested(gradients(n)))
    return flat(params)


def rms(x):
    return np.sqrt(np.mean(x**2))


def stated_update(gradient, moments, n, factored):
    """Shazeer and Stern 2018, algorithms 4 and 5, up to the clipped update."""
    beta = 1 - n**-0.8
    square = gradient**2 + 1e-30
    if not factored:
        moments["v"] = beta * moments.get("v", 0) + (1 - beta) * square
        update = gradient / np.sqrt(moments["v"])
    else:
        moments["r"] = beta * moments.get("r", 0) + (1 - beta) * square.sum(axis=1)
        moments["c"] = beta * moments.get("c", 0) + (1 - beta) * square.sum(axis=0)
        v = np.outer(moments["r"], moments["c"]) / moments["r"].sum()
        update = gradient / np.sqrt(v)
    return update / max(1.0, rms(update))


def stated(path, momentum=0.9, relative=True):
    """One parameter after `STEPS` updates, layer by layer, each layer as a matrix or a vector."""

    def layers(array):
        shape = FACTORED.get(path)
        layers = array if "blocks" in path else array[None]
        return layers if shape is None else layers.reshape(len(layers), *shape)

    schedule, final = T5Schedule(constant=5), []
    for layer, w in enumerate(layers(draw(0, 0.05)[path])):
        m, moments = 0.0, {}
        for n in range(1, STEPS + 1):
            gradient = layers(gradients(n - 1)[path])[layer]
            update = stated_update(gradient, moments, n, path in FACTORED)
            rate = float(schedule.rate(n - 1, STEPS)) * (max(rms(w), 1e-3) if relative else 1.0)
            m = momentum * m + (1 - momentum) * rate * update
            w = w - m
        final.append(w)
    return np.stack(final).reshape(SHAPES[path])


def built(optimizer):
    return optimizer.build(lambda count: T5Schedule(constant=5).rate(count, STEPS))


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (Adafactor(), {}),
        (Adafactor(b1=0.0, scale_by_parameters=False), {"momentum": 0.0, "relative": False}),
    ],
    ids=["published", "plain"],
)
def test_twenty_updates_follow_the_papers_statement(optimizer, settings):
    for path, leaf in trained(built(optimizer)).items():
        expected = stated(path, **settings)
        np.testing.assert_allclose(leaf, expected, rtol=0, atol=1e-4, err_msg=path)


def test_matrices_of_two_axes_are_updated_as_by_optax():
    ours = trained(built(Adafactor()))
    rate = T5Schedule(constant=5)
    theirs = trained(optax.adafactor(lambda count: rate.rate(count, STEPS), momentum=0.9))
    for path in ("token_embedding/table", "patch_projection/kernel", "norm/scale"):
        np.testing.assert_allclose(ours[path], theirs[path], rtol=0, atol=1e-5, err_msg=path)


def test_moments_of_matrices_are_two_vectors_for_each_layer_sharded_along_what_they_keep():
    params, mesh = nested(draw(0)), make_mesh(MeshConfig(2, 2, 2))
    with jax.numpy_dtype_promotion("standard"):
        state = built(Adafactor()).init(params)[0]
    assert flat(state.rows)["encoder/blocks/attention/query/kernel"].shape == (2, 160, 1, 1)
    assert flat(state.columns)["encoder/blocks/attention/query/kernel"].shape == (2, 1, 4, 40)
    assert flat(state.rows)["encoder/blocks/attention/out/kernel"].shape == (2, 4, 40, 1)
    assert flat(state.rows)["token_embedding/table"].shape == (264, 1)
    assert set(flat(state.columns)) == set(FACTORED)
    where = like_parameters(state, params, shardings(params, mesh), mesh)
    specs = {
        path_text(path): tuple(leaf.spec)
        for path, leaf in jax.tree_util.tree_leaves_with_path(where)
    }
    query = "encoder/blocks/attention/query/kernel"
    assert specs[f"rows/{query}"] == (None, "fsdp", None, None)
    assert specs[f"columns/{query}"] == (None, None, "tensor", None)
    assert specs["rows/token_embedding/table"] == ("tensor", None)
    assert specs["columns/token_embedding/table"] == (None, "fsdp")
    assert specs["rows/encoder/blocks/feed_forward/up/bias"] == (None, "tensor")


def test_a_parameter_without_gradients_stays():
    params, tx = nested(draw(0)), built(Adafactor())
    with jax.numpy_dtype_promotion("standard"):
        zeros, state = jax.jit(lambda p: (jax.tree.map(jnp.zeros_like, p), tx.init(p)))(params)
        updates, _ = jax.jit(tx.update)(zeros, state, params)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(updates))


@pytest.mark.slow
def test_a_mesh_gives_the_updates_of_one_device():
    single, sharded = (
        trained(built(Adafactor()), mesh) for mesh in (None, make_mesh(MeshConfig(2, 2, 2)))
    )
    for path, leaf in single.items():
        np.testing.assert_allclose(sharded[path], leaf, rtol=0, atol=1e-5, err_msg=path)

"""Optimizer state lies as its parameters do, whatever the optax chain."""

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxformers.errors import ShardingError
from jaxformers.sharding import MeshConfig, like_parameters, make_mesh, path_text, shardings

PARAMS = {
    "encoder": {
        "blocks": {
            "feed_forward": {"up": {"kernel": jnp.zeros((2, 16, 32)), "bias": jnp.zeros((2, 32))}},
            "feed_forward_norm": {"scale": jnp.ones((2, 16))},
        }
    },
    "token_embedding": {"table": jnp.zeros((104, 16))},
}


def only_kernels(params):
    return jax.tree.map(lambda x: x.ndim > 2, params)


def labels(params):
    return {k: "slow" if k == "encoder" else "fast" for k in params}


CHAINS = {
    "adam": optax.adam(1e-3),
    "adamw with a mask": optax.adamw(1e-3, mask=only_kernels),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
    "two optimizers": optax.multi_transform(
        {"slow": optax.adam(1e-4), "fast": optax.sgd(1e-2, momentum=0.9)}, labels
    ),
    "in several steps": optax.MultiSteps(optax.adam(1e-3), 4),
    "averaged": optax.chain(optax.adam(1e-3), optax.ema(0.99)),
    "lamb": optax.lamb(1e-3),
    "nested": optax.chain(optax.masked(optax.trace(0.9), only_kernels), optax.adamw(1e-3)),
}


def leaves(tree):
    return {path_text(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)])
@pytest.mark.parametrize("name", CHAINS)
def test_every_copy_of_a_parameter_is_divided_like_it(name, shape):
    mesh = make_mesh(MeshConfig(*shape))
    where = shardings(PARAMS, mesh)
    with jax.numpy_dtype_promotion("standard"):
        state = jax.jit(CHAINS[name].init)(PARAMS)
    sharded_state = jax.device_put(state, like_parameters(state, PARAMS, where, mesh))
    parameters, copies = leaves(jax.device_put(PARAMS, where)), 0
    for path, leaf in leaves(sharded_state).items():
        if not leaf.shape:
            continue
        (like,) = (p for p in parameters if path.endswith(p))
        assert leaf.sharding == parameters[like].sharding
        shares = {s.data.nbytes for s in leaf.addressable_shards}
        assert shares == {s.data.nbytes for s in parameters[like].addressable_shards}
        copies += 1
    assert copies >= 1
    assert leaves(sharded_state).keys() == leaves(state).keys()


def test_state_that_follows_no_parameter_is_refused_by_its_path():
    mesh = make_mesh(MeshConfig(1, 8, 1))
    state = {"history": {"buffer": jnp.zeros((5, 7))}}
    with pytest.raises(ShardingError, match=r"'history/buffer' of shape \(5, 7\)"):
        like_parameters(state, PARAMS, shardings(PARAMS, mesh), mesh)


def test_a_name_that_is_the_end_of_anothers_is_told_apart_by_its_shape():
    mesh = make_mesh(MeshConfig(1, 8, 1))
    params = {"up": {"kernel": jnp.zeros((16, 8))}, "x": {"up": {"kernel": jnp.zeros((32, 8))}}}
    where = shardings(params, mesh)
    state_shardings = like_parameters({"mu": params}, params, where, mesh)
    assert state_shardings["mu"]["x"]["up"]["kernel"] == where["x"]["up"]["kernel"]

"""A train step for a custom model on a mesh, without a task or an experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxformers.pretrained import registry
from jaxformers.sharding import TABLE, Row, batch_sharding, like_parameters, shardings

Params = Any
Update = Callable[[Params, Any, Any], tuple[Params, Any, jax.Array]]


def sharded_update(
    init: Callable[[], Params],
    loss: Callable[[Params, Any], jax.Array],
    tx: optax.GradientTransformation,
    mesh: Mesh,
    rows: Sequence[Row] = (),
) -> tuple[Params, Any, Update]:
    """Sharded parameters and optimizer state, and a compiled update.

    Args:
        init: returns fresh parameters.
        loss: the mean loss of (parameters, batch).
        tx: any optax transformation.
        mesh: from `make_mesh`.
        rows: sharding rows for parameters that the library's table does not have.

    Returns:
        `(params, opt_state, update)`. `update(params, opt_state, batch)` returns the new parameters
        and optimizer state and the loss; it donates the old ones. Batches come from
        `put_batch(batch, mesh)`.

    Raises:
        ShardingError: a parameter that no sharding row names, or that the mesh does not divide.
    """

    def init_state():
        params = init()
        with jax.numpy_dtype_promotion("standard"):
            return params, tx.init(params)

    def update(params, opt_state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    with jax.set_mesh(mesh):
        params, opt_state = jax.eval_shape(init_state)
        param_shardings = shardings(params, mesh, (*TABLE, *registry.sharding_rows(), *rows))
        opt_shardings = like_parameters(opt_state, params, param_shardings, mesh)
        state_shardings = (param_shardings, opt_shardings)
        state = jax.jit(init_state, out_shardings=state_shardings)()
    replicated = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(
        update,
        in_shardings=(*state_shardings, batch_sharding(mesh)),
        out_shardings=(*state_shardings, replicated),
        donate_argnums=(0, 1),
    )

    def step(params, opt_state, batch):
        with jax.set_mesh(mesh):
            return compiled(params, opt_state, batch)

    return (*state, step)

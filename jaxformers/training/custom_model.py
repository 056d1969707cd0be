"""A model of one's own, trained on a mesh without a task or experiment: a notebook's train step."""

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
    """Parameters and optimizer state made where they lie on the mesh, and a compiled update.

    Args:
        init: makes the parameters.
        loss: the mean loss of (parameters, batch).
        tx: any optax transformation.
        mesh: from `make_mesh`.
        rows: sharding rows for parameters that the library's table does not name.

    Returns:
        `(params, opt_state, update)`; `update(params, opt_state, batch)` gives the new two and the
        loss, and donates the old ones. Batches come from `put_batch(batch, mesh)`.

    Raises:
        ShardingError: a parameter that no row names, or that the mesh does not divide.
    """

    def start():
        params = init()
        with jax.numpy_dtype_promotion("standard"):
            return params, tx.init(params)

    def update(params, opt_state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    with jax.set_mesh(mesh):
        params, opt_state = jax.eval_shape(start)
        where = shardings(params, mesh, (*TABLE, *registry.sharding_rows(), *rows))
        state = (where, like_parameters(opt_state, params, where, mesh))
        made = jax.jit(start, out_shardings=state)()
    whole = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(
        update,
        in_shardings=(*state, batch_sharding(mesh)),
        out_shardings=(*state, whole),
        donate_argnums=(0, 1),
    )

    def step(params, opt_state, batch):
        with jax.set_mesh(mesh):
            return compiled(params, opt_state, batch)

    return (*made, step)

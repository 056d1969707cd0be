"""The state that a train step takes and gives back, and how it lies on the mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxformers.errors import WeightsError
from jaxformers.sharding import like_parameters, path_text, shardings
from jaxformers.tasks.base import Task
from jaxformers.training.experiment import Experiment


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """Everything that a step changes."""

    step: jax.Array
    params: Any
    opt_state: Any
    model_state: Any
    """Collections beside the parameters, such as `batch_stats`."""
    ema: Any
    """Moving average of the parameters, or None."""

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, **self.model_state}


def init_state(task: Task, model: nn.Module, tx: optax.GradientTransformation, experiment):
    """A fresh state; run it under `jax.jit` with `state_shardings` to make it where it lies."""
    variables = task.init(model, jax.random.key(experiment.seed))
    params = variables.pop("params")
    with jax.numpy_dtype_promotion("standard"):
        opt_state = tx.init(params)
    ema = params if experiment.ema is not None else None
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, variables, ema)


def abstract_state(experiment: Experiment, model, tx, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the state, without making it.

    Raises:
        ShardingError: a parameter that no row names, or that the mesh does not divide.
    """
    shapes = jax.eval_shape(lambda: init_state(experiment.task, model, tx, experiment))
    where = state_shardings(shapes, experiment, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        where,
    )


def state_shardings(shapes: TrainState, experiment: Experiment, mesh: Mesh) -> TrainState:
    """Parameters by the table, what copies them like them, the rest whole."""
    params = shardings(shapes.params, mesh, experiment.table)
    whole = NamedSharding(mesh, PartitionSpec())
    return TrainState(
        step=whole,
        params=params,
        opt_state=like_parameters(shapes.opt_state, shapes.params, params, mesh),
        model_state=jax.tree.map(lambda _: whole, shapes.model_state),
        ema=None if shapes.ema is None else params,
    )


def started_from(state: TrainState, given: Any) -> TrainState:
    """A fresh state with the variables `given`, collections of nested arrays, in place of its own.

    Raises:
        WeightsError: a variable that the model lacks, or that has another shape.
    """
    leaves = {path_text(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(given)}
    own = state.variables
    known = {path_text(p): x for p, x in jax.tree_util.tree_leaves_with_path(own)}
    wrong = [p for p, x in leaves.items() if p not in known or known[p].shape != x.shape]
    if wrong:
        raise WeightsError(f"the model has no variables of these shapes: {', '.join(wrong[:5])}")

    def put(path: Any, leaf: jax.Array) -> jax.Array:
        new = leaves.get(path_text(path))
        return leaf if new is None else put_whole(new, leaf)

    begun = jax.tree_util.tree_map_with_path(put, own)
    params = begun.pop("params")
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return replace(state, params=params, model_state=begun, ema=ema)


def put_whole(array: Any, like: jax.Array) -> jax.Array:
    """An array that every host has whole, laid out as `like`."""
    value = np.asarray(array, like.dtype)
    return jax.make_array_from_callback(value.shape, like.sharding, lambda part: value[part])

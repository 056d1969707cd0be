"""`TrainState`, its shardings, its optimizer, and the values that it starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jaxformers.errors import WeightsError
from jaxformers.sharding import like_parameters, path_text, shardings
from jaxformers.training.experiment import Experiment
from jaxformers.training.optim.optimizers import transformation


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """Everything that a train step changes."""

    step: jax.Array
    params: Any
    opt_state: Any
    model_state: Any
    """Collections beside the parameters, such as `batch_stats`."""
    ema: Any
    """Exponential moving average of the parameters, or None."""

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that `model.apply` takes."""
        return {"params": self.params, **self.model_state}


def make_transformation(experiment: Experiment) -> optax.GradientTransformation:
    """The experiment's optimizer with its schedule, clipping and frozen parameters."""
    rate = learning_rate(experiment)
    return transformation(experiment.optimizer, rate, experiment.clip_norm, experiment.frozen)


def learning_rate(experiment: Experiment) -> optax.Schedule:
    """The schedule over the experiment's steps."""
    return lambda count: experiment.schedule.rate(count, experiment.steps)


def init_state(
    experiment: Experiment, model: nn.Module, key: jax.Array | None = None
) -> TrainState:
    """A fresh state; under `jax.jit` with `out_shardings` it is created sharded.

    Args:
        experiment: its task and optimizer.
        model: the module.
        key: of the random values; None: that of the experiment's seed.
    """
    key = jax.random.key(experiment.seed) if key is None else key
    variables = experiment.task.init(model, key)
    params = variables.pop("params")
    # optax mixes types where the library's own code may not.
    with jax.numpy_dtype_promotion("standard"):
        opt_state = make_transformation(experiment).init(params)
    ema = params if experiment.ema is not None else None
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, variables, ema)


def abstract_state(experiment: Experiment, model: nn.Module, mesh: Mesh) -> TrainState:
    """The state as `jax.ShapeDtypeStruct`s with shardings; nothing is allocated.

    Raises:
        ShardingError: a parameter that no sharding row names, or that the mesh does not divide.
    """
    shapes = jax.eval_shape(lambda: init_state(experiment, model))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings(shapes, experiment, mesh),
    )


def state_shardings(
    shapes: TrainState, experiment: Experiment, mesh: Mesh | AbstractMesh
) -> TrainState:
    """Shardings of a state: parameters by the sharding table, the rest as follows from them."""
    params = shardings(shapes.params, mesh, experiment.table)
    replicated = NamedSharding(mesh, PartitionSpec())
    return TrainState(
        step=replicated,
        params=params,
        # Moments are sharded as the parameters that they belong to, found by path and shape.
        opt_state=like_parameters(shapes.opt_state, shapes.params, params, mesh),
        # Batch statistics are small, and every device needs all of them.
        model_state=jax.tree.map(lambda _: replicated, shapes.model_state),
        ema=None if shapes.ema is None else params,
    )


def with_pretrained_values(state: TrainState, pretrained: Any) -> TrainState:
    """A fresh state with `pretrained` values in place of its own where they have the same path.

    Args:
        state: sharded, from `init_state`.
        pretrained: collections (`params`, `batch_stats`) of nested arrays, whole on every host.

    Raises:
        WeightsError: a variable that the model lacks, or that has another shape.
    """
    new = {path_text(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(pretrained)}
    variables = state.variables
    old = {path_text(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(variables)}
    wrong = [p for p, leaf in new.items() if p not in old or old[p].shape != leaf.shape]
    if wrong:
        raise WeightsError(f"the model has no variables of these shapes: {', '.join(wrong[:5])}")

    def replace_leaf(path: Any, leaf: jax.Array) -> jax.Array:
        array = new.get(path_text(path))
        return leaf if array is None else shard_like(array, leaf)

    variables = jax.tree_util.tree_map_with_path(replace_leaf, variables)
    params = variables.pop("params")
    # The average starts at the new values. A copy, since the train step donates its state and no
    # buffer may be donated twice.
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return replace(state, params=params, model_state=variables, ema=ema)


def shard_like(array: Any, like: jax.Array) -> jax.Array:
    """`array`, whole on every host, with the type and sharding of `like`."""
    array = np.asarray(array, like.dtype)
    return jax.make_array_from_callback(array.shape, like.sharding, lambda index: array[index])

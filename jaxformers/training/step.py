"""The train step: loss, gradients, update, as one jitted function of (state, batch)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxformers.errors import ShardingError
from jaxformers.sharding import batch_sharding
from jaxformers.training.experiment import Experiment
from jaxformers.training.optim.optimizers import is_frozen, transformation
from jaxformers.training.state import TrainState, abstract_state

PREPARING = 2**32 - 1  # no part of a batch has this number

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def make_transformation(experiment: Experiment) -> optax.GradientTransformation:
    """The experiment's optimizer with its schedule and clipping."""
    rate = learning_rate(experiment)
    return transformation(experiment.optimizer, rate, experiment.clip_norm, experiment.frozen)


def learning_rate(experiment: Experiment) -> optax.Schedule:
    """The schedule over the experiment's steps."""
    return lambda count: experiment.schedule.rate(count, experiment.steps)


def make_step(experiment: Experiment, model: nn.Module, tx: optax.GradientTransformation) -> Step:
    """The step as a plain function; `jit_step` compiles it for a mesh.

    Gradients are those of the loss summed over the whole batch, divided by its whole weight, so
    neither the number of devices nor `accumulate` changes them. The metrics hold each gradient
    leaf's squared norm, so that a number that is not finite can be named.
    """
    task, rate = experiment.task, learning_rate(experiment)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(experiment.seed), state.step)
        batch = task.prepare(batch, jax.random.fold_in(key, PREPARING))
        grads, sums, model_state = _gradients(experiment, model, state, batch, key)
        weight = jnp.maximum(sums.pop("weight"), 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # Not `vdot`: it flattens, which gathers every divided gradient whole.
        squares = jnp.stack([jnp.square(g).sum() for g in jax.tree.leaves(grads)])
        metrics = {name: total / weight for name, total in sums.items()}
        metrics |= {
            "grad_norm": jnp.sqrt(squares.sum()),
            "learning_rate": rate(state.step),
            "squared_norms": squares,
        }
        ema = _averaged(state.ema, params, experiment.ema)
        return TrainState(state.step + 1, params, opt_state, model_state, ema), metrics

    return step


def _gradients(experiment: Experiment, model, state: TrainState, batch, key):
    """Gradients and metrics of the summed loss, in turns; the model's other state."""
    task, parts = experiment.task, experiment.accumulate

    def summed(params, model_state, rows, key):
        if experiment.frozen:  # so that no gradient is computed
            params = jax.tree_util.tree_map_with_path(
                lambda p, x: jax.lax.stop_gradient(x) if is_frozen(p, experiment.frozen) else x,
                params,
            )
        variables = {"params": params, **model_state}
        loss = task.loss(model, variables, rows, train=True, rngs={"dropout": key})
        sums = {"loss": loss.total, "weight": loss.weight, **loss.metrics}
        return loss.total, (sums, {**model_state, **loss.model_state})

    grad = jax.grad(summed, has_aux=True)
    if parts == 1:
        grads, (sums, model_state) = grad(state.params, state.model_state, batch, key)
        return grads, sums, model_state

    def turn(carry, inputs):
        grads, sums, model_state = carry
        rows, key = inputs
        new_grads, (new_sums, model_state) = grad(state.params, model_state, rows, key)
        return (_add(grads, new_grads), _add(sums, new_sums), model_state), None

    rows, keys = _split(batch, parts), jax.random.split(key, parts)
    first = jax.tree.map(lambda x: x[0], rows)
    shapes = jax.eval_shape(grad, state.params, state.model_state, first, key)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[1][0]))
    (grads, sums, model_state), _ = jax.lax.scan(turn, (*zeros, state.model_state), (rows, keys))
    return grads, sums, model_state


def _split(batch: Any, parts: int) -> Any:
    for rows in {x.shape[0] for x in jax.tree.leaves(batch)}:
        if rows % parts:
            raise ShardingError(
                f"a batch of {rows} rows does not divide into {parts} parts; change --accumulate "
                "or the batch's rows"
            )
    # Row i goes to part i % parts, so that every device keeps its own rows.
    return jax.tree.map(
        lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _averaged(ema: Any, params: Any, decay: float | None) -> Any:
    if ema is None:
        return None
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, ema, params)


def jit_step(experiment: Experiment, model: nn.Module, mesh: Mesh) -> tuple[Step, TrainState]:
    """The compiled step for a mesh, and the abstract state it takes (and donates)."""
    tx = make_transformation(experiment)
    state = abstract_state(experiment, model, tx, mesh)
    where = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = jax.jit(
        make_step(experiment, model, tx),
        in_shardings=(where, batch_sharding(mesh)),
        out_shardings=(where, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
    )
    return step, state

"""The train step: loss, gradients, update, as one jitted function of (state, batch)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxformers.costs import model_flops
from jaxformers.errors import ConfigError, ShardingError
from jaxformers.layers import Execution
from jaxformers.sharding import batch_sharding
from jaxformers.training.experiment import Experiment
from jaxformers.training.optim.optimizers import is_frozen
from jaxformers.training.state import TrainState, init_state, learning_rate, make_transformation

PREPARE = 2**32 - 1
"""Folded into the step's key for `task.prepare`; no microbatch has this number."""

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def make_step(experiment: Experiment, model: nn.Module) -> Step:
    """The train step as a plain function; `jit_step` compiles it for a mesh.

    Gradients are those of the loss summed over the global batch, divided by its total weight: with
    the weighted examples i of all devices and microbatches, g = sum_i grad(l_i) / sum_i w_i. So
    neither the number of devices nor `accumulate` changes them. The metrics hold each gradient
    leaf's squared norm, so that the loop can name a gradient that is not finite.
    """
    task, rate, tx = experiment.task, learning_rate(experiment), make_transformation(experiment)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        # Random numbers are a function of (seed, step): a resumed run draws the same.
        key = jax.random.fold_in(jax.random.key(experiment.seed), state.step)
        batch = task.prepare(batch, jax.random.fold_in(key, PREPARE))
        grads, sums, model_state = _gradients(experiment, model, state, batch, key)
        weight = jnp.maximum(sums.pop("weight"), 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
        # optax mixes types where the library's own code may not.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = task.constrain_params(optax.apply_updates(state.params, updates))
        # Not `vdot`, which flattens its arguments: that all-gathers every sharded gradient.
        squared_norms = jnp.stack([jnp.square(g).sum() for g in jax.tree.leaves(grads)])
        metrics = {name: total / weight for name, total in sums.items()}
        metrics |= {
            "grad_norm": jnp.sqrt(squared_norms.sum()),
            "learning_rate": rate(state.step),
            "squared_norms": squared_norms,
        }
        ema = update_ema(state.ema, params, experiment.ema)
        return TrainState(state.step + 1, params, opt_state, model_state, ema), metrics

    return step


def _gradients(experiment: Experiment, model, state: TrainState, batch, key):
    """Gradients and metrics, both summed over the batch, and the model's other collections.

    With `accumulate` = A the batch is split into A microbatches [B / A, ...] and computed in a
    scan, so that the activations of only one of them are in memory.
    """
    task, num_microbatches = experiment.task, experiment.accumulate

    def summed_loss(params, model_state, rows, key):
        if experiment.frozen:  # the gradients of frozen parameters are not even computed
            params = jax.tree_util.tree_map_with_path(
                lambda p, x: jax.lax.stop_gradient(x) if is_frozen(p, experiment.frozen) else x,
                params,
            )
        variables = {"params": params, **model_state}
        loss = task.loss(model, variables, rows, train=True, rngs={"dropout": key})
        sums = {"loss": loss.total, "weight": loss.weight, **loss.metrics}
        return loss.total, (sums, {**model_state, **loss.model_state})

    grad = jax.grad(summed_loss, has_aux=True)
    if num_microbatches == 1:
        grads, (sums, model_state) = grad(state.params, state.model_state, batch, key)
        return grads, sums, model_state

    def accumulate(carry, inputs):
        grads, sums, model_state = carry
        rows, key = inputs
        # The model's state (batch statistics) goes from one microbatch to the next.
        new_grads, (new_sums, model_state) = grad(state.params, model_state, rows, key)
        grads = jax.tree.map(jnp.add, grads, new_grads)
        sums = jax.tree.map(jnp.add, sums, new_sums)
        return (grads, sums, model_state), None

    microbatches = split_batch(batch, num_microbatches)  # [A, B / A, ...]
    keys = jax.random.split(key, num_microbatches)
    first = jax.tree.map(lambda x: x[0], microbatches)
    grads, (sums, _) = jax.eval_shape(grad, state.params, state.model_state, first, key)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (grads, sums))
    (grads, sums, model_state), _ = jax.lax.scan(
        accumulate, (*zeros, state.model_state), (microbatches, keys)
    )
    return grads, sums, model_state


def split_batch(batch: Any, num_microbatches: int) -> Any:
    """[B, ...] to [num_microbatches, B / num_microbatches, ...].

    Raises:
        ShardingError: the rows do not divide.
    """
    for rows in {x.shape[0] for x in jax.tree.leaves(batch)}:
        if rows % num_microbatches:
            raise ShardingError(
                f"a batch of {rows} rows does not divide into {num_microbatches} parts; change "
                "--accumulate or the batch's rows"
            )
    # Row i goes to microbatch i % A: every device holds consecutive rows, so each microbatch takes
    # an equal share from every device, and no row moves between devices.
    return jax.tree.map(
        lambda x: x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1), batch
    )


def _check_additive(experiment: Experiment, model: nn.Module, state: TrainState) -> None:
    """Refuses gradient accumulation with a loss whose chunks do not add up, without compiling."""
    task = experiment.task

    def loss(variables: Any, batch: Any) -> Any:
        key = jax.random.key(0)
        batch = task.prepare(batch, key)
        return task.loss(model, variables, batch, train=True, rngs={"dropout": key})

    if not jax.eval_shape(loss, state.variables, task.batch_shapes()[0]).additive:
        raise ConfigError(
            f"the loss of {type(task).__name__} compares the rows of a whole batch, so gradients "
            "of parts of a batch do not add up: set --accumulate 1"
        )


def update_ema(ema: Any, params: Any, decay: float | None) -> Any:
    """decay * ema + (1 - decay) * params; None without a moving average."""
    if ema is None:
        return None
    return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, ema, params)


def jit_step(experiment: Experiment, model: nn.Module, mesh: Mesh, state: TrainState) -> Step:
    """The jitted step for a mesh; it donates its state.

    Args:
        experiment: with its final number of steps, which the schedule depends on.
        model: the module.
        mesh: that `state` is sharded on.
        state: from `abstract_state`.

    Raises:
        ConfigError: `accumulate` above 1 with a loss whose parts do not add up.
    """
    if experiment.accumulate > 1:
        _check_additive(experiment, model, state)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(
        make_step(experiment, model),
        in_shardings=(shardings, batch_sharding(mesh)),
        # Left to itself XLA chooses shardings for the new state that need not be those that the
        # next step takes. Metrics are replicated: every host reads all of them.
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
    )


def step_flops(experiment: Experiment, batch: Any) -> int:
    """Model FLOPs of one step: its matrix products, the numerator of MFU.

    They do not depend on how the step is executed. Counted are those of plain attention without
    rematerialisation, since kernels and rematerialisation compute some products twice, and of the
    form for accelerators.

    Args:
        experiment: what is trained.
        batch: the global batch, as arrays or `jax.ShapeDtypeStruct`s.
    """
    plain = Execution(target="tpu", attention="plain", vocab_multiple=experiment.vocab_multiple)
    model = experiment.task.module(plain)
    state = jax.eval_shape(lambda: init_state(experiment, model))
    return model_flops(make_step(experiment, model), state, batch)

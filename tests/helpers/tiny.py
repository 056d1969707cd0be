"""A translation experiment of some thousand parameters, its batch, and its runs on any mesh."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import jax
import numpy as np

from jaxformers.data import BundledPairs, Packing
from jaxformers.models import TransformerConfig
from jaxformers.runs.check_subject import QUICK
from jaxformers.sharding import MeshConfig, make_mesh, put_batch
from jaxformers.tasks import Translation
from jaxformers.training import Experiment, Linear
from jaxformers.training.state import abstract_state, init_state
from jaxformers.training.step import jit_step

# 101 tokens divide by nothing; 8 heads allow tensor parallelism of 8.
MODEL = TransformerConfig(
    vocab_size=101, width=16, heads=8, feed_forward=32, encoder_layers=2, decoder_layers=1,
    dropout=0.2, max_length=16,
)  # fmt: skip
EXPERIMENT = Experiment(
    name="tiny",
    task=Translation(MODEL, BundledPairs(), batching=Packing(10, 9, 8)),
    steps=20,
    schedule=Linear(peak=3e-3, warmup=2),
    vocab_multiple=8,
)


def changed(dropout: float | None = None, **changes) -> Experiment:
    """The experiment with other fields, or another dropout."""
    if dropout is not None:
        task = replace(EXPERIMENT.task, model=replace(MODEL, dropout=dropout))
        changes["task"] = task
    return replace(EXPERIMENT, **changes)


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    """A packed batch of random pairs."""
    return EXPERIMENT.task.example(seed)


@lru_cache
def mesh_of(shape: tuple[int, int, int]):
    """A mesh of the first devices."""
    return make_mesh(MeshConfig(*shape), jax.devices()[: math.prod(shape)])


@lru_cache
def start(experiment: Experiment):
    """A fresh state on one device, as NumPy arrays."""
    with jax.set_mesh(mesh_of((1, 1, 1))):
        model = experiment.task.module(experiment.execution(mesh_of((1, 1, 1))))
        return jax.device_get(jax.jit(lambda: init_state(experiment, model))())


@lru_cache
def compiled(experiment: Experiment, shape: tuple[int, int, int]):
    """The train step compiled for a mesh, its state there, and the mesh."""
    mesh = mesh_of(shape)
    with jax.set_mesh(mesh):
        model = experiment.task.module(experiment.execution(mesh))
        abstract = abstract_state(experiment, model, mesh)
        step = jit_step(experiment, model, mesh, abstract)
        program = step.lower(abstract, put_batch(batch(), mesh)).compile(QUICK)
    return program, abstract


@lru_cache
def run(experiment: Experiment, shape: tuple[int, int, int] = (1, 1, 1), steps: int = 5):
    """The metrics of some steps, and the last state."""
    program, abstract = compiled(experiment, shape)
    mesh, history = mesh_of(shape), []
    with jax.set_mesh(mesh):
        state = jax.device_put(start(experiment), jax.tree.map(lambda x: x.sharding, abstract))
        for step in range(steps):
            state, metrics = program(state, put_batch(batch(step), mesh))
            history.append(jax.device_get(metrics))
    return history, state


def losses(experiment: Experiment, shape=(1, 1, 1), steps: int = 5) -> list[float]:
    """The loss of each step."""
    return [float(metrics["loss"]) for metrics in run(experiment, shape, steps)[0]]

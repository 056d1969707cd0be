"""What `jaxformers check` works on: the experiment, its small model, and its golden file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
from jax.sharding import Mesh

from jaxformers.costs.xla_warnings import captured_xla_warnings
from jaxformers.sharding import MeshConfig, make_mesh, put_batch
from jaxformers.training.experiment import Experiment
from jaxformers.training.state import TrainState, abstract_state, init_state
from jaxformers.training.step import jit_step

Shape = tuple[int, int, int]
ONE, DATA, FSDP, ALL = (1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2)
# Compile time is what a check waits for; the partitioned program is the same.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Fault(Exception):
    """What a part failed for, in words."""


def some(faults: Iterable[str]) -> str:
    """The first three, and how many more."""
    faults = list(faults)
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more


def mesh_of(shape: Shape) -> Mesh:
    """A mesh of the first devices."""
    return make_mesh(MeshConfig(*shape), jax.devices()[: math.prod(shape)])


class Subject:
    """What is checked, the golden file's content, and what was measured beside it."""

    def __init__(self, experiment: Experiment, content: dict[str, Any], update: bool):
        self.full, self.golden, self.update = experiment, content, update
        self.small = replace(experiment.rehearse(), precision="float32")
        self.batch = self.small.task.example(seed=0)
        self.measured: dict[str, Any] = {}
        self.warned: list[str] = []
        self.programs: dict[Shape, tuple[Any, TrainState, Mesh]] = {}

    def compare(self, name: str, now: Any) -> Any:
        """Notes what is measured; returns the golden value, or None when one is being made."""
        self.measured[name] = now
        if self.update:
            return None
        if name not in self.golden:
            raise Fault(
                f"no golden file for {self.full.name!r} tells its {name}; if the model is right as "
                "it is, make one with `jaxformers check FILE --update`"
            )
        return self.golden[name]

    def compiled(self, *lowered: Any) -> list[Any]:
        """Lowered programs compiled, side by side; their warnings are noted."""
        with captured_xla_warnings() as warnings, ThreadPoolExecutor() as pool:
            programs = list(pool.map(lambda program: program.compile(QUICK), lowered))
        self.warned += warnings
        return programs

    def steps(self, *shapes: Shape) -> list[tuple[Any, TrainState, Mesh]]:
        """For each mesh the small model's compiled train step, its abstract state, the mesh."""
        lowered, new = {}, [s for s in dict.fromkeys(shapes) if s not in self.programs]
        for shape in new:
            mesh = mesh_of(shape)
            with jax.set_mesh(mesh):
                model = self.small.task.module(self.small.execution(mesh))
                state = abstract_state(self.small, model, mesh)
                step = jit_step(self.small, model, mesh, state)
                lowered[shape] = step.lower(state, put_batch(self.batch, mesh)), state, mesh
        programs = self.compiled(*(program for program, _, _ in lowered.values()))
        for shape, program in zip(new, programs, strict=True):
            self.programs[shape] = (program, *lowered[shape][1:])
        return [self.programs[shape] for shape in shapes]

    @cached_property
    def start(self) -> TrainState:
        """A fresh state of the small model, as NumPy arrays."""
        mesh = mesh_of(ONE)
        with jax.set_mesh(mesh):
            model = self.small.task.module(self.small.execution(mesh))
            init = jax.jit(lambda: init_state(self.small, model))
            return jax.device_get(self.compiled(init.lower())[0]())

"""`Experiment`: everything a run is, as one frozen dataclass.

An experiment file defines `experiment()` and returns one. The command line overrides any field by
its path; a run keeps it as tagged JSON; `train`, `plan`, `check` and `describe` take the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from jax.sharding import Mesh

from jaxformers.errors import ConfigError
from jaxformers.layers import Execution
from jaxformers.layers.execution import Attention, Remat
from jaxformers.pretrained import registry
from jaxformers.sharding import TABLE, MeshConfig, Row, platform_of
from jaxformers.tasks.base import Task
from jaxformers.training.checkpoints.checkpoint_manager import Checkpointing
from jaxformers.training.follow_up_runs import rehearsals
from jaxformers.training.optim.optimizers import Adam, Optimizer
from jaxformers.training.optim.schedules import InverseSquareRoot, Schedule
from jaxformers.training.reports.training_log import Logging


@dataclass(frozen=True)
class Experiment:
    """One run: the task, how it is optimised, where it lies, what it writes."""

    name: str
    """Also the run's folder, under `runs/`."""
    task: Task
    """What is learned, on which data, with which model."""
    steps: int
    """Optimizer updates."""
    optimizer: Optimizer = Adam()
    schedule: Schedule = InverseSquareRoot()
    seed: int = 0
    """Of the parameters, the order of the data and dropout."""
    clip_norm: float | None = None
    """Gradients are scaled down to this global norm; None: never."""
    frozen: tuple[str, ...] = ()
    """Regular expressions: parameters whose whole paths match one keep their values."""
    epochs: float | None = field(default=None, metadata={"yields_to": "steps"})
    """Passes over the training data, in place of `steps`, which then follows from its size."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after another, to save memory."""
    ema: float | None = None
    """Decay of a moving average of the parameters, evaluated in their place; None: none."""
    average_last: int = 0
    """The final model is the mean of the last so many checkpoints (section 6.1); 0: the last."""
    evaluate_every: int = 0
    """Steps between evaluations on the development set; 0: only at the end."""
    mesh: MeshConfig = MeshConfig()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type; `auto`: bfloat16 on TPU and GPU, float32 on CPU. Parameters stay float32."""
    remat: Remat = "none"
    """What the backward pass computes again to save memory."""
    attention: Attention = "auto"
    """Back-end of attention; `auto`: splash attention on TPU where it saves memory. What it cannot
    do (attention dropout, showing its probabilities) is computed plainly, and the log says so."""
    vocab_multiple: int = 128
    """The vocabulary is stored padded to a multiple of this, so that any mesh divides it."""
    checkpoint: Checkpointing = Checkpointing()
    logging: Logging = Logging()
    sharding_rows: tuple[Row, ...] = field(default=())
    """Rows for parameters of one's own modules, beside the library's table."""
    after: tuple[Experiment, ...] = ()
    """Runs that follow in folders within this one's, by their names; weights or a vocabulary of
    "previous" are this run's."""

    def __post_init__(self):
        for name in ("steps", "accumulate", "vocab_multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it is at least 1")
        if self.epochs is not None and self.epochs <= 0:
            raise ConfigError(f"epochs is {self.epochs}; it is above 0, or None")
        if self.ema is not None and not 0.0 < self.ema < 1.0:
            raise ConfigError(f"ema is {self.ema}; it lies between 0 and 1")
        if self.ema is not None and self.average_last:
            raise ConfigError("ema and average_last both name the final weights; choose one")

    @property
    def table(self) -> tuple[Row, ...]:
        """All sharding rows."""
        return (*TABLE, *registry.sharding_rows(), *self.sharding_rows)

    def execution(self, mesh: Mesh) -> Execution:
        """How the model is computed on this mesh, by the platform that is targeted."""
        platform = platform_of(mesh)
        auto = "float32" if platform == "cpu" else "bfloat16"
        return Execution(
            dtype=auto if self.precision == "auto" else self.precision,
            target=platform,
            remat=self.remat,
            attention=self.attention,
            vocab_multiple=self.vocab_multiple,
        )

    def rehearse(self) -> Experiment:
        """The same run shrunk to seconds: the same code path, small shapes, bundled data."""
        task = self.task.rehearsal()
        return replace(
            self,
            name=f"{self.name}-rehearsal",
            task=task,
            after=rehearsals(self.after, task),
            steps=4,
            epochs=None,
            mesh=MeshConfig(data=-1, fsdp=2, tensor=2),
            vocab_multiple=8,
            average_last=min(self.average_last, 2),
            evaluate_every=0,
            checkpoint=replace(self.checkpoint, every=2, keep_best=0, best=""),
            logging=replace(self.logging, every=1, profile_at=None),
        )

"""`Experiment`: the complete configuration of a run, one frozen dataclass.

An experiment file defines `experiment()`, which returns one. The command line overrides any field
by its path; a run saves it as tagged JSON; `train`, `plan`, `check` and `describe` take the same
object.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from jax.sharding import Mesh

from jaxformers.errors import ConfigError
from jaxformers.fields import (
    CheckedFields,
    NonNegativeInt,
    OpenFraction,
    PositiveFloat,
    PositiveInt,
    Seed,
)
from jaxformers.layers import Execution
from jaxformers.layers.execution import Attention, Remat
from jaxformers.pretrained import registry
from jaxformers.sharding import TABLE, MeshConfig, Row, platform_of
from jaxformers.tasks.base import Task
from jaxformers.tasks.evaluator import Evaluator, rehearsed_evaluators
from jaxformers.training.checkpoints.checkpoint_manager import Checkpointing
from jaxformers.training.follow_up_runs import rehearsals
from jaxformers.training.optim.optimizers import Adam, Optimizer
from jaxformers.training.optim.schedules import InverseSquareRoot, Schedule
from jaxformers.training.reports.training_log import Logging


@dataclass(frozen=True)
class Experiment(CheckedFields):
    """One run: the task, the optimization, the mesh, what is written.

    Example:
        >>> from jaxformers.data.images import Augmentation, BundledFashionMnist, Preprocessing
        >>> from jaxformers.tasks import ImageClassification
        >>> from jaxformers.training import Adam, Cosine
        >>> config = jf.ViTConfig(
        ...     28, 7, channels=1, width=16, heads=2, feed_forward=32, layers=1, classes=10
        ... )
        >>> task = ImageClassification(
        ...     model=config,
        ...     data=BundledFashionMnist(limit=128),
        ...     augmentation=Augmentation(28, channels=1),
        ...     preprocessing=Preprocessing(28, channels=1, mean=(0.286,), std=(0.353,)),
        ...     rows=32,
        ... )
        >>> experiment = jf.Experiment(
        ...     name="clothes", task=task, steps=4, optimizer=Adam(), schedule=Cosine(1e-3, 2)
        ... )
        >>> result = jf.train(experiment)
        128 images of 10 classes ...
        >>> result.step, sorted(result.losses)
        (4, [1, 2, 3, 4])
    """

    name: str
    """Name of the run, and of its folder under `runs/`."""
    task: Task
    """The task with its data and its model."""
    steps: NonNegativeInt
    """Number of optimizer updates; 0: the initial weights are evaluated as they are."""
    optimizer: Optimizer = Adam()
    schedule: Schedule = InverseSquareRoot()
    seed: Seed = 0
    """Seed of the initial parameters, the order of the data, and dropout."""
    clip_norm: PositiveFloat | None = None
    """Maximal global norm of the gradients, which are scaled down to it; None: no clipping."""
    frozen: tuple[str, ...] = ()
    """Regular expressions; parameters whose whole paths match one are not trained."""
    epochs: PositiveFloat | None = field(default=None, metadata={"yields_to": "steps"})
    """Passes over the training data; `steps` is then computed from the size of the data."""
    accumulate: PositiveInt = 1
    """Number of microbatches that a batch is split into to save memory (gradient accumulation)."""
    ema: OpenFraction | None = None
    """Decay of an exponential moving average of the parameters, which is what is evaluated and
    exported; None: no average."""
    average_last: NonNegativeInt = 0
    """Number of last checkpoints that the final parameters are the mean of ("Attention Is All You
    Need", section 6.1); 0: no averaging."""
    evaluate_every: NonNegativeInt = 0
    """Steps between evaluations on the development set; 0: only at the end."""
    evaluators: tuple[Evaluator, ...] = field(default=())
    """Evaluations of the model, each with metrics of its own; empty: those of the task."""
    mesh: MeshConfig = MeshConfig()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type; `auto`: bfloat16 on TPU and GPU, float32 on CPU. Parameters are float32."""
    remat: Remat = "none"
    """What the backward pass recomputes to save memory."""
    attention: Attention = "auto"
    """Back-end of attention; `auto`: splash attention on TPU where it saves memory. What it does
    not support (attention dropout, returning probabilities) falls back to plain attention, which
    is logged."""
    vocab_multiple: PositiveInt = 128
    """The stored vocabulary is padded to a multiple of this, so that any mesh divides it."""
    checkpoint: Checkpointing = Checkpointing()
    logging: Logging = Logging()
    sharding_rows: tuple[Row, ...] = field(default=())
    """Sharding rows for parameters of custom modules, in addition to the library's table."""
    after: tuple[Experiment, ...] = ()
    """Follow-up runs, in sub-folders named after them. Where their task's `weights` or `vocabulary`
    is "previous", it is that of this run."""

    def __post_init__(self):
        super().__post_init__()
        if self.ema is not None and self.average_last:
            raise ConfigError("ema and average_last both name the final weights; choose one")
        names = [evaluator.name for evaluator in self.evaluators]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ConfigError(
                f"evaluators share the name {', '.join(sorted(repeated))}; give each its own name"
            )

    def chosen_evaluators(self) -> tuple[Evaluator, ...]:
        """The experiment's evaluators, else the task's."""
        return self.evaluators or self.task.evaluators()

    @property
    def table(self) -> tuple[Row, ...]:
        """The sharding rows of the library, of registered families and of the experiment."""
        return (*TABLE, *registry.sharding_rows(), *self.sharding_rows)

    def execution(self, mesh: Mesh) -> Execution:
        """Compute type, back-ends and memory choices on this mesh, by its platform."""
        platform = platform_of(mesh)
        auto = "float32" if platform == "cpu" else "bfloat16"
        return Execution(
            dtype=auto if self.precision == "auto" else self.precision,
            target=platform,
            remat=self.remat,
            attention=self.attention,
            vocab_multiple=self.vocab_multiple,
        )

    def resolve_epochs(self, steps_per_epoch: float) -> Experiment:
        """The experiment with `steps` computed from `epochs`, where it has them."""
        if self.epochs is None:
            return self
        return replace(self, steps=max(1, int(self.epochs * steps_per_epoch)))

    def rehearse(self) -> Experiment:
        """The run shrunk to a few seconds: the same code path on small shapes and bundled data."""
        task = self.task.rehearsal()
        return replace(
            self,
            name=f"{self.name}-rehearsal",
            task=task,
            after=rehearsals(self.after, task),
            steps=4 if self.steps else 0,
            epochs=None,
            mesh=MeshConfig(data=-1, fsdp=2, tensor=2),
            vocab_multiple=8,
            average_last=min(self.average_last, 2),
            evaluate_every=0,
            evaluators=rehearsed_evaluators(self.evaluators),
            checkpoint=replace(self.checkpoint, every=2, keep_best=0, best=""),
            logging=replace(self.logging, every=1, profile_at=None),
        )

"""What a task is: a model, its batches, a loss, and how the result is judged.

The loop, the planner and the command line know tasks by this alone. A task is configuration (a
frozen dataclass); `open` gives the data it works on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from jaxformers.layers import Execution
from jaxformers.tasks.processor import Processor, load_processor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = dict[str, np.ndarray]
Variables = dict[str, Any]


class Loss(NamedTuple):
    """A loss as a sum and what to divide it by, so that shares of a batch add up exactly."""

    total: jax.Array
    weight: jax.Array
    metrics: dict[str, jax.Array]
    """Further sums, each divided by `weight` before it is logged."""
    model_state: Variables
    """Collections that the step changed, such as `batch_stats`; usually empty."""


@dataclass
class Evaluation:
    """What an evaluation found."""

    metrics: dict[str, float]
    samples: list[tuple[str, str, str]] = field(default_factory=list)
    """(input, reference, output)."""
    notes: list[str] = field(default_factory=list)
    """Signatures and conditions that belong beside the numbers."""
    outputs: list[str] = field(default_factory=list)
    predictions: dict[str, list[str]] = field(default_factory=dict)
    """Lines of the file to hand in, by the name of each set whose labels others keep."""


class Comparison(NamedTuple):
    """Published results, and beside them those of a run, in the same columns."""

    title: str
    columns: tuple[str, ...]
    """What is compared, with its unit."""
    rows: list[tuple[str, tuple[float | None, ...]]]
    """Whose they are, and a value for each column, None where nothing is known."""
    ours: tuple[float | None, ...]
    note: str = ""
    """On what they were measured; where that differs, that they are not comparable."""


class TaskData(Protocol):
    """Data opened for a run."""

    fingerprint: dict[str, Any]
    """What the batches depend on; a run is resumed on the same or refused."""
    processor: Processor
    """The tokenizer and the preprocessing of the model's inputs, saved beside its weights."""

    def batches(self, seed: int, start: int, host: int, hosts: int) -> Iterator[Batch]:
        """This host's rows of batch `start`, `start + 1`, ...: functions of (seed, step)."""

    steps_per_epoch: float
    """Batches that hold as many examples as there are."""

    def describe(self) -> str:
        """One line for the log: how many examples, how full the batches."""


@dataclass(frozen=True)
class Task:
    """Base of the tasks."""

    unit: ClassVar[str] = "examples"
    """What a batch is counted in; the name of the metric is `<unit>`."""
    verb: ClassVar[str] = ""
    """The command that uses what was learned on standard input, such as `translate`."""
    line: ClassVar[str] = ""
    """A text that a person may try the verb on; empty: it takes a picture's file."""
    lowest_is_best: ClassVar[bool] = False
    """Of the metric `best`."""

    @property
    def best(self) -> str:
        """The development metric that hyper-parameters are chosen by; empty: there is none."""
        return ""

    def published(self, found: Mapping[str, Any]) -> list[Comparison]:
        """Tables of published results beside those in `found`: metrics, and costs as reported."""
        return []

    def together(
        self, results: Sequence[tuple[Task, Mapping[str, float]]]
    ) -> tuple[Comparison, Figure] | None:
        """What this run and those that followed it, each (task, metrics), come to together."""
        return None

    def module(self, execution: Execution) -> nn.Module:
        """The model."""
        raise NotImplementedError

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """The shapes that batches take, each compiled once; known without data."""
        raise NotImplementedError

    def init(self, model: nn.Module, key: jax.Array) -> Variables:
        """Fresh variables."""
        raise NotImplementedError

    def pretrained(self, model: nn.Module) -> Variables:
        """Variables that a new run starts from, in place of the fresh ones at the same paths.

        Collections (`params`, `batch_stats`) of NumPy arrays; what is not named starts afresh.
        Here nothing is.
        """
        return {}

    def exported(self, model: nn.Module, data: TaskData) -> nn.Module:
        """Returns the model to export, its configuration completed from `data` (class names)."""
        return model

    def prepare(self, batch: Any, key: jax.Array | None = None) -> Any:
        """The whole batch as `loss` takes it, before it is cut into parts to save memory.

        Within the step: what depends on all rows is put beside each of them here, such as how many
        words are masked, or what an image is mixed with. `key` is random and the step's own; None
        outside training, where nothing is drawn. Here the batch stays as it is.
        """
        return batch

    def loss(self, model: nn.Module, variables: Variables, batch: Any, **kwargs) -> Loss:
        """The loss of a prepared batch, or of some of its rows; keywords `train` and `rngs`."""
        raise NotImplementedError

    def example(self, seed: int) -> Batch:
        """A made-up batch in the first of `batch_shapes`, for `check`.

        Here floats are normal and integers 0 or 1; a task overrides it where that means nothing.
        """
        rng, made = np.random.default_rng(seed), {}
        for name, spec in self.batch_shapes()[0].items():
            real = np.issubdtype(spec.dtype, np.floating)
            values = rng.standard_normal(spec.shape) if real else rng.integers(0, 2, spec.shape)
            made[name] = values.astype(spec.dtype)
        return made

    def probe(self, model: nn.Module, variables: Variables, batch: Any) -> dict[str, jax.Array]:
        """Outputs, by name, that a change of the model moves: what `check` compares.

        Here the loss; a task overrides it with more, where small inputs show a norm's epsilon.
        """
        loss = self.loss(model, variables, self.prepare(batch))
        return {"loss": loss.total / loss.weight}

    def units(self, batch: Batch) -> int:
        """How many units (tokens, images) a host's batch holds, padding not counted."""
        raise NotImplementedError

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> TaskData:
        """Opens the data; what is computed once is kept in the run's `folder`."""
        raise NotImplementedError

    def processor(self, folder: epath.PathLike) -> Processor:
        """Loads the processor of the run in `folder`, as `open` makes it, without training data."""
        return load_processor(folder)

    def evaluate(
        self, model: nn.Module, variables: Variables, processor: Processor, *, final: bool
    ) -> Evaluation:
        """Judges the model on the development set, and when `final` on the test set."""
        raise NotImplementedError

    def rehearsal(self) -> Task:
        """The same task, shrunk to seconds on bundled data."""
        raise NotImplementedError


class JudgedByOutputs(Task):
    """A task whose evaluation is made from the model's outputs, so that several can be averaged."""

    def outputs(
        self, model: nn.Module, variables: Variables, processor: Processor, *, final: bool
    ) -> list[np.ndarray]:
        """Float32 logits on the development set, or when `final` the test set."""
        raise NotImplementedError

    def score(self, outputs: list[np.ndarray], processor: Processor, *, final: bool) -> Evaluation:
        """The evaluation of these outputs, one model's or the mean of several models'."""
        raise NotImplementedError

    def judged_on(self, processor: Processor) -> dict[str, Any]:
        """What outputs have to share for their mean to mean anything, by its name."""
        raise NotImplementedError

    def evaluate(
        self, model: nn.Module, variables: Variables, processor: Processor, *, final: bool
    ) -> Evaluation:
        """Judges the model's outputs."""
        return self.score(
            self.outputs(model, variables, processor, final=final), processor, final=final
        )

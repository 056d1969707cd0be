"""`Task`: a model, its batches, its loss and its data, which is all that training needs.

The loop, the planner and the command line know tasks by this interface alone. A task is
configuration (a frozen dataclass); `open` gives the data that it trains on.

A task of one's own needs six methods: `module`, `batch_shapes`, `init`, `loss`, `open` and
`rehearsal`. All others have a default: `evaluators` none, `constrain_params` no bounds, `units` the
rows of a batch, `batch_shares` equal ones, `shared_sizes` none, `run_table` no lines, `pretrained`
fresh variables, `prepare` the batch as it is, `processor` what the run's folder holds, `example` a
random batch, and `probe` the loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import flax.linen as nn
import flax.struct
import jax
import numpy as np
from etils import epath

from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields
from jaxformers.layers import Execution
from jaxformers.tasks.evaluator import Comparison, Evaluator
from jaxformers.tasks.processor import Processor, load_processor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = dict[str, np.ndarray]
Variables = dict[str, Any]


@flax.struct.dataclass
class Loss:
    """A loss as a sum and the weight that it is divided by: `total / weight` is the mean loss.

    Both are summed over chunks of a batch before the division, so that gradient accumulation
    gives the gradient of the whole batch; `additive` says whether that holds.
    """

    total: jax.Array
    """Sum over the rows, a scalar."""
    weight: jax.Array
    """Sum of the rows' weights, a scalar."""
    metrics: dict[str, jax.Array]
    """Further sums, each divided by `weight` before it is logged."""
    model_state: Variables
    """Collections that the step changed, such as `batch_stats`; usually empty."""
    additive: bool = flax.struct.field(pytree_node=False, default=True)
    """Whether the totals of chunks of a batch add up to that of the batch. False for a loss that
    compares a row with the others of its batch (contrastive): chunks would have fewer negatives."""


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
class Task(CheckedFields):
    """Base class of tasks; see the module's docstring for the methods that a task must have."""

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

    def published(self, metrics: Mapping[str, Any]) -> list[Comparison]:
        """Tables of published results beside those in `found`: metrics, and costs as reported."""
        return []

    def together(
        self, results: Sequence[tuple[Task, Mapping[str, float]]]
    ) -> tuple[Comparison, Figure] | None:
        """What this run and those that followed it, each (task, metrics), come to together."""
        return None

    def resolved(self) -> Task:
        """The task completed from what its pretrained weights state, before a run begins."""
        return self

    def module(self, execution: Execution) -> nn.Module:
        """Returns the model."""
        raise NotImplementedError

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """The shapes that batches take, each compiled once; known without data."""
        raise NotImplementedError

    def batch_shares(self) -> list[float]:
        """Each batch shape's share of the steps, as far as it is known without data; here equal."""
        count = len(self.batch_shapes())
        return [1 / count] * count

    def init(self, model: nn.Module, key: jax.Array) -> Variables:
        """Initialises variables."""
        raise NotImplementedError

    def pretrained(self, model: nn.Module) -> Variables:
        """Variables that a new run starts from, in place of the fresh ones at the same paths.

        Collections (`params`, `batch_stats`) of NumPy arrays; what is not named starts afresh.
        Here nothing is.
        """
        return {}

    def inference_model(
        self, model: nn.Module, variables: Variables
    ) -> tuple[nn.Module, Variables]:
        """The model to evaluate and export, and its variables, without what only training needs.

        Here the trained model itself; a task whose module holds more (a discriminator) overrides
        it, and passes variables that lack these already.
        """
        return model, variables

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

    def constrain_params(self, params: Any) -> Any:
        """Brings updated parameters into the range that they are confined to; here none is."""
        return params

    def shared_sizes(self) -> set[int]:
        """Numbers of elements of arrays that all rows of a batch share and that are no parameters.

        Such as a bias of attention by positions: its gradient is a sum over the batch, which
        `check` explains by its size. Here there are none.
        """
        return set()

    def example(self, seed: int) -> Batch:
        """A made-up batch in the first of `batch_shapes`, for `check`.

        Here floats are normal and integers 0 or 1; a task overrides it where that means nothing.
        """
        rng, batch = np.random.default_rng(seed), {}
        for name, spec in self.batch_shapes()[0].items():
            real = np.issubdtype(spec.dtype, np.floating)
            values = rng.standard_normal(spec.shape) if real else rng.integers(0, 2, spec.shape)
            batch[name] = values.astype(spec.dtype)
        return batch

    def probe(self, model: nn.Module, variables: Variables, batch: Any) -> dict[str, jax.Array]:
        """Outputs, by name, that a change of the model moves: what `check` compares.

        Here the loss; a task overrides it with more, where small inputs show a norm's epsilon.
        """
        loss = self.loss(model, variables, self.prepare(batch))
        return {"loss": loss.total / loss.weight}

    def units(self, batch: Batch) -> int:
        """How many units (tokens, images) a host's batch holds, without padding; here its rows."""
        return len(next(iter(batch.values())))

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> TaskData:
        """Opens the data; what is computed once is kept in the run's `folder`."""
        raise NotImplementedError

    def run_table(self, data: TaskData, steps: int, seed: int) -> str:
        """Lines for the log before training: what a run of so many steps draws from `data`.

        Here none; a mixture of tasks lists each task's share and epochs.
        """
        return ""

    def describe_examples(self, name: str) -> str:
        """Some examples of the task called `name`, as text.

        Raises:
            ConfigError: this is no mixture of tasks, as here; or it has no such task.
        """
        raise ConfigError(f"{type(self).__name__} is no mixture of tasks: leave out --example")

    def check_data(self) -> None:
        """Raises what `open` would raise, before an earlier run begins; here nothing is checked."""

    def processor(self, folder: epath.PathLike) -> Processor:
        """Loads the processor of the run in `folder`, as `open` makes it, without training data."""
        return load_processor(folder)

    def evaluators(self) -> tuple[Evaluator, ...]:
        """The evaluators of an experiment that names none of its own; by default none."""
        return ()

    def rehearsal(self) -> Task:
        """The same task, shrunk to seconds on bundled data."""
        raise NotImplementedError

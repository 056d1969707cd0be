"""`Evaluator`: an evaluation of a model, apart from the task that trained it.

An evaluator is configuration: a frozen dataclass that holds data sources and settings. Several may
run on one model (`Experiment.evaluators`); their metrics are merged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import numpy as np

from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields
from jaxformers.tasks.processor import Processor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Evaluation:
    """The result of an evaluation."""

    metrics: dict[str, float]
    samples: list[tuple[str, str, str]] = field(default_factory=list)
    """(input, reference, prediction)."""
    notes: list[str] = field(default_factory=list)
    """Conditions of the metrics, such as BLEU's signature."""
    outputs: list[str] = field(default_factory=list)
    """Predictions as lines of a text file."""
    predictions: dict[str, list[str]] = field(default_factory=dict)
    """Lines of the file to submit, by the name of each set whose labels are not public."""
    figures: dict[str, Figure] = field(default_factory=dict)
    """Figures of the report by their captions; each is saved under its caption in lower case."""
    lists: dict[str, list[str]] = field(default_factory=dict)
    """Lists of the report by their headings."""
    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    """Tables of the report by their headings; the first row names the columns."""


class Comparison(NamedTuple):
    """A table of published results with the row of a run."""

    title: str
    columns: tuple[str, ...]
    """Metrics with their units."""
    rows: list[tuple[str, tuple[float | None, ...]]]
    """Name of each system and its value in each column; None: not reported."""
    ours: tuple[float | None, ...]
    """The run's values."""
    note: str = ""
    """The data of the published results, and whether the run's are comparable."""


@runtime_checkable
class Evaluator(Protocol):
    """What an evaluation needs: a name, unique within an experiment, and one method.

    It may have two more: `rehearsal()` gives the evaluator on a few bundled examples, and
    `published(metrics)` tables of published results beside its metrics.
    """

    name: str

    def evaluate(
        self, model: nn.Module, variables: dict[str, Any], processor: Processor, *, final: bool
    ) -> Evaluation:
        """Evaluates on the development sets, and when `final` on the test sets as well."""
        ...


class OutputEvaluator(CheckedFields, ABC):
    """An evaluator that scores arrays of outputs, so that those of several models can be averaged.

    An ensemble's evaluation is `score` of the mean of the members' `outputs`.
    """

    name: str

    @abstractmethod
    def outputs(
        self, model: nn.Module, variables: dict[str, Any], processor: Processor, *, final: bool
    ) -> list[np.ndarray]:
        """Float32 logits of each development set, and when `final` of each test set."""

    @abstractmethod
    def score(
        self, outputs: Sequence[np.ndarray], processor: Processor, *, final: bool
    ) -> Evaluation:
        """The evaluation of these outputs, one model's or the mean of several models'."""

    @abstractmethod
    def ensemble_requirements(self, processor: Processor) -> dict[str, Any]:
        """By name, what models must have in common for the mean of their outputs to make sense."""

    def evaluate(
        self, model: nn.Module, variables: dict[str, Any], processor: Processor, *, final: bool
    ) -> Evaluation:
        """Scores the model's outputs."""
        outputs = self.outputs(model, variables, processor, final=final)
        return self.score(outputs, processor, final=final)


def rehearsed_evaluators(evaluators: Sequence[Evaluator]) -> tuple[Evaluator, ...]:
    """The evaluators on a few bundled examples; those without a method `rehearsal` are left out."""
    return tuple(
        evaluator.rehearsal() for evaluator in evaluators if hasattr(evaluator, "rehearsal")
    )


def published_comparisons(
    evaluators: Sequence[Evaluator], metrics: Mapping[str, Any]
) -> list[Comparison]:
    """Published results beside the metrics, of the evaluators with a method `published`."""
    return [
        comparison
        for evaluator in evaluators
        if hasattr(evaluator, "published")
        for comparison in evaluator.published(metrics)
    ]


def run_evaluators(
    evaluators: Sequence[Evaluator],
    model: nn.Module,
    variables: dict[str, Any],
    processor: Processor,
    *,
    final: bool,
) -> Evaluation:
    """Runs every evaluator on a model and merges their results; see `merge_evaluations`."""
    return merge_evaluations(
        evaluators,
        [evaluator.evaluate(model, variables, processor, final=final) for evaluator in evaluators],
    )


def merge_evaluations(
    evaluators: Sequence[Evaluator], evaluations: Sequence[Evaluation]
) -> Evaluation:
    """Joins the results of several evaluators into one.

    Raises:
        ConfigError: two evaluators report the same metric, or predict a set of the same name.
    """
    merged = Evaluation({})
    owners: dict[str, str] = {}
    for evaluator, evaluation in zip(evaluators, evaluations, strict=True):
        for result in (*evaluation.metrics, *(f"{name}.tsv" for name in evaluation.predictions)):
            if result in owners:
                raise ConfigError(
                    f"the evaluators {owners[result]!r} and {evaluator.name!r} both give "
                    f"{result!r}; leave one of them out of the experiment's evaluators"
                )
            owners[result] = evaluator.name
        merged.metrics |= evaluation.metrics
        merged.samples += evaluation.samples
        merged.notes += evaluation.notes
        merged.outputs += evaluation.outputs
        merged.predictions |= evaluation.predictions
        merged.figures |= evaluation.figures
        merged.lists |= evaluation.lists
        merged.tables |= evaluation.tables
    return merged

"""What pre-training is worth: accuracy by the number of labels, from its weights and without.

The question of "BERT" (Devlin et al. 2018) and of every paper on pre-training: how much better is
the same network after fine-tuning on few labelled examples if it starts from pre-trained weights?
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int

from jaxformers.data.pipeline.fixed_length import RowPlan
from jaxformers.data.pipeline.subsets import RowSubset
from jaxformers.data.text.labelled_rows import LabelledRows
from jaxformers.data.text.labelled_texts import LabelledTexts
from jaxformers.errors import ConfigError
from jaxformers.evaluation.glue import metrics_for
from jaxformers.evaluation.label_curves import deviation, gain, label_curve_figure
from jaxformers.evaluation.probes.bag_of_words import bag_of_words_predictions
from jaxformers.fields import CheckedFields, PositiveInt, Seed
from jaxformers.pretrained.registry import family_of
from jaxformers.pretrained.text_backbone import text_backbone
from jaxformers.sharding import make_mesh, put_batch
from jaxformers.tasks.evaluator import Comparison, Evaluation
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.task_data import PlannedData
from jaxformers.tasks.text.classification_evaluation import ClassificationEvaluator
from jaxformers.tasks.text.sequence_classification import SequenceClassification
from jaxformers.training.experiment import Experiment
from jaxformers.training.state import abstract_state, init_state, with_pretrained_values
from jaxformers.training.step import Step, jit_step

PRETRAINED, SCRATCH, WORDS = "pretrained", "from_scratch", "bag_of_words"
TITLES = {PRETRAINED: "pre-trained", SCRATCH: "from scratch", WORDS: "bag of words"}
CAPTION = "Scores by the number of labels"
"""Heading of the figure, whose file is named after it."""
BAG_OF_WORDS = "The bag of words is a logistic regression over TF-IDF (C = 10)."
IN_FLIGHT = 8  # steps that may be dispatched before one is waited for
Scores = dict[str, dict[int, list[float]]]
"""By system, by number of labels: a score for each seed."""


@dataclass(frozen=True, kw_only=True)
class LabelCurve(CheckedFields):
    """Fine-tunes the evaluated encoder on few labelled examples, and one from scratch beside it.

    For every number of labels and every seed, the same examples are drawn from the training data
    for both; the seed also decides the fresh parameters and the order of the examples. Both arms
    are given as experiments, since each has its own best rate and number of epochs. Their network
    is the evaluated one, with the dropout of their own. Dropout's masks depend on an arm's own
    `seed` and the step, so that they are the same for all `seeds`. Of the arms, `weights`,
    `vocabulary`, `evaluators`, `after` and, within a mesh, `mesh` are not read.

    A logistic regression over the words of the same examples is drawn beside them.
    """

    name: str = "label_curve"
    fine_tuned: Experiment
    """Fine-tuning from the weights of the evaluated model; its task classifies texts."""
    from_scratch: Experiment
    """Fine-tuning from random weights, on the same data."""
    labels: tuple[PositiveInt, ...] = (200, 500, 2000)
    """Numbers of labelled examples."""
    seeds: tuple[Seed, ...] = (0, 1, 2, 3, 4)
    """A run of each arm for each of them."""
    split: Literal["dev", "test"] = "test"
    """Set that the runs are scored on."""

    def __post_init__(self):
        super().__post_init__()
        for field in ("fine_tuned", "from_scratch"):
            task = getattr(self, field).task
            if not isinstance(task, SequenceClassification) or task.labels.count == 1:
                raise ConfigError(f"label_curve.{field}: the task is to classify texts")
            if getattr(self, field).average_last:
                raise ConfigError(f"label_curve.{field}: average_last is not supported, ema is")
        arms = self.fine_tuned.task, self.from_scratch.task
        if len({(task.data, task.dev, task.test) for task in arms}) > 1:
            raise ConfigError("label_curve: both arms need the same data, dev and test")
        if getattr(self.scorer(arms[0]), self.split) is None:
            raise ConfigError(f"label_curve: there is no {self.split} set; set one in both tasks")
        if not self.labels or not self.seeds:
            raise ConfigError("label_curve: labels and seeds need at least one number each")

    def evaluate(self, model: Any, variables: Any, processor: Processor, *, final: bool):
        """Means over the seeds such as `200_labels_pretrained`, gains, the figure; at the end."""
        if not final:
            return Evaluation({})
        self._scored_texts()  # raises before a run is trained
        scores = {
            PRETRAINED: _Arm(self, self.fine_tuned, model, processor).scores(variables),
            SCRATCH: _Arm(self, self.from_scratch, model, processor).scores(None),
            WORDS: self._bag_of_words(),
        }
        return self._evaluation(scores)

    def rehearsal(self) -> LabelCurve:
        """A step or two with each of two seeds, on a few bundled sentences."""
        arms = {name: getattr(self, name).rehearse() for name in ("fine_tuned", "from_scratch")}
        return replace(self, **arms, labels=(8, 16), seeds=self.seeds[:2])

    def published(self, metrics: Mapping[str, Any]) -> list[Comparison]:
        """The means as a table: a column for each number of labels."""

        def row(system: str) -> tuple[float | None, ...]:
            return tuple(metrics.get(f"{count}_labels_{system}") for count in self.labels)

        if all(mean is None for mean in row(PRETRAINED)):
            return []
        columns = tuple(f"{count:,} labels" for count in self.labels)
        rows = [("the same network from scratch", row(SCRATCH)), ("bag of words", row(WORDS))]
        note = f"Mean of {self.metric} over {len(self.seeds)} seeds. {BAG_OF_WORDS}"
        return [Comparison(CAPTION, columns, rows, row(PRETRAINED), note)]

    @property
    def metric(self) -> str:
        """The score's name, such as `test_accuracy`: the first metric of the task."""
        task = self.fine_tuned.task
        names = task.metrics or metrics_for(task.data.task, task.labels.count)
        return f"{self.split}_{names[0]}"

    def scorer(self, task: SequenceClassification) -> ClassificationEvaluator:
        """The task's own evaluator of the split."""
        (evaluator,) = task.evaluators()
        if self.split == "dev":
            return replace(evaluator, test=None)
        return replace(evaluator, dev=None, test_required=True)

    def _scored_texts(self) -> LabelledTexts:
        """The examples that the runs are scored on.

        Raises:
            ConfigError: the split is of several sets, or has no labels.
        """
        entries = self.scorer(self.fine_tuned.task).open_sets(final=True)
        if [entry.name for entry in entries] != [self.split] or entries[0].texts.labels is None:
            raise ConfigError(
                f"label_curve: the {self.split} split is not a single set with labels; choose "
                "another split, or give both tasks such a set"
            )
        return entries[0].texts

    def _bag_of_words(self) -> dict[int, list[float]]:
        """The logistic regression's scores."""
        task = self.fine_tuned.task
        scorer, texts = self.scorer(task), task.data.open(task.labels)
        train, test = _joined(texts), _joined(self._scored_texts())
        scores = {}
        for count in self.labels:
            scores[count] = []
            for seed in self.seeds:
                chosen = subset(len(texts), count, seed)
                probabilities = bag_of_words_predictions(
                    [train[index] for index in chosen],
                    texts.labels[chosen],
                    test,
                    task.labels.count,
                )
                evaluation = scorer.score([probabilities], Processor(), final=True)
                scores[count].append(evaluation.metrics[self.metric])
        return scores

    def _evaluation(self, scores: Scores) -> Evaluation:
        """Metrics, a line for each number of labels, and the figure."""
        metrics, lines = {}, []
        for count in self.labels:
            means = {name: statistics.fmean(curve[count]) for name, curve in scores.items()}
            metrics |= {f"{count}_labels_{name}": mean for name, mean in means.items()}
            difference = gain(scores[PRETRAINED][count], scores[SCRATCH][count])
            metrics[f"{count}_labels_gain"] = difference.mean
            columns = [
                f"{TITLES[name]} {means[name]:.1f} ± {deviation(curve[count]):.1f}"
                for name, curve in scores.items()
            ]
            lines.append(
                f"{count:,} labels: {', '.join(columns)}; gain of pre-training "
                f"{difference.mean:.1f}, standard error {difference.error:.1f}"
            )
        curves = {TITLES[name]: curve for name, curve in scores.items()}
        figure = label_curve_figure(curves, f"{self.metric.replace('_', ' ')} (%)", CAPTION)
        note = (
            f"{self.metric} by labels: mean ± standard deviation (n - 1) over {len(self.seeds)} "
            f"seeds, each with examples of its own; {BAG_OF_WORDS}"
        )
        return Evaluation(metrics, notes=[note, *lines], figures={CAPTION: figure})


class _Arm:
    """The runs of one curve: one compiled step for each number of labels, for all seeds."""

    def __init__(self, curve: LabelCurve, experiment: Experiment, model: Any, processor: Processor):
        # The evaluated network, with what the arm's own task says of dropout and classes.
        free_fields = family_of(model).fine_tuning.free_fields
        own = {name: getattr(experiment.task.model, name) for name in free_fields}
        config = replace(model.config, **own)
        task = replace(experiment.task, model=config, weights=None, vocabulary=None)
        self._experiment, self._curve = replace(experiment, task=task), curve
        self._source, self._processor = model, processor
        self._compiled: dict[int, tuple[int, Any, Step]] = {}
        self._model, self._scorer = task.module(model.execution), curve.scorer(task)
        mesh = jax.sharding.get_mesh()
        self._mesh = make_mesh(experiment.mesh) if mesh.empty else mesh
        texts = task.data.open(task.labels)
        if max(curve.labels) > len(texts):
            raise ConfigError(
                f"label_curve.labels asks for {max(curve.labels):,} examples of {texts.source}, "
                f"which has {len(texts):,}"
            )
        self._store = LabelledRows.build(texts, processor.tokenizer, task.length)

    def scores(self, variables: Any | None) -> dict[int, list[float]]:
        """A score for each seed by the number of labels, from `variables` or from scratch."""
        weights = {}
        if variables is not None:
            if jax.process_count() > 1:
                variables = multihost_utils.process_allgather(variables, tiled=True)
            backbone = text_backbone(self._source, variables, self._model, "the evaluated model")
            weights = {"params": backbone}
        return {count: self._scores(count, weights) for count in self._curve.labels}

    def _scores(self, count: int, weights: Any) -> list[float]:
        """The scores with `count` labels, one a seed."""
        steps, init, step = self._programs(count)
        scores = []
        for seed in self._curve.seeds:
            state = with_pretrained_values(init(jax.random.key(seed)), weights)
            state = self._trained(state, step, steps, count, seed)
            params = state.params if state.ema is None else state.ema
            variables = {**state.variables, "params": params}
            evaluation = self._scorer.evaluate(self._model, variables, self._processor, final=True)
            scores.append(evaluation.metrics[self._curve.metric])
        return scores

    def _programs(self, count: int) -> tuple[int, Any, Step]:
        """Number of steps with `count` labels, and the jitted initialisation and train step.

        The schedule is a function of the number of steps, and nothing else depends on `count`.
        """
        experiment = self._experiment.resolve_epochs(count / self._experiment.task.rows)
        if experiment.steps not in self._compiled:
            shapes = abstract_state(experiment, self._model, self._mesh)
            shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
            init = jax.jit(
                lambda key: init_state(experiment, self._model, key), out_shardings=shardings
            )
            step = jit_step(experiment, self._model, self._mesh, shapes)
            self._compiled[experiment.steps] = experiment.steps, init, step
        return self._compiled[experiment.steps]

    def _trained(self, state: Any, step: Any, steps: int, count: int, seed: int) -> Any:
        """The state after `steps` steps on the `count` examples of `seed`."""
        rows = self._experiment.task.rows
        store = RowSubset(self._store, subset(len(self._store), count, seed))
        data = PlannedData(store, RowPlan(store, rows), self._processor)
        hosts = jax.process_count()
        batches = data.batches(seed, 0, jax.process_index(), hosts)
        with contextlib.closing(batches):
            for number in range(steps):
                state, metrics = step(state, put_batch(next(batches), self._mesh, hosts))
                if number % IN_FLIGHT == 0:
                    jax.block_until_ready(metrics)
        return state


def subset(size: int, count: int, seed: int) -> Int[np.ndarray, "count"]:
    """The `count` of `size` examples that the runs of `seed` learn from, drawn at random."""
    return np.random.default_rng(seed).permutation(size)[:count]


def _joined(texts: LabelledTexts) -> list[str]:
    """Each text, a pair as one."""
    if texts.pairs is None:
        return texts.texts
    return [f"{first} {second}" for first, second in zip(texts.texts, texts.pairs, strict=True)]

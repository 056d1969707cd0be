"""Evaluates a text classifier on development and test sets: GLUE's metrics and submissions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxformers.data.files.file_state import FileState, source_state
from jaxformers.data.text.labelled_rows import LabelledRows
from jaxformers.data.text.labelled_texts import LabelledSource, LabelledTexts, Labels
from jaxformers.errors import ConfigError, DataError, did_you_mean
from jaxformers.evaluation import mean_cross_entropy
from jaxformers.evaluation.glue import METRICS, metrics_for, scores
from jaxformers.fields import PositiveInt
from jaxformers.sharding import constrain
from jaxformers.tasks.evaluation_loop import check_outputs, every_output
from jaxformers.tasks.evaluator import Evaluation, OutputEvaluator
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.text.bert_inputs import INPUTS


class EvaluationSet(NamedTuple):
    """A set to score, or to predict where its labels are not public."""

    name: str
    """dev, dev_matched, test, ..."""
    source: LabelledSource
    texts: LabelledTexts


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluator(OutputEvaluator):
    """Metrics in percent (`dev_accuracy` and the like) and the mean loss of each set.

    Where development metrics are several, `dev_score` is their mean. `Evaluation.outputs` holds the
    predictions of test sets as GLUE's server takes them.
    """

    name: str = "classification"
    dev: LabelledSource | None
    """Development set, or sets: MNLI has a matched and a mismatched one, in this order."""
    test: LabelledSource | None
    test_required: bool = False
    """Whether a test set that cannot be read is an error; else a note says why it is left out."""
    labels: Labels
    """Classes in the classifier's order."""
    length: PositiveInt = 128
    """Tokens of a row."""
    rows: PositiveInt = 32
    """Rows of a batch."""
    metrics: tuple[str, ...] = ()
    """Names of `evaluation.glue.METRICS`; empty: the GLUE task's, else by the labels."""
    predict: bool = True
    """Whether test sets without labels are predicted."""

    def __post_init__(self):
        super().__post_init__()
        for metric in self.metrics:
            if metric not in METRICS:
                hint = did_you_mean(metric, list(METRICS)) or f"; there are {', '.join(METRICS)}"
                raise ConfigError(f"there is no metric {metric!r}{hint}")
            if (self.labels.count == 1) != (metric in ("pearson", "spearman")):
                raise ConfigError(f"the metric {metric} does not fit labels that are {self.labels}")

    def selection_metric(self) -> str:
        """`dev_score`, or the only development metric; empty without a development set."""
        if self.dev is None:
            return ""
        names = self._metrics_of(self.dev)
        return "dev_score" if len(self.dev.parts()) * len(names) > 1 else f"dev_{names[0]}"

    def open_sets(self, *, final: bool) -> list[EvaluationSet]:
        """The development sets, and when `final` the test sets; each is read once.

        Raises:
            DataError: a set that is required cannot be read, or a development set has no labels.
        """
        sets = _open_sets("dev", self.dev, self.labels)
        for entry in sets:
            if entry.texts.labels is None:
                raise DataError(f"{entry.texts.source} has no labels to evaluate with")
        tests = self._open_test_sets()[0] if final else []
        return sets + [s for s in tests if self.predict or s.texts.labels is not None]

    def _open_test_sets(self) -> tuple[list[EvaluationSet], str]:
        """The test sets, and why one that is not required cannot be read."""
        try:
            return _open_sets("test", self.test, self.labels), ""
        except DataError as error:
            if self.test_required:
                raise
            return [], str(error)

    def outputs(self, model, variables, processor: Processor, *, final: bool) -> list[np.ndarray]:
        """Logits `[n, N]` of each set of `open_sets`."""
        stores = [
            _rows(entry.source, self.labels, processor.tokenizer, self.length)
            for entry in self.open_sets(final=final)
        ]
        return [dataset_logits(model, variables, store, self.rows) for store in stores]

    def score(
        self, outputs: Sequence[np.ndarray], processor: Processor, *, final: bool
    ) -> Evaluation:
        """Metrics, samples and predictions of logits `[n, N]` of each set of `open_sets`.

        Raises:
            DataError: the outputs' shapes are not those of the sets.
        """
        sets, evaluation = self.open_sets(final=final), Evaluation({})
        check_outputs(outputs, [(len(entry.texts), self.labels.count) for entry in sets])
        dev_values: list[float] = []
        for entry, logits in zip(sets, outputs, strict=True):
            if entry.texts.labels is not None:
                values = self._add_scores(evaluation, entry, np.asarray(logits, np.float32))
                dev_values += values if entry.name.startswith("dev") else []
            if entry.name.startswith("test"):
                self._add_predictions(evaluation, entry, logits)
        if final and (problem := self._open_test_sets()[1]):
            evaluation.notes.append(f"no test set was evaluated: {problem}")
        if len(dev_values) > 1:
            evaluation.metrics["dev_score"] = float(np.mean(dev_values))
        return evaluation

    def ensemble_requirements(self, processor: Processor) -> dict[str, Any]:
        """The classes in the classifier's order, and the sets."""
        return {
            "classes": self.labels,
            "development examples": self.dev,
            "test examples": self.test,
            "choice to predict": self.predict,
        }

    def _metrics_of(self, source: LabelledSource) -> tuple[str, ...]:
        return self.metrics or metrics_for(source.task, self.labels.count)

    def _add_scores(
        self, evaluation: Evaluation, entry: EvaluationSet, logits: np.ndarray
    ) -> list[float]:
        """Adds the metrics, notes and samples of a labelled set; returns the metrics' values."""
        labels, predictions = entry.texts.labels, predict_labels(logits)
        metrics, data_labels = self._metrics_of(entry.source), entry.source.own
        if data_labels is not None and data_labels.count > 1:
            # F1 is that of the data's class 1, whatever index the classifier gives that class.
            order = self.labels.places_in(data_labels)
            result = scores(metrics, order[labels], order[predictions])
        else:
            result = scores(metrics, labels, predictions)
        evaluation.metrics |= {f"{entry.name}_{name}": v for name, v in result.values.items()}
        evaluation.metrics[f"{entry.name}_loss"] = _mean_loss(logits, labels)
        evaluation.notes += [f"{entry.name} {note}" for note in result.notes]
        if not np.isfinite(logits).all():
            evaluation.notes.append(f"{entry.name}: outputs are not finite; the model diverged")
        if entry.texts.skipped:
            evaluation.notes.append(f"{entry.name}: {entry.texts.skipped} damaged lines left out")
        evaluation.samples = _samples(entry.texts, self.labels, predictions)
        return list(result.values.values())

    def _add_predictions(
        self, evaluation: Evaluation, entry: EvaluationSet, logits: np.ndarray
    ) -> None:
        """Adds the lines of a submission for a test set."""
        values = entry.source.written(predict_labels(logits), self.labels)
        lines = [f"{name}\t{value}" for name, value in zip(entry.texts.names, values, strict=True)]
        evaluation.outputs += ["index\tprediction", *lines]
        if entry.texts.labels is None:
            evaluation.predictions[entry.name] = ["index\tprediction", *lines]
            evaluation.notes.append(
                f"{entry.name} has no labels: {len(lines):,} predictions are in {entry.name}.tsv"
            )


def _open_sets(split: str, source: LabelledSource | None, labels: Labels) -> list[EvaluationSet]:
    subsets = () if source is None else source.parts()
    return [
        EvaluationSet(f"{split}_{name}" if name else split, subset, _texts(subset, labels))
        for name, subset in subsets
    ]


def _texts(source: LabelledSource, labels: Labels) -> LabelledTexts:
    return _read_texts(source, source_state(source), labels)


@lru_cache(maxsize=6)
def _read_texts(source: LabelledSource, state: FileState, labels: Labels) -> LabelledTexts:
    return source.open(labels)


def _rows(source: LabelledSource, labels: Labels, tokenizer: Any, length: int) -> LabelledRows:
    return _cut_rows(source, source_state(source), labels, tokenizer, length)


@lru_cache(maxsize=6)
def _cut_rows(
    source: LabelledSource, state: FileState, labels: Labels, tokenizer: Any, length: int
) -> LabelledRows:
    return LabelledRows.build(_read_texts(source, state, labels), tokenizer, length)


def dataset_logits(model, variables, store: LabelledRows, rows: int) -> np.ndarray:
    """Float32 logits `[n, N]` of every row of `store`, `rows` in a batch."""
    run = logits_program(model)
    return every_output(
        lambda batch: run(variables, *(batch[name] for name in INPUTS)), store, rows
    )


@lru_cache(maxsize=4)
def logits_program(model):
    """Compiled logits `[B, N]` of (variables, input_ids, token_type_ids, attention_mask)."""

    @jax.jit
    def run(variables, *inputs):
        return constrain(model.apply(variables, *inputs), None, None)

    return run


def predict_labels(logits: np.ndarray) -> np.ndarray:
    """The likeliest class, or of a regression the number, of each row `[n]`."""
    return logits[:, 0] if logits.shape[1] == 1 else logits.argmax(-1)


def _mean_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    if logits.shape[1] == 1:
        return float(np.square(logits[:, 0] - labels).mean())
    return mean_cross_entropy(logits, labels)


def _samples(
    texts: LabelledTexts, labels: Labels, predictions: np.ndarray
) -> list[tuple[str, str, str]]:
    """(text, label, predicted label) of every example."""

    def label_name(label: Any) -> str:
        return f"{float(label):.2f}" if labels.count == 1 else labels.name(int(label))

    inputs = texts.texts
    if texts.pairs is not None:
        inputs = [f"{first} / {second}" for first, second in zip(inputs, texts.pairs, strict=True)]
    return [
        (text, label_name(label), label_name(prediction))
        for text, label, prediction in zip(inputs, texts.labels, predictions, strict=True)
    ]

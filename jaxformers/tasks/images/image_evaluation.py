"""Evaluates an image classifier on every image of its development and test sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxformers.data.images import ImageRows, LabelledImages, Preprocessing
from jaxformers.data.images.sources.real_labels import RealLabels
from jaxformers.evaluation import mean_binary_cross_entropy, mean_cross_entropy
from jaxformers.evaluation.image_metrics import classification_metrics, multi_label_metrics
from jaxformers.fields import PositiveInt
from jaxformers.sharding import constrain
from jaxformers.tasks.evaluation_loop import check_outputs, every_output
from jaxformers.tasks.evaluator import Evaluation, OutputEvaluator
from jaxformers.tasks.images import image_report
from jaxformers.tasks.images.image_data import ImageData, open_cached
from jaxformers.tasks.images.image_losses import Objective
from jaxformers.tasks.processor import Processor

LOSSES = {"softmax": mean_cross_entropy, "sigmoid": mean_binary_cross_entropy}


class EvaluationSet(NamedTuple):
    """A set of labelled images to score."""

    name: str
    """dev or test."""
    images: LabelledImages


@dataclass(frozen=True, kw_only=True)
class ImageEvaluator(OutputEvaluator):
    """Accuracies in percent (`dev_top1`, `test_top5`, `test_real`, ...) and each set's mean loss.

    Of images with several labels `dev_mean_average_precision`, `dev_f1_micro` and the like. Sets
    without labels are left out.
    """

    name: str = "images"
    dev: ImageData | None
    test: ImageData | None
    real: RealLabels | None = None
    """All right classes of the test images; None: their single labels alone."""
    classes: PositiveInt
    class_names: tuple[str, ...] = ()
    """Empty: those of the sets."""
    preprocessing: Preprocessing
    rows: PositiveInt = 128
    """Images of a batch."""
    objective: Objective = "softmax"
    """The loss that is reported."""

    def open_sets(self, *, final: bool) -> list[EvaluationSet]:
        """The development set, and when `final` the test set, where they have labels."""
        sources = (("dev", self.dev), ("test", self.test if final else None))
        sets = [EvaluationSet(name, open_cached(s)) for name, s in sources if s is not None]
        return [entry for entry in sets if entry.images.labelled]

    def outputs(self, model, variables, processor: Processor, *, final: bool) -> list[np.ndarray]:
        """Logits `[n, N]` of each set."""
        return [
            dataset_logits(model, variables, entry.images, self.preprocessing, self.rows)
            for entry in self.open_sets(final=final)
        ]

    def score(
        self, outputs: Sequence[np.ndarray], processor: Processor, *, final: bool
    ) -> Evaluation:
        """Metrics of all sets, the samples of the last.

        Raises:
            DataError: the outputs' shapes are not those of the sets.
        """
        sets, evaluation = self.open_sets(final=final), Evaluation({})
        check_outputs(outputs, [(len(entry.images), self.classes) for entry in sets])
        for (name, images), logits in zip(sets, outputs, strict=True):
            logits = np.asarray(logits, np.float32)
            real_labels = self.real.of(images) if self.real and name == "test" else None
            if images.multi_label:
                shares = multi_label_metrics(logits, images.labels)
            else:
                shares = classification_metrics(logits, images.labels, real_labels)
            evaluation.metrics |= {f"{name}_{key}": 100 * share for key, share in shares.items()}
            evaluation.metrics[f"{name}_loss"] = LOSSES[self.objective](logits, images.labels)
            if not np.isfinite(logits).all():
                evaluation.notes.append(f"{name}: outputs are not finite; the model diverged")
            if images.skipped:
                evaluation.notes.append(f"{name}: {images.skipped} damaged pictures left out")
            evaluation.samples = _samples(images, logits, self._all_class_names())
        if sets and final:
            self._add_report(evaluation, sets[-1], np.asarray(outputs[-1], np.float32))
        return evaluation

    def _add_report(self, evaluation: Evaluation, entry: EvaluationSet, logits: np.ndarray) -> None:
        """Adds a confusion matrix, the classes and the most wrong images of a set."""
        images, classes = entry.images, logits.shape[1]
        names = self._all_class_names() or tuple(map(str, range(classes)))
        where = "test" if entry.name == "test" else "development"
        if images.multi_label:
            expected, predicted = images.labels > 0, logits > 0
        else:
            expected = np.eye(classes, dtype=bool)[images.labels]
            predicted = np.eye(classes, dtype=bool)[logits.argmax(-1)]
            matrix = image_report.confusion_matrix(logits.argmax(-1), images.labels, classes)
            if classes <= image_report.DRAWN_CLASSES:
                figure = image_report.confusion_figure(matrix, names)
                evaluation.figures[f"Confusion matrix, {where} set"] = figure
            confusions = image_report.confusion_lines(matrix, names)
            evaluation.lists[f"Most frequent confusions, {where} set"] = confusions
        evaluation.lists[f"Classes, {where} set"] = image_report.class_lines(
            predicted, expected, names
        )
        if wrong := image_report.most_wrong(images, logits, names):
            figure = image_report.most_wrong_figure(images, wrong)
            evaluation.figures[f"Most wrong images, {where} set"] = figure
            evaluation.lists[f"Files of the most wrong images, {where} set"] = [
                f"{images.where(index)}: {expected}, taken for {predicted}"
                for index, expected, predicted in wrong
            ]

    def ensemble_requirements(self, processor: Processor) -> dict[str, Any]:
        """The classes and the sets."""
        return {
            "classes": self._all_class_names() or self.classes,
            "development pictures": self.dev,
            "test pictures": self.test,
            "further labels": self.real,
        }

    def _all_class_names(self) -> tuple[str, ...]:
        """The given class names, else those of the first set that has any."""
        names = (entry.images.class_names for entry in self.open_sets(final=True))
        return self.class_names or next(filter(None, names), ())


def dataset_logits(
    model: Any, variables: Any, images: LabelledImages, preprocessing: Preprocessing, rows: int
) -> np.ndarray:
    """Float32 logits `[n, N]` of every image, `rows` in a batch."""
    store, run = ImageRows(images, preprocessing), image_program(model, preprocessing)
    return every_output(
        lambda batch: run(variables, batch["images"]), store, min(rows, len(images))
    )


@lru_cache(maxsize=4)
@lru_cache(maxsize=8)
def image_program(model: Any, preprocessing: Preprocessing, method: str = "__call__"):
    """Compiled outputs `[B, N]` of (variables, uint8 pixels `[B, H, W, C]`)."""

    @jax.jit
    def run(variables, pixels):
        outputs = model.apply(variables, preprocessing.normalised(pixels), method=method)
        return constrain(outputs, None, None)

    return run


def _samples(
    images: LabelledImages, logits: np.ndarray, class_names: Sequence[str]
) -> list[tuple[str, str, str]]:
    """(image's path, class, predicted class) of every image."""
    names = class_names or [str(index) for index in range(logits.shape[1])]
    if images.multi_label:
        labels = [np.flatnonzero(row) for row in images.labels]
        predictions = [np.flatnonzero(row > 0) for row in logits]
    else:
        labels, predictions = images.labels[:, None], logits.argmax(-1)[:, None]
    return [
        (images.where(i), _joined(names, label), _joined(names, prediction))
        for i, (label, prediction) in enumerate(zip(labels, predictions, strict=True))
    ]


def _joined(names: Sequence[str], classes: np.ndarray) -> str:
    return ", ".join(names[k] for k in classes.tolist()) or "(none)"

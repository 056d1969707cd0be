"""Judging an image classifier on every picture of its development and test sets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxformers.data.images import ImageRows, LabelledImages, Preprocessing
from jaxformers.evaluation import mean_cross_entropy
from jaxformers.evaluation.image_metrics import classification_metrics
from jaxformers.sharding import constrain
from jaxformers.tasks.base import Evaluation
from jaxformers.tasks.evaluation_loop import check_outputs, every_output
from jaxformers.tasks.images.image_data import opened

if TYPE_CHECKING:
    from jaxformers.tasks.images.image_classification import ImageClassification


class Judged(NamedTuple):
    """A set that is judged."""

    name: str
    """dev or test."""
    images: LabelledImages


def judged(task: ImageClassification, *, final: bool) -> list[Judged]:
    """The development set, and when `final` the test set; those without labels are passed over."""
    sources = [("dev", task.dev or task.data.other("dev"))]
    if final:
        sources.append(("test", task.test or task.data.other("test")))
    found = [Judged(name, opened(source)) for name, source in sources if source is not None]
    return [each for each in found if each.images.labelled]


def class_names(task: ImageClassification) -> tuple[str, ...]:
    """The model's own names of its classes, else those of the sets that are judged."""
    names = (task.model.class_names, *(s.images.class_names for s in judged(task, final=True)))
    return next(filter(None, names), ())


def outputs(task: ImageClassification, model, variables, *, final: bool) -> list[np.ndarray]:
    """Float32 logits `[n, N]` of every set of `judged`."""
    return [
        logits_of(model, variables, ImageRows(each.images, task.preprocessing), task.rows)
        for each in judged(task, final=final)
    ]


def logits_of(model, variables, store: ImageRows, rows: int, method: str = "__call__"):
    """Float32 `[n, N]` of every picture, `rows` at once."""
    run = _program(model, store.transform, method)
    return every_output(lambda b: run(variables, b["images"]), store, min(rows, len(store)))


@lru_cache(maxsize=4)
def _program(model, preprocessing: Preprocessing, method: str):
    @jax.jit
    def run(variables, images):
        found = model.apply(variables, preprocessing.normalised(images), method=method)
        return constrain(found, None, None)

    return run


def score(task: ImageClassification, outputs: Sequence[np.ndarray], *, final: bool) -> Evaluation:
    """What the outputs come to; see `ImageClassification.score`."""
    sets, found, names = judged(task, final=final), Evaluation({}), class_names(task)
    check_outputs(outputs, [(len(each.images), task.model.classes) for each in sets])
    for each, logits in zip(sets, outputs, strict=True):
        further = task.real.of(each.images) if task.real and each.name == "test" else None
        scores = _scores(np.asarray(logits, np.float32), each.images.labels, further)
        found.metrics |= {f"{each.name}_{name}": value for name, value in scores.items()}
        if not np.isfinite(logits).all():
            found.notes.append(f"{each.name}: outputs are not finite; the model diverged")
        if each.images.skipped:
            found.notes.append(f"{each.name}: {each.images.skipped} damaged pictures left out")
        found.samples = _samples(each.images, logits, names)
    return found


def _scores(logits: np.ndarray, labels: np.ndarray, further: Any = None) -> dict[str, float]:
    """Accuracies in percent, and the mean cross-entropy."""
    found = classification_metrics(logits, labels, further)
    percent = {name: 100 * value for name, value in found.items()}
    return percent | {"loss": mean_cross_entropy(logits, labels)}


def _samples(images: LabelledImages, logits: np.ndarray, names: Sequence[str]):
    """(picture, right class, predicted class) of every picture."""

    def said(number: int) -> str:
        return names[number] if names else str(number)

    return [
        (images.where(i), said(int(right)), said(int(best)))
        for i, (right, best) in enumerate(zip(images.labels, logits.argmax(-1), strict=True))
    ]

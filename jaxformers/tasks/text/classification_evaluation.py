"""Judging a classifier on development and test sets, and classifying plain text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from scipy.special import expit, softmax

from jaxformers.data.text.labelled_rows import LabelledRows
from jaxformers.data.text.labelled_texts import LabelledSource, LabelledTexts, Labels
from jaxformers.errors import ConfigError, DataError, did_you_mean
from jaxformers.evaluation import mean_cross_entropy
from jaxformers.evaluation.glue import METRICS, metrics_for, scores
from jaxformers.sharding import constrain
from jaxformers.tasks.base import Evaluation
from jaxformers.tasks.evaluation_loop import check_outputs, every_output
from jaxformers.tasks.text.bert_inputs import INPUTS

if TYPE_CHECKING:
    from jaxformers.tasks.text.sequence_classification import SequenceClassification

STEP = 16  # lengths of texts that are classified are multiples of it, so that few are compiled


class Judged(NamedTuple):
    """A set that is judged or predicted."""

    name: str
    """dev, dev_matched, test, ..."""
    source: LabelledSource
    texts: LabelledTexts


def judged(task: SequenceClassification, *, final: bool) -> list[Judged]:
    """The development sets, and when `final` the test sets.

    The data's own test set is passed over where it cannot be read: training needs none.

    Raises:
        DataError: a set that was asked for cannot be read, or a development set has no labels.
    """
    found = _opened("dev", task.dev or task.data.other("dev"), task.labels)
    for each in found:
        if each.texts.labels is None:
            raise DataError(f"{each.texts.source} has no labels to judge by")
    tests = _test_sets(task)[0] if final else []
    return found + [each for each in tests if task.predict or each.texts.labels is not None]


def _test_sets(task: SequenceClassification) -> tuple[list[Judged], str]:
    """The test sets, or why the data's own cannot be read."""
    if task.test is not None:
        return _opened("test", task.test, task.labels), ""
    try:
        return _opened("test", task.data.other("test"), task.labels), ""
    except DataError as error:
        return [], str(error)


def _opened(split: str, source: LabelledSource | None, labels: Labels) -> list[Judged]:
    parts = () if source is None else source.parts()
    return [
        Judged(f"{split}_{name}" if name else split, part, _texts(part, labels))
        for name, part in parts
    ]


@lru_cache(maxsize=6)
def _texts(source: LabelledSource, labels: Labels) -> LabelledTexts:
    return source.open(labels)


@lru_cache(maxsize=6)
def _rows(source: LabelledSource, labels: Labels, tokenizer: Any, length: int) -> LabelledRows:
    return LabelledRows.build(_texts(source, labels), tokenizer, length)


def outputs(
    task: SequenceClassification, model, variables, tokenizer, *, final: bool
) -> list[np.ndarray]:
    """Float32 logits `[n, N]` of every set of `judged`."""
    stores = [
        _rows(each.source, task.labels, tokenizer, task.length)
        for each in judged(task, final=final)
    ]
    return [logits_of(model, variables, store, task.rows) for store in stores]


def logits_of(model, variables, store: LabelledRows, rows: int) -> np.ndarray:
    """Float32 logits `[n, N]` of every row, `rows` at once."""
    run = _program(model)
    return every_output(lambda b: run(variables, *(b[n] for n in INPUTS)), store, rows)


@lru_cache(maxsize=4)
def _program(model):
    @jax.jit
    def run(variables, *inputs):
        return constrain(model.apply(variables, *inputs), None, None)

    return run


def score(
    task: SequenceClassification, outputs: Sequence[np.ndarray], *, final: bool
) -> Evaluation:
    """What the outputs come to; see `SequenceClassification.score`."""
    sets, found = judged(task, final=final), Evaluation({})
    check_outputs(outputs, [(len(each.texts), task.labels.count) for each in sets])
    dev = []
    for each, logits in zip(sets, outputs, strict=True):
        if each.texts.labels is not None:
            values = _add_scores(found, task, each, np.asarray(logits, np.float32))
            dev += values if each.name.startswith("dev") else []
        if each.name.startswith("test"):
            _add_predictions(found, task, each, logits)
    if final and (problem := _test_sets(task)[1]):
        found.notes.append(f"no test set was judged: {problem}")
    if len(dev) > 1:
        found.metrics["dev_score"] = float(np.mean(dev))
    return found


def best_metric(task: SequenceClassification) -> str:
    """`dev_score`, or the only development metric; empty where no set is for development."""
    source = task.dev or task.data.other("dev")
    if source is None:
        return ""
    parts, names = source.parts(), _metrics(task, source)
    return "dev_score" if len(parts) * len(names) > 1 else f"dev_{names[0]}"


def check_metrics(task: SequenceClassification) -> None:
    """Raises ConfigError where `metrics` names one that is not known or does not fit the labels."""
    for name in task.metrics:
        if name not in METRICS:
            known = did_you_mean(name, list(METRICS)) or f"; there are {', '.join(METRICS)}"
            raise ConfigError(f"there is no metric {name!r}{known}")
        if (task.labels.count == 1) != (name in ("pearson", "spearman")):
            raise ConfigError(f"the metric {name} does not fit labels that are {task.labels}")


def _metrics(task: SequenceClassification, source: LabelledSource | None) -> tuple[str, ...]:
    return task.metrics or metrics_for(source.task if source else "", task.labels.count)


def predictions(logits: np.ndarray) -> np.ndarray:
    """The likeliest class, or the number, of each row [n]."""
    return logits[:, 0] if logits.shape[1] == 1 else logits.argmax(-1)


def _add_scores(
    found: Evaluation, task: SequenceClassification, each: Judged, logits: np.ndarray
) -> list[float]:
    """Puts the metrics, notes and samples of a set into `found`; returns the metrics."""
    right, said = each.texts.labels, predictions(logits)
    own = each.source.own
    if own is not None and own.count > 1:
        # F1 is of the data's class 1, wherever the classifier has it.
        order = task.labels.places_in(own)
        result = scores(_metrics(task, each.source), order[right], order[said])
    else:
        result = scores(_metrics(task, each.source), right, said)
    found.metrics |= {f"{each.name}_{name}": value for name, value in result.values.items()}
    found.metrics[f"{each.name}_loss"] = _mean_loss(logits, right)
    found.notes += [f"{each.name} {note}" for note in result.notes]
    if not np.isfinite(logits).all():
        found.notes.append(f"{each.name}: outputs are not finite; the model diverged")
    if each.texts.skipped:
        found.notes.append(f"{each.name}: {each.texts.skipped} damaged lines left out")
    found.samples = _samples(each, task.labels, said)
    return list(result.values.values())


def _mean_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    if logits.shape[1] == 1:
        return float(np.square(logits[:, 0] - labels).mean())
    return mean_cross_entropy(logits, labels)


def _samples(each: Judged, labels: Labels, said: np.ndarray) -> list[tuple[str, str, str]]:
    """(text, right label, predicted label) of every example."""
    texts = each.texts
    shown = texts.texts
    if texts.pairs is not None:
        shown = [f"{a} / {b}" for a, b in zip(shown, texts.pairs, strict=True)]
    sides = [
        (_shown(y, labels), _shown(p, labels)) for y, p in zip(texts.labels, said, strict=True)
    ]
    return [(text, *side) for text, side in zip(shown, sides, strict=True)]


def _shown(label: Any, labels: Labels) -> str:
    return f"{float(label):.2f}" if labels.count == 1 else labels.name(int(label))


def _add_predictions(
    found: Evaluation, task: SequenceClassification, each: Judged, logits: np.ndarray
) -> None:
    written = each.source.written(predictions(logits), task.labels)
    rows = [f"{name}\t{value}" for name, value in zip(each.texts.names, written, strict=True)]
    found.outputs += ["index\tprediction", *rows]
    if each.texts.labels is None:
        found.predictions[each.name] = ["index\tprediction", *rows]
        file = f"{each.name}.tsv"
        found.notes.append(f"{each.name} has no labels: {len(rows):,} predictions are in {file}")


def classify(
    model: Any,
    variables: Any,
    tokenizer: Any,
    texts: Sequence[str | tuple[str, str]],
    *,
    rows: int = 32,
    length: int | None = None,
) -> list[tuple[str, float]]:
    """The likeliest class of each text, or pair of texts, and its probability.

    Args:
        model: a `BertForSequenceClassification`, with its `variables` and its tokenizer.
        texts: single texts, or (text, second text).
        rows: texts classified at once.
        length: longer ones are cut to so many tokens; None: to the model's positions.

    Returns:
        (label, probability); of a regression ("score", number), with the label's name if it has
        one. Labels without names are numbers. Of labels that do not exclude each other, the
        likeliest with its own probability.
    """
    if not len(texts):
        return []
    pairs = [(text, "") if isinstance(text, str) else text for text in texts]
    first, second = map(list, zip(*pairs, strict=True))
    given = LabelledTexts("texts", first, second, None, [])
    store = LabelledRows.build(given, tokenizer, min(length or 2**30, model.config.max_length))
    store.length = min(-(-store.longest // STEP) * STEP, model.config.max_length)
    logits = logits_of(model, variables, store, min(rows, len(pairs)))
    names = model.config.label_names
    if logits.shape[1] == 1 and not model.config.multi_label:
        return [(names[0] if names else "score", float(value)) for value in logits[:, 0]]
    labels = Labels(logits.shape[1], names)
    shares = expit(logits) if model.config.multi_label else softmax(logits, axis=-1)
    return [(labels.name(int(row.argmax())), float(row.max())) for row in shares]

"""Precision, recall and F1 of entities, as seqeval and CoNLL's conlleval count them.

An entity is right where its type, its first and its last word are. Tags need not be valid in any
scheme, as those of a model are not: an "I-" that follows no entity of its type begins one (the
default mode of seqeval 1.2.2, which is conlleval's rule).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from jaxformers.data.text.tags.schemes import BEGINS, ENDS, split_tag


class EntitySpan(NamedTuple):
    """An entity of a sentence, in words."""

    type: str
    start: int
    """Index of the first word."""
    end: int
    """One past that of the last word."""


class EntityScores(NamedTuple):
    """Shares from 0 to 1, and the number of entities that they are of."""

    precision: float
    """Of the predicted entities, those that are right."""
    recall: float
    """Of the reference's entities, those that are predicted."""
    f1: float
    """Harmonic mean of both; 0 where both are."""
    count: int
    """Entities of the reference."""


def entity_spans(tags: Sequence[str]) -> list[EntitySpan]:
    """The entities of a sentence's tags, in their order."""
    spans: list[EntitySpan] = []
    start, open_type, previous_prefix = 0, "", ""
    for index, tag in enumerate([*tags, "O"]):
        prefix, entity_type = split_tag(tag)
        begins = prefix in BEGINS or previous_prefix in ENDS or entity_type != open_type
        if open_type and begins:
            spans.append(EntitySpan(open_type, start, index))
        if begins:
            start = index
        open_type, previous_prefix = entity_type, prefix
    return spans


def entity_scores(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]
) -> dict[str, EntityScores]:
    """Scores of all entities together, under "", and of those of each type.

    Args:
        references: tags of each sentence.
        predictions: as many tags for each sentence.
    """
    correct, predicted, actual = Counter[str](), Counter[str](), Counter[str]()
    for reference, prediction in zip(references, predictions, strict=True):
        true, guessed = set(entity_spans(reference)), set(entity_spans(prediction))
        for counter, spans in ((correct, true & guessed), (predicted, guessed), (actual, true)):
            counter.update(span.type for span in spans)
            counter[""] += len(spans)
    names = sorted({"", *predicted, *actual})
    return {name: _scores(correct[name], predicted[name], actual[name]) for name in names}


def tag_accuracy(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]
) -> float:
    """The share of words whose tag is right; 0 without words."""
    pairs = [
        tag == guess
        for reference, prediction in zip(references, predictions, strict=True)
        for tag, guess in zip(reference, prediction, strict=True)
    ]
    return sum(pairs) / len(pairs) if pairs else 0.0


def _scores(correct: int, predicted: int, actual: int) -> EntityScores:
    precision = correct / predicted if predicted else 0.0
    recall = correct / actual if actual else 0.0
    total = precision + recall
    return EntityScores(precision, recall, 2 * precision * recall / total if total else 0.0, actual)

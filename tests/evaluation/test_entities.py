"""Scores of entities against those of seqeval, kept in `fixtures/entities.json`."""

import json
from pathlib import Path

import pytest

from jaxformers.evaluation import entity_scores, entity_spans, tag_accuracy

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "entities.json").read_text())


def test_scores_are_those_of_seqeval():
    for case in CASES:
        references, predictions = case["references"], case["predictions"]
        for tags, spans in zip(references, case["entities"], strict=True):
            assert [list(span) for span in entity_spans(tags)] == spans
        scores = entity_scores(references, predictions)
        assert scores[""][:3] == pytest.approx(case["all"], abs=1e-12)
        by_type = {name: list(values) for name, values in scores.items() if name}
        assert by_type == {name: pytest.approx(row) for name, row in case["types"].items()}
        assert tag_accuracy(references, predictions) == pytest.approx(case["accuracy"])


def test_entities_of_iobes_and_bilou_are_the_same():
    iobes = ["S-A", "B-A", "I-A", "E-A", "O", "B-B", "E-B", "S-B"]
    spans = [("A", 0, 1), ("A", 1, 4), ("B", 5, 7), ("B", 7, 8)]
    assert entity_spans(iobes) == spans
    bilou = [tag.replace("S-", "U-").replace("E-", "L-") for tag in iobes]
    assert entity_spans(bilou) == spans


def test_sentences_without_entities_or_words_score_nothing():
    assert entity_scores([["O"]], [["O"]])[""] == (0.0, 0.0, 0.0, 0)
    assert entity_scores([], [])[""] == (0.0, 0.0, 0.0, 0)
    assert tag_accuracy([], []) == 0.0

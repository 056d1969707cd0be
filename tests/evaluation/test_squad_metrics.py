import json
from pathlib import Path

import pytest

from jaxformers.errors import DataError
from jaxformers.evaluation import (
    exact_match,
    f1,
    normalize_answer,
    squad2_scores,
    squad_scores,
)

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "squad_metrics.json").read_text("utf8")
)
CASES = GOLDEN["cases"]


def columns(case):
    """Predictions, answers and odds of a recorded case."""
    questions = case["questions"].items()
    return ({k: row[name] for k, row in questions} for name in ("prediction", "answers", "odds"))


def test_answers_are_normalised_as_by_the_published_scripts():
    assert len(GOLDEN["normalized"]) > 200
    for text, normalized in GOLDEN["normalized"].items():
        assert normalize_answer(text) == normalized, ascii(text)


@pytest.mark.parametrize("case", [case for case in CASES if "v1" in case])
def test_scores_equal_those_of_the_published_script_of_1_1(case):
    for recorded in case["v1"]:
        predictions, answers, _ = columns(case)
        for question in recorded["missing"]:
            del predictions[question]
        scores = squad_scores(predictions, answers)
        assert scores["exact"] == pytest.approx(recorded["exact"], abs=1e-9)
        assert scores["f1"] == pytest.approx(recorded["f1"], abs=1e-9)
        assert scores["total"] == len(answers)


@pytest.mark.parametrize("case", CASES)
def test_scores_equal_those_of_the_published_script_of_2_0(case):
    for recorded in case["v2"]:
        scores = squad2_scores(*columns(case), recorded["threshold"])
        assert scores == pytest.approx(recorded["scores"], abs=1e-9)


def test_the_recorded_scores_try_every_measure():
    """Neither all right nor all wrong, thresholds that matter, missing predictions."""
    mixed = next(case for case in CASES if len(case["v2"][0]["scores"]) == 13)
    assert len({row["scores"]["exact"] for row in mixed["v2"]}) > 3
    assert mixed["v2"][0]["scores"]["best_f1_thresh"] != 0
    assert mixed["v2"][0]["scores"]["best_f1"] > max(row["scores"]["f1"] for row in mixed["v2"]) - 1
    first, missing = CASES[0]["v1"]
    assert 10 < missing["f1"] < first["f1"] < 90 and first["exact"] < first["f1"]


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "overlap"),
    [
        ("The Cat.", ["cat", "dog"], 1, 1),
        ("a black cat", ["the cat"], 0, 2 / 3),
        ("cat cat", ["cat"], 0, 2 / 3),
        ("", [""], 1, 0),
        ("the", ["an"], 1, 0),
        ("?!", ["..."], 1, 0),
        ("", ["cat"], 0, 0),
        ("cat", [], 0, 0),
        ("theatre", ["atre"], 0, 0),
        ("café", ["cafe\u0301"], 0, 0),
        ("“cat”", ["cat"], 0, 0),
        ("the\u00a0cat", ["cat"], 1, 1),
    ],
)
def test_one_answer(prediction, answers, exact, overlap):
    assert exact_match(prediction, answers) == exact
    assert f1(prediction, answers) == pytest.approx(overlap)


def test_a_single_answer_is_a_list_of_one():
    assert exact_match("The cat", "cat") == f1("cat sat", "sat cat") == 1
    assert squad_scores({"q": "the cat"}, {"q": "cat"})["exact"] == 100


def test_nothing_agrees_with_nothing_in_2_0_only():
    assert squad2_scores({"q": "the"}, {"q": ["an"]}, {"q": 0.0})["f1"] == 100
    assert squad_scores({"q": "the"}, {"q": ["an"]})["f1"] == 0


def test_the_best_threshold_answers_what_can_be_answered_and_no_more():
    predictions = {"a": "cat", "b": "dog", "c": "cow"}
    answers = {"a": ["cat"], "b": [], "c": ["cow"]}
    scores = squad2_scores(predictions, answers, {"a": -5.0, "b": 3.0, "c": -2.0}, threshold=9.0)
    assert scores["exact"] == pytest.approx(200 / 3)
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (100, -2.0)
    assert (scores["HasAns_exact"], scores["NoAns_exact"]) == (100, 0)
    again = squad2_scores(predictions, answers, {"a": -5.0, "b": 3.0, "c": -2.0}, threshold=-2.0)
    assert again["exact"] == again["f1"] == 100


def test_no_answer_given_where_there_is_none_costs_nothing_in_the_search():
    scores = squad2_scores({"a": "", "b": "cat"}, {"a": [], "b": ["cat"]}, {"a": -5.0, "b": -3.0})
    assert (scores["best_f1"], scores["best_f1_thresh"]) == (100, -3.0)


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (lambda: squad_scores({}, {}), "no questions"),
        (lambda: squad_scores({"q": ""}, {"q": []}), "question q has no answer"),
        (lambda: squad2_scores({}, {}, {}), "no questions"),
        (lambda: squad2_scores({}, {"q": []}, {"q": 0.0}), "1 of 1 questions lack a prediction"),
        (lambda: squad2_scores({"q": ""}, {"q": []}, {}), "lack odds .* the first is q"),
    ],
)
def test_what_cannot_be_scored_is_refused(score, says):
    with pytest.raises(DataError, match=says):
        score()

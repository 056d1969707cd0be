"""SQuAD's measures, equal to those of its published scripts (evaluate-v1.1, evaluate-v2.0).

Answers are compared without case, ASCII punctuation and articles. Exact match asks for the same
text, F1 compares bags of words; of several answers the best counts. All scores are percent.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from jaxformers.errors import DataError
from jaxformers.text import listed_texts

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)

Predictions = Mapping[str, str]
Answers = Mapping[str, str | Sequence[str]]


def normalize_answer(text: str) -> str:
    """`text` in lower case, without ASCII punctuation and articles, single blanks between words."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, answers: str | Sequence[str]) -> float:
    """1 where `prediction` is one of `answers` after `normalize_answer`, else 0.

    Example:
        >>> jf.evaluation.exact_match("The Broncos!", "broncos")
        1.0
    """
    return float(normalize_answer(prediction) in map(normalize_answer, listed_texts(answers)))


def f1(prediction: str, answers: str | Sequence[str]) -> float:
    """The best F1, in [0, 1], between the words of `prediction` and those of each answer.

    As in version 1.1, it is 0 where no word is left on either side.

    Example:
        >>> jf.evaluation.f1("Denver Broncos", "the Broncos")
        0.666...
    """
    return max((_word_f1(prediction, answer) for answer in listed_texts(answers)), default=0.0)


def squad_scores(predictions: Predictions, answers: Answers) -> dict[str, float]:
    """`exact` and `f1` of SQuAD 1.1, in percent, and `total`, the number of questions.

    Args:
        predictions: the text predicted for each question; a question without one scores 0.
        answers: the texts that are right for each question.

    Raises:
        DataError: there are no questions, or one has no answers (then it is SQuAD 2.0).
    """
    if unanswered := [question for question in answers if not answers[question]]:
        raise DataError(
            f"question {unanswered[0]} has no answer, as {len(unanswered)} of {len(answers)}: "
            "score them as SQuAD 2.0"
        )
    answered = [question for question in answers if question in predictions]
    exact = {q: exact_match(predictions[q], answers[q]) for q in answered}
    overlap = {q: f1(predictions[q], answers[q]) for q in answered}
    return _means(exact, overlap, list(answers))


def squad2_scores(
    predictions: Predictions,
    answers: Answers,
    null_odds: Mapping[str, float],
    threshold: float = 0.0,
) -> dict[str, float]:
    """The scores of SQuAD 2.0, in percent, by the names of the published script.

    `exact`, `f1`, `total`; the same for questions with and without an answer (`HasAns_exact`,
    `NoAns_f1`, ...; left out where there is no such question); `best_exact`, `best_f1` and the
    thresholds that give them, `best_exact_thresh`, `best_f1_thresh`.

    Args:
        predictions: for each question the best text, or "" for no answer. The search for a
            threshold needs the best text that is not "" wherever there is one.
        answers: the right texts of each question; empty where it has no answer.
        null_odds: for each question how strongly the model leans to "no answer" (the score of
            no answer minus that of the best text, or a probability).
        threshold: a question with greater odds is answered by "".

    Raises:
        DataError: there are no questions, or one lacks a prediction or its odds.
    """
    _check_complete(predictions, answers, "a prediction")
    _check_complete(null_odds, answers, "odds of having no answer")
    golds = {question: _golds(texts) for question, texts in answers.items()}
    exact = {q: exact_match(predictions[q], golds[q]) for q in answers}
    # By 2.0's rule, nothing and nothing agree.
    overlap = {q: exact[q] if golds[q] == [""] else f1(predictions[q], golds[q]) for q in answers}
    chosen = [
        {q: float(not answers[q]) if null_odds[q] > threshold else raw[q] for q in answers}
        for raw in (exact, overlap)
    ]
    scores = _means(*chosen, list(answers))
    for prefix, has_answer in (("HasAns", True), ("NoAns", False)):
        if questions := [question for question in answers if bool(answers[question]) is has_answer]:
            scores |= {f"{prefix}_{k}": v for k, v in _means(*chosen, questions).items()}
    for name, raw in (("exact", exact), ("f1", overlap)):
        best, at = _best_threshold(raw, predictions, answers, null_odds)
        scores |= {f"best_{name}": best, f"best_{name}_thresh": at}
    return scores


def _golds(texts: str | Sequence[str]) -> list[str]:
    """The answers of which something is left, or the empty one."""
    return [text for text in listed_texts(texts) if normalize_answer(text)] or [""]


def _word_f1(prediction: str, answer: str) -> float:
    words, gold = normalize_answer(prediction).split(), normalize_answer(answer).split()
    same = (Counter(words) & Counter(gold)).total()
    if not same:
        return 0.0
    precision, recall = same / len(words), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def _means(
    exact: Mapping[str, float], overlap: Mapping[str, float], questions: Sequence[str]
) -> dict[str, float]:
    if not questions:
        raise DataError("no questions to score: the evaluation data is empty")
    sums = [sum(scores.get(q, 0.0) for q in questions) for scores in (exact, overlap)]
    count = len(questions)
    return {"exact": 100 * sums[0] / count, "f1": 100 * sums[1] / count, "total": count}


def _best_threshold(
    scores: Mapping[str, float],
    predictions: Predictions,
    answers: Answers,
    null_odds: Mapping[str, float],
) -> tuple[float, float]:
    """The best mean score, in percent, and the odds up to which a text is given for it.

    From "no answer" everywhere, texts are admitted in the order of their odds; equal odds keep
    the order of `null_odds`, and are not taken together, as in the published script.
    """
    best = current = float(sum(not texts for texts in answers.values()))
    threshold = 0.0
    for question in sorted(null_odds, key=null_odds.__getitem__):
        if question not in answers:
            continue
        if answers[question]:
            current += scores[question]
        elif predictions[question]:
            current -= 1
        if current > best:
            best, threshold = current, null_odds[question]
    return 100 * best / len(answers), threshold


def _check_complete(predictions: Mapping[str, object], answers: Answers, what: str) -> None:
    if missing := [question for question in answers if question not in predictions]:
        raise DataError(
            f"{len(missing)} of {len(answers)} questions lack {what}, the first is {missing[0]}: "
            "SQuAD 2.0 is scored on all of them"
        )

"""Exact match and F1 of answers, and the best threshold for "no answer"."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxformers.data.text.windows import Windows, WindowSize
from jaxformers.evaluation.squad import squad2_scores, squad_scores
from jaxformers.tasks.base import Evaluation
from jaxformers.tasks.evaluation_loop import check_outputs
from jaxformers.tasks.text.span_answers import Answer, best_answers, null_scores, window_logits
from jaxformers.text import WordPiece

if TYPE_CHECKING:
    from jaxformers.tasks.text.span_extraction import QuestionsConfig, SpanExtraction


def outputs(
    task: SpanExtraction, model: Any, variables: Any, tokenizer: WordPiece, *, final: bool
) -> list[np.ndarray]:
    """Logits `[W, 2, L]` of each set that is judged."""
    return [
        window_logits(model, variables, windows, task.rows)
        for _, windows in judged(task, tokenizer, final)
    ]


def score(
    task: SpanExtraction, outputs: list[np.ndarray], tokenizer: WordPiece, *, final: bool
) -> Evaluation:
    """The metrics of all sets, the samples and predictions of the last.

    Raises:
        DataError: logits of other windows than those of the task's questions.
    """
    sets, found = judged(task, tokenizer, final), Evaluation({})
    wanted = [(len(windows), 2, task.length) for _, windows in sets]
    check_outputs(outputs, wanted, same="questions, vocabulary, length and stride")
    for (prefix, windows), logits in zip(sets, outputs, strict=True):
        answers = best_answers(windows, logits, task.n_best, task.longest_answer)
        best = [each[0] for each in answers]
        texts, metrics = _scored(windows, best, logits, task.null_threshold)
        found.metrics |= {f"{prefix}{name}": value for name, value in metrics.items()}
        found.samples = [
            (q.question, " / ".join(dict.fromkeys(q.answers)), text)
            for q, text in zip(windows.asked, texts, strict=True)
        ]
        found.outputs = [
            f"{q.id}\t{' '.join(text.split())}"
            for q, text in zip(windows.asked, texts, strict=True)
        ]
    return found


def _scored(
    windows: Windows, best: list[Answer], logits: np.ndarray, threshold: float
) -> tuple[list[str], dict[str, float]]:
    """The predicted texts and their metrics."""
    ids, texts = [q.id for q in windows.asked], [each.text for each in best]
    predictions = dict(zip(ids, texts, strict=True))
    answers = {q.id: q.answers for q in windows.asked}
    if all(answers.values()):
        return texts, squad_scores(predictions, answers)
    odds = null_scores(windows, logits) - np.array([each.score for each in best])
    predicted = ["" if odd > threshold else text for text, odd in zip(texts, odds, strict=True)]
    null_odds = dict(zip(ids, odds.tolist(), strict=True))
    return predicted, squad2_scores(predictions, answers, null_odds, threshold)


def judged(task: SpanExtraction, tokenizer: WordPiece, final: bool) -> list[tuple[str, Windows]]:
    """The windows of each set that is judged, with what its metrics' names begin with."""
    sources = [("", task.dev), ("test_", task.test if final else None)]
    return [(p, _windows(s, tokenizer, task.size)) for p, s in sources if s is not None]


# The questions are read and cut once, not at each evaluation.
@lru_cache(maxsize=2)
def _windows(source: QuestionsConfig, tokenizer: WordPiece, size: WindowSize) -> Windows:
    return Windows(source.open(), tokenizer, size, training=False)

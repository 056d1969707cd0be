"""Evaluates span extraction: exact match and F1, and the best threshold for "no answer"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from jaxformers.data.files.file_state import FileState, source_state
from jaxformers.data.text.squad import BundledQuestions, SquadJson, TfdsSquad
from jaxformers.data.text.windows import Windows, WindowSize
from jaxformers.evaluation.squad import squad2_scores, squad_scores
from jaxformers.fields import FiniteFloat, PositiveInt
from jaxformers.tasks.evaluation_loop import check_outputs
from jaxformers.tasks.evaluator import Evaluation, OutputEvaluator
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.text.span_answers import Answer, best_answers, null_scores, window_logits
from jaxformers.text import WordPiece

QuestionsConfig = SquadJson | TfdsSquad | BundledQuestions


@dataclass(frozen=True, kw_only=True)
class SpanEvaluator(OutputEvaluator):
    """`exact` and `f1` of the answers in percent; of test questions `test_exact` and `test_f1`.

    With unanswerable questions also those of both kinds of question apart, and the best that
    another threshold would give (SQuAD 2.0). `Evaluation.outputs` has a line of id and answer each;
    `Evaluation.predictions` those of a set without labels, which is not scored.
    """

    name: str = "spans"
    dev: QuestionsConfig | None
    test: QuestionsConfig | None = None
    size: WindowSize = WindowSize()
    rows: PositiveInt = 32
    """Windows of a batch."""
    n_best: PositiveInt = 20
    """Spans of each window that are ranked."""
    longest_answer: PositiveInt = 30
    """Most word pieces of an answer."""
    null_threshold: FiniteFloat = 0.0
    """"No answer" where its score exceeds the best span's by more than this."""

    def open_sets(self, tokenizer: WordPiece, *, final: bool) -> list[tuple[str, Windows]]:
        """The windows of each set, with the prefix of its metrics' names."""
        sources = [("", self.dev), ("test_", self.test if final else None)]
        return [
            (p, _windows(s, source_state(s), tokenizer, self.size))
            for p, s in sources
            if s is not None
        ]

    def outputs(self, model, variables, processor: Processor, *, final: bool) -> list[np.ndarray]:
        """Start and end logits `[W, 2, L]` of the windows of each set."""
        return [
            window_logits(model, variables, windows, self.rows)
            for _, windows in self.open_sets(processor.tokenizer, final=final)
        ]

    def score(
        self, outputs: Sequence[np.ndarray], processor: Processor, *, final: bool
    ) -> Evaluation:
        """The metrics of all sets, the samples and predictions of the last.

        Raises:
            DataError: the outputs' shapes are not those of the sets' windows.
        """
        sets = self.open_sets(processor.tokenizer, final=final)
        shapes = [(len(windows), 2, self.size.length) for _, windows in sets]
        check_outputs(outputs, shapes, same="questions, vocabulary, length and stride")
        evaluation = Evaluation({})
        # A set without labels may have unanswerable questions where a labelled one has some.
        some_impossible = any(q.impossible for _, windows in sets for q in windows.asked)
        for (prefix, windows), logits in zip(sets, outputs, strict=True):
            answers = best_answers(windows, logits, self.n_best, self.longest_answer)
            best = [ranked[0] for ranked in answers]
            if windows.asked[0].impossible is None:
                texts, metrics = self._predict_set(windows, best, logits, some_impossible), {}
                lines = (
                    f"{q.id}\t{' '.join(t.split())}"
                    for q, t in zip(windows.asked, texts, strict=True)
                )
                evaluation.predictions[prefix.rstrip("_") or "dev"] = ["id\tanswer", *lines]
            else:
                texts, metrics = self._score_set(windows, best, logits)
            evaluation.metrics |= {f"{prefix}{name}": value for name, value in metrics.items()}
            predictions = list(zip(windows.asked, texts, strict=True))
            evaluation.samples = [
                (q.question, " / ".join(dict.fromkeys(q.answers)), text) for q, text in predictions
            ]
            evaluation.outputs = [f"{q.id}\t{' '.join(text.split())}" for q, text in predictions]
        return evaluation

    def _predict_set(
        self, windows: Windows, best: list[Answer], logits: np.ndarray, some_impossible: bool
    ) -> list[str]:
        """The predicted texts of questions without labels."""
        if not some_impossible:
            return [answer.text for answer in best]
        nulls = null_scores(windows, logits)
        return [
            "" if null - answer.score > self.null_threshold else answer.text
            for null, answer in zip(nulls, best, strict=True)
        ]

    def _score_set(
        self, windows: Windows, best: list[Answer], logits: np.ndarray
    ) -> tuple[list[str], dict[str, float]]:
        """The predicted texts of a set's questions, and their metrics."""
        ids, texts = [q.id for q in windows.asked], [answer.text for answer in best]
        predictions = dict(zip(ids, texts, strict=True))
        answers = {q.id: q.answers for q in windows.asked}
        if all(answers.values()):
            return texts, squad_scores(predictions, answers)
        # How much the score of "no answer" exceeds that of the best span.
        odds = null_scores(windows, logits) - np.array([answer.score for answer in best])
        null_odds = dict(zip(ids, odds.tolist(), strict=True))
        metrics = squad2_scores(predictions, answers, null_odds, self.null_threshold)
        return [
            "" if odd > self.null_threshold else text for text, odd in zip(texts, odds, strict=True)
        ], metrics

    def ensemble_requirements(self, processor: Processor) -> dict[str, Any]:
        """The questions, the vocabulary and the windows."""
        return {
            "development questions": self.dev,
            "test questions": self.test,
            "vocabulary": processor.tokenizer.fingerprint,
            "window sizes": self.size,
        }


# Cached, so that questions are read and cut once and not at each evaluation.
@lru_cache(maxsize=2)
def _windows(
    source: QuestionsConfig, state: FileState, tokenizer: WordPiece, size: WindowSize
) -> Windows:
    return Windows(source.open(), tokenizer, size, training=False)

"""Classification and entailment of texts, questions about texts, summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from jaxformers.evaluation.text_image import normalised_answer, rouge_l, token_f1
from jaxformers.tasks.text_image.answers.labels import LabelTask
from jaxformers.tasks.text_image.base import Record, Sample, Source, TextImageTask, as_list, choose
from jaxformers.tasks.text_image.texts.bundled import BundledTexts

TextSource = BundledTexts | Source


@dataclass(frozen=True)
class TextClassification(LabelTask):
    """Features `text` and `label`; `question` names the classes where they are to be known."""

    PROMPT: ClassVar[str] = "sentence: {text}"
    FEATURES: ClassVar[tuple[str, ...]] = ("text", "label")
    INPUT: ClassVar[str] = "text"

    source: TextSource = field(default_factory=BundledTexts)
    question: str = ""
    """Asked behind the text, such as `is the sentence positive or negative ?`."""

    def prompt(self, record: Record) -> str:
        """The text, then the question."""
        asked = f" question: {self.question}" * bool(self.question)
        return self.PROMPT.format(text=record["text"]) + asked


@dataclass(frozen=True)
class TextEntailment(LabelTask):
    """Features `premise`, `hypothesis` and `label`: GLUE's pairs of sentences."""

    PROMPT: ClassVar[str] = "sentence1: {premise} sentence2: {hypothesis}"
    FEATURES: ClassVar[tuple[str, ...]] = ("premise", "hypothesis", "label")
    INPUT: ClassVar[str] = "text"

    source: TextSource = field(default_factory=BundledTexts)
    question: str = "does sentence1 entail sentence2 ?"

    def prompt(self, record: Record) -> str:
        """Both sentences, then the question."""
        texts = {name: record[name] for name in ("premise", "hypothesis")}
        return f"{self.PROMPT.format(**texts)} question: {self.question}"


@dataclass(frozen=True)
class QuestionAnswering(TextImageTask):
    """Features `context`, `question` and `answers`: SQuAD's kind."""

    PROMPT: ClassVar[str] = "context: {context} question: {question}"
    FEATURES: ClassVar[tuple[str, ...]] = ("context", "question", "answers")
    INPUT: ClassVar[str] = "text"
    BEST: ClassVar[str] = "f1"

    source: TextSource = field(default_factory=BundledTexts)

    def sample(self, record: Record, word: int) -> Sample:
        """One of the answers as target."""
        answers = tuple(as_list(record["answers"]))
        texts = {name: record[name] for name in ("context", "question")}
        return Sample(self.PROMPT.format(**texts), text=choose(answers, word), truth=answers)

    def metrics(self, answers: Sequence[str], truths: Sequence[Sequence[str]]) -> dict[str, float]:
        """`f1` of words and `exact` matches, of the best of several answers, in percent."""
        pairs = list(zip(answers, truths, strict=True))
        f1 = [max(token_f1(answer, text) for text in texts) for answer, texts in pairs]
        exact = [
            normalised_answer(answer) in map(normalised_answer, texts) for answer, texts in pairs
        ]
        return {"f1": 100 * float(np.mean(f1)), "exact": 100 * float(np.mean(exact))}


@dataclass(frozen=True)
class Summarisation(TextImageTask):
    """Features `text` and `summary`."""

    PROMPT: ClassVar[str] = "summarize: {text}"
    FEATURES: ClassVar[tuple[str, ...]] = ("text", "summary")
    INPUT: ClassVar[str] = "text"
    BEST: ClassVar[str] = "rouge_l"

    source: TextSource = field(default_factory=BundledTexts)

    def sample(self, record: Record, word: int) -> Sample:
        """The summary as target."""
        text = self.PROMPT.format(text=record["text"])
        return Sample(text, text=record["summary"], truth=record["summary"])

    def metrics(self, answers: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
        """The mean `rouge_l`, from 0 to 100."""
        scores = [rouge_l(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
        return {"rouge_l": 100 * float(np.mean(scores))}

"""Questions about pictures (Antol et al. 2015; Goyal et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from jaxformers.data.scenes import Scene, questions
from jaxformers.data.scenes.drawings import THINGS
from jaxformers.evaluation.text_image import vqa_accuracy
from jaxformers.tasks.text_image.base import Record, Sample, TextImageTask, as_list, choose


@dataclass(frozen=True)
class VQA(TextImageTask):
    """Features `image`, `question` and `answers` (one or several)."""

    PROMPT: ClassVar[str] = "{question}"
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "question", "answers")
    BEST: ClassVar[str] = "accuracy"

    kind: Literal["all", "count", "colour", "presence"] = "all"
    """Which questions are asked of emoji scenes."""

    def sample(self, record: Record, word: int) -> Sample:
        """The question in lower case, one of its answers as target."""
        answers = tuple(as_list(record["answers"]))
        question = record["question"].lower()
        return Sample(question, record["image"], text=choose(answers, word), truth=answers)

    def scene_record(self, scene: Scene, word: int) -> Record | None:
        """One of the scene's questions of the stated kind."""
        things = getattr(self.source, "things", len(THINGS))
        asked = [q for q in questions(scene, things) if self.kind in ("all", q.kind)]
        if not asked:
            return None
        question = choose(asked, word)
        return {
            "image": scene.image,
            "question": question.question,
            "answers": (question.answer,),
        }

    def metrics(self, answers: Sequence[str], truths: Sequence[Sequence[str]]) -> dict[str, float]:
        """VQA's `accuracy` in percent."""
        pairs = zip(answers, truths, strict=True)
        return {"accuracy": 100 * float(np.mean([vqa_accuracy(a, texts) for a, texts in pairs]))}

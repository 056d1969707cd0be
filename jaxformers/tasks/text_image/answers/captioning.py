"""Captions of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxformers.data.scenes import Scene, captions
from jaxformers.evaluation.bleu import corpus_bleu
from jaxformers.evaluation.text_image import cider_d
from jaxformers.tasks.text_image.base import (
    Record,
    Sample,
    TextImageTask,
    as_list,
    choose,
    exact_match,
)


@dataclass(frozen=True)
class Captioning(TextImageTask):
    """Features `image` and `captions` (one or several)."""

    PROMPT: ClassVar[str] = "What does the image describe ?"
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "captions")
    BEST: ClassVar[str] = "cider"

    def sample(self, record: Record, word: int) -> Sample:
        """One of the captions as target, all as truth."""
        texts = tuple(as_list(record["captions"]))
        return Sample(self.PROMPT, record["image"], text=choose(texts, word), truth=texts)

    def scene_record(self, scene: Scene, word: int) -> Record:
        """The canonical caption: things with their numbers, and the ground."""
        return {"image": scene.image, "captions": captions(scene)[:1]}

    def metrics(self, answers: Sequence[str], truths: Sequence[Sequence[str]]) -> dict[str, float]:
        """`cider`, `bleu` of the first caption, and `exact` matches in percent."""
        return {
            "cider": cider_d(answers, truths),
            "bleu": corpus_bleu(list(answers), [texts[0] for texts in truths]).score,
            "exact": exact_match(answers, truths),
        }

"""The region that answers a question (VizWiz-VQA-Grounding, Chen et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformers.data.scenes import Scene
from jaxformers.evaluation.text_image import localisation_score, vqa_accuracy
from jaxformers.tasks.text_image.base import Record, RegionTask, Sample, choose, true_regions
from jaxformers.text.unified_io import Regions, regions_text


@dataclass(frozen=True)
class GroundedVQA(RegionTask):
    """Features `image`, `question`, `answer` and `box`; the answer is the label of its region."""

    PROMPT: ClassVar[str] = "{question} Where is the answer ?"
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "question", "answer", "box")
    BEST: ClassVar[str] = "iou"

    def sample(self, record: Record, word: int) -> Sample:
        """The region with the answer as its label."""
        size = record["image"].shape[:2]
        prompt = self.PROMPT.format(question=record["question"].lower())
        region = true_regions([record["box"]], [record["answer"]])
        text = regions_text(region.boxes.tolist(), region.labels, size)
        return Sample(prompt, record["image"], text=text, truth=region)

    def scene_record(self, scene: Scene, word: int) -> Record | None:
        """What is the nearest thing, and where."""
        nearest = scene.objects[-1]
        ask = choose(("what is the nearest thing ?", "which thing is the largest ?"), word)
        return {
            "image": scene.image,
            "question": ask,
            "answer": nearest.name,
            "box": nearest.box,
        }

    def metrics(self, answers: Sequence[Regions], truths: Sequence[Regions]) -> dict[str, float]:
        """`iou` of the region and VQA's `accuracy` of the answer, in percent."""
        pairs = list(zip(answers, truths, strict=True))
        ious = [localisation_score(answer.boxes[:1], truth.boxes) for answer, truth in pairs]
        right = [vqa_accuracy(" ".join(a.labels[:1]), truth.labels) for a, truth in pairs]
        return {"iou": 100 * float(np.mean(ious)), "accuracy": 100 * float(np.mean(right))}

    def trivial(self, truths: Sequence[Regions]) -> list[Regions]:
        """The mean box with the most frequent answer."""
        boxes = np.mean([truth.boxes[0] for truth in truths], axis=0, keepdims=True)
        label = max(sorted({t.labels for t in truths}), key=[t.labels for t in truths].count)
        return [Regions(boxes, label)] * len(truths)

"""The joints of a person in a box (COCO's key points)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jaxformers.evaluation.text_image import key_point_similarity
from jaxformers.tasks.text_image.base import Prediction, Record, Sample, TextImageTask, true_box
from jaxformers.text.unified_io import (
    KeyPoints,
    UnifiedIOTokenizer,
    box_text,
    key_points_text,
    read_key_points,
)


class PersonTruth(NamedTuple):
    """The joints of a person, and the area that errors are measured by."""

    joints: KeyPoints
    area: float


@dataclass(frozen=True)
class KeyPointEstimation(TextImageTask):
    """Features `image`, `box`, `points` [17, 2] and `visibility` [17] (0, 1, 2)."""

    PROMPT: ClassVar[str] = 'Find the human joints in the region " {region} " .'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "box", "points", "visibility")
    BEST: ClassVar[str] = "similarity"

    def sample(self, record: Record, word: int) -> Sample:
        """17 points, each with its visibility plus one; those that are absent are at 0, 0."""
        points = np.array(record["points"], float).reshape(17, 2)
        visibility = np.array(record["visibility"], np.int64).reshape(17)
        if not np.isin(visibility, (0, 1, 2)).all():
            raise ValueError(f"visibility is {visibility.tolist()}: it is 0, 1 or 2")
        size, box = record["image"].shape[:2], true_box(record["box"])
        prompt = self.PROMPT.format(region=box_text(box, size))
        text = key_points_text(points.tolist(), visibility.tolist(), size)
        x1, y1, x2, y2 = box
        truth = PersonTruth(KeyPoints(points, visibility), (x2 - x1) * (y2 - y1))
        return Sample(prompt, record["image"], text=text, truth=truth)

    def read(
        self, tokenizer: UnifiedIOTokenizer, prediction: Prediction, sample: Sample
    ) -> KeyPoints:
        """The joints in pixels of the input picture."""
        return read_key_points(tokenizer, prediction.ids, sample.size)

    def metrics(
        self, answers: Sequence[KeyPoints], truths: Sequence[PersonTruth]
    ) -> dict[str, float]:
        """COCO's object key-point `similarity`, from 0 to 100."""
        scores = [
            key_point_similarity(a.points, t.joints.points, t.joints.visibility, t.area)
            for a, t in zip(answers, truths, strict=True)
        ]
        return {"similarity": 100 * float(np.mean(scores))}

    def trivial(self, truths: Sequence[PersonTruth]) -> list[KeyPoints]:
        """The mean pose."""
        points = np.mean([truth.joints.points for truth in truths], axis=0)
        return [KeyPoints(points, np.ones(17, np.int64))] * len(truths)

    def show(self, axis: Any, sample: Sample, answer: KeyPoints | PersonTruth) -> None:
        """Visible joints as dots on the picture."""
        answer = answer.joints if isinstance(answer, PersonTruth) else answer
        axis.set(xticks=[], yticks=[])
        axis.imshow(sample.image)
        x, y = answer.points[answer.visibility > 0].T
        axis.scatter(x, y, s=8, color="tab:red")

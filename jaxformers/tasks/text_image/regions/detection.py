"""All objects of a picture with their boxes."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformers.data.scenes import Scene
from jaxformers.evaluation.text_image import box_f1, coco_ap
from jaxformers.tasks.text_image.base import Record, RegionTask, Sample, true_regions
from jaxformers.text.unified_io import Regions, regions_text


@dataclass(frozen=True)
class Detection(RegionTask):
    """Features `image`, `boxes` (x1 y1 x2 y2 in pixels) and `labels`."""

    PROMPT: ClassVar[str] = "What objects are in the image?"
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "boxes", "labels")
    BEST: ClassVar[str] = "f1"

    def sample(self, record: Record, word: int) -> Sample:
        """Boxes with their labels, in the record's order."""
        regions = true_regions(record["boxes"], record["labels"])
        text = regions_text(regions.boxes.tolist(), regions.labels, record["image"].shape[:2])
        return Sample(self.PROMPT, record["image"], text=text, truth=regions)

    def scene_record(self, scene: Scene, word: int) -> Record:
        """All objects, the nearest first."""
        objects = scene.objects[::-1]
        return {
            "image": scene.image,
            "boxes": [obj.box for obj in objects],
            "labels": [obj.name for obj in objects],
        }

    def metrics(self, answers: Sequence[Regions], truths: Sequence[Regions]) -> dict[str, float]:
        """`f1` of boxes of the right label that overlap by half; COCO's `ap` with pycocotools."""
        pairs = list(zip(answers, truths, strict=True))
        scores = [box_f1(a.boxes, t.boxes, a.labels, t.labels) for a, t in pairs]
        metrics = {"f1": 100 * float(np.mean(scores))}
        if importlib.util.find_spec("pycocotools"):
            columns = [(a.boxes, a.labels, t.boxes, t.labels) for a, t in pairs]
            metrics |= coco_ap(*zip(*columns, strict=True))
        return metrics

    def trivial(self, truths: Sequence[Regions]) -> list[Regions]:
        """The mean box with the most frequent label; no box where there is none."""
        labels = [label for truth in truths for label in truth.labels]
        if not labels:
            return list(truths)
        boxes = np.concatenate([truth.boxes for truth in truths])
        label = max(sorted(set(labels)), key=labels.count)
        return [Regions(boxes.mean(axis=0, keepdims=True), (label,))] * len(truths)

"""The boxes of what a text names: all objects of a name, or the one that is described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformers.data.scenes import Scene, expressions
from jaxformers.data.scenes.truth import thing_counts
from jaxformers.evaluation.text_image import box_iou, localisation_score
from jaxformers.tasks.text_image.base import Record, RegionTask, Sample, choose, true_regions
from jaxformers.text.unified_io import Regions, regions_text


@dataclass(frozen=True)
class Localisation(RegionTask):
    """Features `image`, `name` and `boxes`: every object of that name."""

    PROMPT: ClassVar[str] = 'Which region does the text " {name} " describe ?'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "name", "boxes")
    BEST: ClassVar[str] = "localisation"

    def sample(self, record: Record, word: int) -> Sample:
        """The boxes, each with the name behind it."""
        regions = true_regions(record["boxes"], [record["name"]] * len(record["boxes"]))
        text = regions_text(regions.boxes.tolist(), regions.labels, record["image"].shape[:2])
        prompt = self.PROMPT.format(name=record["name"])
        return Sample(prompt, record["image"], text=text, truth=regions)

    def scene_record(self, scene: Scene, word: int) -> Record:
        """One of the things, wherever it is, the nearest first."""
        name = choose(list(thing_counts(scene)), word)
        boxes = [obj.box for obj in reversed(scene.objects) if obj.name == name]
        return {"image": scene.image, "name": name, "boxes": boxes}

    def metrics(self, answers: Sequence[Regions], truths: Sequence[Regions]) -> dict[str, float]:
        """GRIT's `localisation` score, from 0 to 100."""
        pairs = zip(answers, truths, strict=True)
        scores = [localisation_score(answer.boxes, truth.boxes) for answer, truth in pairs]
        return {"localisation": 100 * float(np.mean(scores))}

    def trivial(self, truths: Sequence[Regions]) -> list[Regions]:
        """The mean box; no box where there is none."""
        boxes = np.concatenate([truth.boxes for truth in truths])
        if not len(boxes):
            return list(truths)
        return [Regions(boxes.mean(axis=0, keepdims=True), ("",))] * len(truths)


@dataclass(frozen=True)
class Referring(Localisation):
    """Features `image`, `text` and `box`: the one object that the text describes."""

    FEATURES: ClassVar[tuple[str, ...]] = ("image", "text", "box")
    BEST: ClassVar[str] = "accuracy"

    def sample(self, record: Record, word: int) -> Sample:
        """The box alone."""
        region = true_regions([record["box"]], [""])
        text = regions_text(region.boxes.tolist(), region.labels, record["image"].shape[:2])
        prompt = self.PROMPT.format(name=record["text"])
        return Sample(prompt, record["image"], text=text, truth=region)

    def scene_record(self, scene: Scene, word: int) -> Record | None:
        """One of the texts that describe exactly one object."""
        if not (texts := expressions(scene)):
            return None
        text, number = choose(texts, word)
        return {"image": scene.image, "text": text, "box": scene.objects[number].box}

    def metrics(self, answers: Sequence[Regions], truths: Sequence[Regions]) -> dict[str, float]:
        """`accuracy`: overlaps of at least a half, in percent; and the mean `iou`."""
        ious = np.array(
            [
                box_iou(answer.boxes[:1], truth.boxes)[0, 0] if len(answer.boxes) else 0.0
                for answer, truth in zip(answers, truths, strict=True)
            ]
        )
        return {"accuracy": 100 * float((ious >= 0.5).mean()), "iou": 100 * float(ious.mean())}

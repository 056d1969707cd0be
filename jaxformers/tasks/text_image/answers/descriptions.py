"""Free texts about a region or an event, evaluated as captions are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxformers.data.scenes import Scene, region_caption
from jaxformers.tasks.text_image.answers.captioning import Captioning
from jaxformers.tasks.text_image.base import Record, Sample, as_list, choose, true_box
from jaxformers.text.unified_io import box_text


@dataclass(frozen=True)
class RegionCaptioning(Captioning):
    """What is in a box, in words: features `image`, `box` and `captions`."""

    PROMPT: ClassVar[str] = 'What does the region " {region} " describe ?'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "box", "captions")

    def sample(self, record: Record, word: int) -> Sample:
        """The prompt with the box's location tokens."""
        texts = tuple(as_list(record["captions"]))
        region = box_text(true_box(record["box"]), record["image"].shape[:2])
        prompt = self.PROMPT.format(region=region)
        return Sample(prompt, record["image"], text=choose(texts, word), truth=texts)

    def scene_record(self, scene: Scene, word: int) -> Record:
        """One of the objects: its colour, its name, and what it is behind."""
        number = (word >> 32) % len(scene.objects)
        text = region_caption(scene, number)
        return {"image": scene.image, "box": scene.objects[number].box, "captions": (text,)}


@dataclass(frozen=True)
class Commonsense(Captioning):
    """Before, after, and why of an event (VisComet): `image`, `event`, `captions`."""

    PROMPT: ClassVar[str] = 'Event: " {event} " {asked}'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "event", "captions")

    asks: Literal["before", "after", "intent"] = "before"

    def sample(self, record: Record, word: int) -> Sample:
        """The prompt with the event, which names persons by their location tokens."""
        asked = {
            "before": "Before, what the person needed to do ?",
            "after": "After, what the person will most likely do ?",
            "intent": "Because, what the person wanted to do ?",
        }[self.asks]
        texts = tuple(as_list(record["captions"]))
        prompt = self.PROMPT.format(event=record["event"], asked=asked)
        return Sample(prompt, record["image"], text=choose(texts, word), truth=texts)

    def scene_record(self, scene: Scene, word: int) -> Record | None:
        """None of the emoji does anything: raises DataError."""
        return super(Captioning, self).scene_record(scene, word)

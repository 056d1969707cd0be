"""Tasks whose target is one short text: a label, a predicate, a class.

Each states its prompt and its features; what they share is `LabelTask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxformers.data.scenes import Scene, captions, relations
from jaxformers.data.scenes.truth import counted, thing_counts
from jaxformers.errors import ConfigError
from jaxformers.tasks.text_image.base import (
    Record,
    Sample,
    TextImageTask,
    as_list,
    choose,
    exact_match,
    true_box,
)
from jaxformers.text.unified_io import box_text


@dataclass(frozen=True)
class LabelTask(TextImageTask):
    """A text of few words, evaluated by exact match."""

    BEST: ClassVar[str] = "accuracy"

    options: tuple[str, ...] = ()
    """All labels: evaluation takes the most probable of them; empty: the answer is free."""

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.options, str):
            raise ConfigError(f"options is the text {self.options!r}: give a tuple of texts")

    def prompt(self, record: Record) -> str:
        """The input text of a record."""
        return self.PROMPT

    def sample(self, record: Record, word: int) -> Sample:
        """The label as target; of several, one is drawn and all are right."""
        labels = tuple(as_list(record[self.FEATURES[-1]]))
        options = {option.strip().lower() for option in self.options}
        for label in labels:
            if options and label.strip().lower() not in options:
                raise ValueError(f"{label!r} is none of the options {', '.join(self.options)}")
        text = choose(labels, word)
        image = record.get("image") if "image" in self.FEATURES else None
        return Sample(self.prompt(record), image, text=text, truth=labels, options=self.options)

    def metrics(self, answers: Sequence[str], truths: Sequence[Sequence[str]]) -> dict[str, float]:
        """`accuracy` in percent, letter case aside."""
        return {"accuracy": exact_match(answers, truths)}


@dataclass(frozen=True)
class ImageClassification(LabelTask):
    """What a picture shows: features `image` and `label`."""

    PROMPT: ClassVar[str] = "What is this in the image ?"
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "label")

    def scene_record(self, scene: Scene, word: int) -> Record:
        """The nearest, and so largest, thing."""
        return {"image": scene.image, "label": scene.objects[-1].name}


@dataclass(frozen=True)
class Categorisation(LabelTask):
    """The class of what is in a box: features `image`, `box` and `label`."""

    PROMPT: ClassVar[str] = 'What is the category of region " {region} " ?'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "box", "label")

    def prompt(self, record: Record) -> str:
        """The prompt with the box's location tokens."""
        return self.PROMPT.format(
            region=box_text(true_box(record["box"]), record["image"].shape[:2])
        )

    def scene_record(self, scene: Scene, word: int) -> Record:
        """One of the objects."""
        obj = choose(scene.objects, word)
        return {"image": scene.image, "box": obj.box, "label": obj.name}


@dataclass(frozen=True)
class Relationship(LabelTask):
    """How two boxes stand: features `image`, `subject`, `object`, their boxes, and `predicate`.

    `subject_label` and `object_label` are named in the prompt where there are such.
    """

    PROMPT: ClassVar[str] = 'What is the relationship between " {subject} " and " {object} " ?'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "subject", "object", "predicate")

    def prompt(self, record: Record) -> str:
        """The prompt with location tokens and labels of both."""
        size = record["image"].shape[:2]
        regions = {name: box_text(true_box(record[name]), size) for name in ("subject", "object")}
        for name, region in regions.items():
            regions[name] = f"{region} {record.get(f'{name}_label') or ''}".strip()
        return self.PROMPT.format(**regions)

    def scene_record(self, scene: Scene, word: int) -> Record | None:
        """One of the pairs whose relation is clear."""
        if not (pairs := relations(scene)):
            return None
        relation = choose(pairs, word)
        subject, target = scene.objects[relation.subject], scene.objects[relation.object]
        return {
            "image": scene.image,
            "subject": subject.box,
            "subject_label": subject.name,
            "object": target.box,
            "object_label": target.name,
            "predicate": relation.predicate,
        }


@dataclass(frozen=True)
class VisualEntailment(LabelTask):
    """Whether a picture implies a text (SNLI-VE): `image`, `premise`, `hypothesis`, `label`."""

    PROMPT: ClassVar[str] = 'Can image and text " {premise} " imply text " {hypothesis} " ?'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "premise", "hypothesis", "label")

    options: tuple[str, ...] = ("entailment", "neutral", "contradiction")

    def prompt(self, record: Record) -> str:
        """The prompt with both texts."""
        texts = {name: record[name] for name in ("premise", "hypothesis")}
        return self.PROMPT.format(**texts)

    def scene_record(self, scene: Scene, word: int) -> Record:
        """A true statement on a thing's number, or a false one."""
        name, count = choose(list(thing_counts(scene).items()), word)
        true_statement = bool(word & 1)
        stated = count if true_statement else count % 5 + 1
        ground = captions(scene)[0].rsplit(" on ", 1)[1]
        return {
            "image": scene.image,
            "premise": f"a picture with {ground}",
            "hypothesis": f"it shows {counted(name, stated)}",
            "label": "entailment" if true_statement else "contradiction",
        }


@dataclass(frozen=True)
class Situation(LabelTask):
    """The salient activity with who does what (SWiG): `image` and `frame`, as text."""

    PROMPT: ClassVar[str] = "What is the salient activity of the image ?"
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "frame")

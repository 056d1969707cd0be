"""Pictures from a text, from segments, and around a region that is blank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxformers.data.scenes import Scene, located_caption
from jaxformers.errors import DataError
from jaxformers.evaluation.text_image import root_mean_square
from jaxformers.tasks.text_image.base import (
    Box,
    Picture,
    Prediction,
    Record,
    Sample,
    TextImageTask,
    as_list,
    as_masks,
    choose,
    mean_picture,
    true_box,
)
from jaxformers.text.unified_io import UnifiedIOTokenizer, box_text, segments_text
from jaxformers.text.unified_io.colours import PALETTE


@dataclass(frozen=True)
class PictureTask(TextImageTask):
    """A picture that is compared with the true one pixel for pixel."""

    OUTPUT: ClassVar[str] = "image"
    BEST: ClassVar[str] = "psnr"

    def metrics(self, answers: Sequence[Picture], truths: Sequence[Picture]) -> dict[str, float]:
        """The mean `psnr` in decibels."""
        return {"psnr": mean_psnr(answers, truths)}

    def trivial(self, truths: Sequence[Picture]) -> list[Picture]:
        """The mean picture."""
        return mean_picture(truths)


@dataclass(frozen=True)
class Synthesis(PictureTask):
    """A picture from a text: features `image` and `captions`."""

    PROMPT: ClassVar[str] = 'What is the complete image? Text: " {text} " .'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "captions")
    INPUT: ClassVar[str] = "text"

    def sample(self, record: Record, word: int) -> Sample:
        """One of the captions in the prompt; no input picture."""
        prompt = self.PROMPT.format(text=choose(as_list(record["captions"]), word))
        return Sample(prompt, target=record["image"], truth=record["image"])

    def scene_record(self, scene: Scene, word: int) -> Record:
        """The caption that says where each thing is: a picture is compared pixel for pixel."""
        return {"image": scene.image, "captions": [located_caption(scene)]}


class HiddenRegion(NamedTuple):
    """A picture, and the box x1 y1 x2 y2 of it that is to be painted."""

    picture: Picture
    box: Box

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the pixels that the box touches; at least one of each."""
        height, width = self.picture.shape[:2]
        x1, y1, x2, y2 = self.box
        left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
        right, bottom = max(math.ceil(x2), left + 1), max(math.ceil(y2), top + 1)
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class Inpainting(PictureTask):
    """A picture from all of it but a box: features `image`, `box` and `label`.

    The patches of the box are masked; no pixel is blanked. Of an answer the box alone counts, since
    the pixels around it were given.
    """

    PROMPT: ClassVar[str] = 'Filling the blank region " {region} " ?'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "box", "label")

    def sample(self, record: Record, word: int) -> Sample:
        """The box's location tokens and its label in the prompt."""
        image, hidden = record["image"], true_box(record["box"])
        region = f"{box_text(hidden, image.shape[:2])} {record['label']}"
        prompt = self.PROMPT.format(region=region)
        return Sample(prompt, image, hidden=hidden, target=image, truth=HiddenRegion(image, hidden))

    def scene_record(self, scene: Scene, word: int) -> Record:
        """One of the objects is blank."""
        obj = choose(scene.objects, word)
        return {"image": scene.image, "box": obj.box, "label": obj.name}

    def read(
        self, tokenizer: UnifiedIOTokenizer, prediction: Prediction, sample: Sample
    ) -> Picture:
        """The input picture with the box as it was painted."""
        picture, box = sample.image.copy(), sample.truth.slices
        picture[box] = super().read(tokenizer, prediction, sample)[box]
        return picture

    def metrics(
        self, answers: Sequence[Picture], truths: Sequence[HiddenRegion]
    ) -> dict[str, float]:
        """The mean `psnr` of the boxes in decibels."""
        boxes = [answer[truth.slices] for answer, truth in zip(answers, truths, strict=True)]
        return {"psnr": mean_psnr(boxes, [truth.picture[truth.slices] for truth in truths])}

    def trivial(self, truths: Sequence[HiddenRegion]) -> list[Picture]:
        """A copy of the input, the box in the mean colour of what is around it."""
        answers = []
        for truth in truths:
            picture, visible = truth.picture.copy(), np.ones(truth.picture.shape[:2], bool)
            visible[truth.slices] = False
            around = picture[visible] if visible.any() else picture.reshape(-1, 3)
            picture[truth.slices] = around.mean(axis=0).round()
            answers.append(picture)
        return answers


@dataclass(frozen=True)
class SegmentSynthesis(PictureTask):
    """A picture from segments: features `image`, `labels` and `masks` [N, H, W], up to 16.

    The input picture shows the segments in colours that the prompt names.
    """

    PROMPT: ClassVar[str] = 'What is the complete image? Segmentation color: " {segments} "'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "labels", "masks")

    def sample(self, record: Record, word: int) -> Sample:
        """Later segments lie over earlier ones."""
        labels, image = list(record["labels"]), record["image"]
        masks = as_masks(record["masks"], image.shape[:2])
        if len(masks) != len(labels):
            raise ValueError(f"{len(labels)} labels and {len(masks)} masks")
        prompt, painted = painted_segments(labels[: len(PALETTE)], masks[: len(PALETTE)])
        return Sample(prompt, painted, target=image, truth=image)

    def scene_record(self, scene: Scene, word: int) -> Record:
        """All objects, the farthest first."""
        return {
            "image": scene.image,
            "labels": [obj.name for obj in scene.objects],
            "masks": np.stack([obj.mask for obj in scene.objects]),
        }


def mean_psnr(pictures: Sequence[Picture], references: Sequence[Picture]) -> float:
    """Mean peak signal-to-noise ratio in decibels; that of equal pictures counts as 108."""
    pairs = zip(pictures, references, strict=True)
    errors = np.array([max(root_mean_square(*pair), 1e-3) for pair in pairs])
    return float(np.mean(20 * np.log10(255 / errors)))


def painted_segments(
    labels: Sequence[str], masks: Sequence[Bool[np.ndarray, "H W"]]
) -> tuple[str, Picture]:
    """The prompt and the input picture of `SegmentSynthesis`: segments in the palette's colours.

    Args:
        labels: of 1 to 16 segments.
        masks: as many, of one shape; later segments lie over earlier ones.

    Raises:
        DataError: too few or too many segments, or masks of several shapes.
    """
    text = segments_text(labels)
    shapes = sorted({np.shape(mask) for mask in masks})
    if len(shapes) != 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise DataError(
            f"masks of the shapes {', '.join(map(str, shapes))}: give all the same [H, W]"
        )
    painted = np.zeros((*shapes[0], 3), np.uint8)
    for mask, (_, colour) in zip(masks, PALETTE, strict=False):
        painted[np.asarray(mask, bool)] = colour
    return SegmentSynthesis.PROMPT.format(segments=text), painted

"""Masks of the objects of a name, painted in white, red, green and blue on black."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from jaxformers.data.scenes import PAINTS, Scene, masks_of, paint_masks
from jaxformers.data.scenes.truth import thing_counts
from jaxformers.evaluation.text_image import mean_iou
from jaxformers.tasks.text_image.base import (
    Picture,
    Record,
    Sample,
    TextImageTask,
    as_masks,
    choose,
    mean_picture,
)

BACKGROUND, GREY_BELOW, MARGIN = 30, 100, 40  # of the published reading, in grey levels
LARGEST_SPECK = 10 / 256**2  # of the pixels: the published decoder's pictures are 256 x 256


@dataclass(frozen=True)
class Segmentation(TextImageTask):
    """Features `image`, `name` and `masks` [N, H, W], up to four; further ones are left out."""

    PROMPT: ClassVar[str] = 'What is the segmentation of " {name} " ?'
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "name", "masks")
    OUTPUT: ClassVar[str] = "image"
    BEST: ClassVar[str] = "iou"

    def sample(self, record: Record, word: int) -> Sample:
        """The painted masks."""
        masks = as_masks(record["masks"], record["image"].shape[:2])
        target = paint_masks(masks[: len(PAINTS)])
        prompt = self.PROMPT.format(name=record["name"])
        return Sample(prompt, record["image"], target=target, truth=target)

    def scene_record(self, scene: Scene, word: int) -> Record:
        """One of the things; the masks of all of it, the nearest first."""
        name = choose(list(thing_counts(scene)), word)
        return {"image": scene.image, "name": name, "masks": masks_of(scene, name)}

    def metrics(self, answers: Sequence[Picture], truths: Sequence[Picture]) -> dict[str, float]:
        """`iou` in percent of all masks together with the true ones, averaged over pictures."""
        covered = [[p.mean(axis=-1) > BACKGROUND for p in row] for row in (answers, truths)]
        return {"iou": 100 * mean_iou(*covered)}

    def trivial(self, truths: Sequence[Picture]) -> list[Picture]:
        """The mean map, brightened to where a mask is more likely than the average pixel."""
        means = [picture.mean(axis=-1) for picture in mean_picture(truths)]
        likely = [(mean > mean.mean()).astype(np.uint8) * 255 for mean in means]
        return [np.repeat(mask[..., None], 3, axis=-1) for mask in likely]


def read_masks(picture: Picture) -> list[Bool[np.ndarray, "H W"]]:
    """The masks of a painted picture, by the colour that pixels are nearest to.

    `picture` is the square that was decoded, since resizing would make specks large and objects
    small. The thresholds are those of the published code. Connected regions of up to ten pixels in
    256 x 256 are dropped, of fewer in a smaller square; the published code measures such regions
    along rows alone, which is mended here.
    """
    levels = picture.astype(np.float64)
    means = levels.mean(axis=-1)
    deviations = levels - means[..., None]  # [H, W, 3]
    drawn = means > BACKGROUND
    colours = levels.argmax(axis=-1)
    candidates = [drawn & (np.abs(deviations).sum(axis=-1) < GREY_BELOW)]
    candidates += [
        (colours == channel) & (np.abs(deviations[..., channel]) > MARGIN) for channel in range(3)
    ]
    cleaned = map(_large_regions, candidates)
    return [mask for mask in cleaned if mask.any()]


def _large_regions(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    large = sizes > LARGEST_SPECK * mask.size
    large[0] = False  # the background
    return large[labels]

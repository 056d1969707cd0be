"""The bundled emoji as labelled images: each belongs to one of nine groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxformers.data.captions.emoji import BundledEmoji, concepts
from jaxformers.data.images import ArrayImages, ImageSource


@dataclass(frozen=True)
class EmojiGroups(ImageSource):
    """Emoji with the group of their concept as class, such as "Food & Drink"."""

    emoji: BundledEmoji = BundledEmoji()
    """Which drawings."""

    def open(self) -> ArrayImages:
        """The drawings, uint8 `[N, 48, 48, 3]`; the groups in alphabetical order."""
        drawings = self.emoji.open()
        names = tuple(sorted({concept["group"] for concept in concepts()}))
        indices = range(len(drawings))
        images = np.stack([np.asarray(drawings.image(index)) for index in indices])
        labels = [names.index(drawings.concept(index)["group"]) for index in indices]
        return ArrayImages(images, np.array(labels, np.int32), names, "groups of bundled emoji")

"""Pictures of emoji scenes as a source of images, for tasks that look at no truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image

from jaxformers.data.images.sources.labelled_images import ImageSource, LabelledImages
from jaxformers.data.scenes.emoji_scenes import EmojiScenes
from jaxformers.fields import PositiveInt


@dataclass(frozen=True)
class EmojiSceneImages(ImageSource):
    """The pictures of emoji scenes, without labels."""

    scenes: EmojiScenes = EmojiScenes()
    dev_size: PositiveInt = 512
    """Scenes of the development set, whose drawings are held out of training."""

    def open(self) -> SceneImages:
        """The pictures, composed when they are looked up."""
        return SceneImages(self.scenes)

    def other(self, split: Literal["dev", "test"]) -> EmojiSceneImages:
        """Scenes of held-out drawings; those for development and for tests have other seeds."""
        seed = self.scenes.seed + (split == "test")
        held_out = replace(self.scenes, size=self.dev_size, seed=seed, held_out=True)
        return replace(self, scenes=held_out)


class SceneImages(LabelledImages):
    """Pictures of `EmojiScenes` by their numbers."""

    labelled = False

    def __init__(self, scenes: EmojiScenes):
        self.scenes, self.source = scenes, "emoji scenes"

    def __len__(self) -> int:
        return len(self.scenes)

    def example(self, index: int) -> tuple[Image.Image, int]:
        """The picture; its class is unknown, -1."""
        return Image.fromarray(self.scenes.scene(index).image), -1

    @cached_property
    def labels(self) -> np.ndarray:
        """-1 for every picture."""
        return np.full(len(self), -1, np.int32)

    @cached_property
    def content(self) -> str:
        """The configuration, which the pictures are a function of."""
        return str(self.scenes)

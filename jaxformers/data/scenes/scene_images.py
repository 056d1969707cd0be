"""Pictures of emoji scenes as a source of images, for tasks that look at no truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxformers.data.images.sources.labelled_images import ImageSource, LabelledImages
from jaxformers.data.pipeline.stateless_random import Draws, below, high, uniform
from jaxformers.data.scenes.emoji_scenes import EmojiScenes
from jaxformers.data.scenes.maps import depth_picture, masks_of, paint_masks
from jaxformers.fields import Fraction, PositiveInt

MAPS = 47  # what the draws are for


@dataclass(frozen=True)
class EmojiSceneImages(ImageSource):
    """The pictures of emoji scenes, without labels; of some scenes their maps instead."""

    scenes: EmojiScenes = EmojiScenes()
    dev_size: PositiveInt = 512
    """Scenes of the development set, whose drawings are held out of training."""
    maps: Fraction = 0.0
    """Share of the training pictures that are a scene's depth map or the painted masks of one of
    its things, half of them each."""

    def open(self) -> SceneImages:
        """The pictures, composed when they are looked up."""
        return SceneImages(self.scenes, self.maps)

    def other(self, split: Literal["dev", "test"]) -> EmojiSceneImages:
        """Scenes of held-out drawings, no maps; development and tests have other seeds."""
        seed = self.scenes.seed + (split == "test")
        held_out = replace(self.scenes, size=self.dev_size, seed=seed, held_out=True)
        return replace(self, scenes=held_out, maps=0.0)


class SceneImages(LabelledImages):
    """Pictures of `EmojiScenes` by their numbers.

    Args:
        scenes: whose pictures they are.
        maps: share of the scenes that are shown by a map.
    """

    labelled = False

    def __init__(self, scenes: EmojiScenes, maps: float = 0.0):
        self.scenes, self.maps, self.source = scenes, maps, "emoji scenes"

    def __len__(self) -> int:
        return len(self.scenes)

    def example(self, index: int) -> tuple[Image.Image, int]:
        """The picture or map; its class is unknown, -1."""
        return Image.fromarray(self._picture(index)), -1

    def _picture(self, index: int) -> UInt8[np.ndarray, "S S 3"]:
        scene, words = self.scenes.scene(index), Draws(MAPS, self.scenes.seed, index).words(3)
        if uniform(words[:1])[0] >= self.maps:
            return scene.image
        if uniform(words[1:2])[0] < 0.5:
            return depth_picture(scene.depth)
        name = scene.objects[int(below(high(words[2:]), len(scene.objects))[0])].name
        return paint_masks(masks_of(scene, name))

    @cached_property
    def labels(self) -> np.ndarray:
        """-1 for every picture."""
        return np.full(len(self), -1, np.int32)

    @cached_property
    def content(self) -> str:
        """The configuration, which the pictures are a function of."""
        return f"{self.scenes}, maps={self.maps}" if self.maps else str(self.scenes)

"""Maps of the input picture: depth and surface normals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxformers.data.scenes import Scene, depth_picture
from jaxformers.errors import DataError
from jaxformers.evaluation.text_image import angle_error, root_mean_square
from jaxformers.fields import PositiveFloat
from jaxformers.tasks.text_image.base import (
    Picture,
    Record,
    Sample,
    TextImageTask,
    in_shape,
    mean_picture,
)


@dataclass(frozen=True)
class Depth(TextImageTask):
    """Features `image` and `depth` [H, W], in the unit of `farthest`."""

    PROMPT: ClassVar[str] = "What is the depth map of the image ?"
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "depth")
    OUTPUT: ClassVar[str] = "image"
    BEST: ClassVar[str] = "rmse"
    LOWEST_IS_BEST: ClassVar[bool] = True

    farthest: PositiveFloat = 1.0
    """Depth that is written as white: 10 (metres) for NYU; in levels of the file where the map is
    a picture, such as 10,000 for millimetres; 1 for emoji scenes, whose ground is 0
    and whose nearest object is brightest."""

    def sample(self, record: Record, word: int) -> Sample:
        """The map in grey levels, 0 to 255."""
        depth = np.asarray(record["depth"], np.float32)
        depth = in_shape("depth", depth, record["image"].shape[:2])
        target = depth_picture(depth, self.farthest)
        return Sample(self.PROMPT, record["image"], target=target, truth=target)

    def scene_record(self, scene: Scene, word: int) -> Record:
        """The scene's depth."""
        return {"image": scene.image, "depth": scene.depth}

    def metrics(self, answers: Sequence[Picture], truths: Sequence[Picture]) -> dict[str, float]:
        """`rmse` in the unit of `farthest`: the mean over pictures."""
        scale = self.farthest / 255
        errors = [
            root_mean_square(scale * a.mean(axis=-1), scale * t.mean(axis=-1))
            for a, t in zip(answers, truths, strict=True)
        ]
        return {"rmse": float(np.mean(errors))}

    def trivial(self, truths: Sequence[Picture]) -> list[Picture]:
        """The mean map."""
        return mean_picture(truths)


@dataclass(frozen=True)
class SurfaceNormals(TextImageTask):
    """Features `image` and `normals`: uint8 [H, W, 3], -1..1 written as 0..255; black: unknown."""

    PROMPT: ClassVar[str] = "What is the surface normal of the image ?"
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "normals")
    OUTPUT: ClassVar[str] = "image"
    BEST: ClassVar[str] = "angle"
    LOWEST_IS_BEST: ClassVar[bool] = True

    def sample(self, record: Record, word: int) -> Sample:
        """The normals as a picture."""
        normals = np.asarray(record["normals"], np.uint8)
        normals = in_shape("normals", normals, record["image"].shape)
        return Sample(self.PROMPT, record["image"], target=normals, truth=normals)

    def metrics(self, answers: Sequence[Picture], truths: Sequence[Picture]) -> dict[str, float]:
        """The mean `angle` in degrees over pixels that are known."""
        angles = [
            angle_error(_vectors(answer), _vectors(truth), truth.any(axis=-1))
            for answer, truth in zip(answers, truths, strict=True)
            if truth.any()
        ]
        if not angles:
            raise DataError("no picture has a pixel whose normal is known")
        return {"angle": float(np.mean(angles))}

    def trivial(self, truths: Sequence[Picture]) -> list[Picture]:
        """The mean map."""
        return mean_picture(truths)


def _vectors(picture: Picture) -> np.ndarray:
    return picture.astype(np.float32) / 127.5 - 1

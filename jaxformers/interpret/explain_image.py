"""Explains an image by the heat maps of its likeliest classes: `jf.explain` with a loaded model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxformers.arrays import Array
from jaxformers.data.images import Preprocessing
from jaxformers.errors import DataError, WeightsError, check_top
from jaxformers.interpret.explain import Method, explain, heat_map
from jaxformers.interpret.figures import heat_figure
from jaxformers.pretrained import registry


@dataclass(frozen=True)
class ExplainedPicture:
    """The likeliest classes of a picture and where each lies in it; `figure()` draws them.

    Attributes:
        picture: what the model saw, `[H, W, C]` between 0 and 1.
        classes: the classes' names, the likeliest first.
        probabilities: theirs.
        relevance: of the patches, row after row, `[M, P]`.
        heat: the same enlarged to the picture, `[M, H, W]`.
    """

    picture: np.ndarray
    classes: tuple[str, ...]
    probabilities: np.ndarray
    relevance: np.ndarray
    heat: np.ndarray

    def figure(self) -> Figure:
        """The picture, and beside it the heat map of each class over it."""
        titles = [f"{n} {p:.1%}" for n, p in zip(self.classes, self.probabilities, strict=True)]
        return heat_figure(self.picture, self.heat, titles)


def explain_picture(
    model: nn.Module,
    variables: Any,
    preprocessing: Preprocessing,
    picture: Any,
    method: Method = "attribution",
    *,
    top: int = 3,
    start_layer: int = 0,
) -> ExplainedPicture:
    """The heat maps of a ViT's `top` classes over a picture, as `explain` makes them.

    Args:
        model: a ViT with a head.
        variables: its variables.
        preprocessing: what belongs to it.
        picture: a path, encoded bytes, a Pillow image or a uint8 array.
        method: how.
        top: how many classes.
        start_layer: the first layer that counts.

    Raises:
        ConfigError: an unknown method, no such layer, or no class asked for.
        DataError: a picture that cannot be read.
        WeightsError: a model without patches or without a head.
    """
    config = model.config
    if type(model) not in registry.modules_for("explain") or not config.classes:
        raise WeightsError(
            f"a {type(model).__name__} has no heat map of classes: explain needs a ViT with a head"
        )
    check_top(top)
    images = preprocessing(os.fspath(picture) if isinstance(picture, os.PathLike) else picture)
    if len(images) != 1:
        raise DataError(f"{len(images)} pictures were given, and one is explained at a time")
    explanation = explain(model, variables, images, None, method, top=top, start_layer=start_layer)
    relevance = explanation.relevance[0]
    grid = images.shape[1] // config.patch_pixels, images.shape[2] // config.patch_pixels
    names = config.class_names or [str(i) for i in range(config.classes)]
    return ExplainedPicture(
        seen(images[0], preprocessing),
        tuple(names[i] for i in explanation.classes[0]),
        explanation.probabilities[0],
        relevance,
        heat_map(relevance, grid, images.shape[1:3]),
    )


def seen(image: Float[Array, "H W C"], preprocessing: Preprocessing) -> Float[np.ndarray, "H W C"]:
    """A preprocessed image as pixels between 0 and 1 again."""
    pixels = np.asarray(image) * np.asarray(preprocessing.std, np.float32)
    pixels = (pixels + np.asarray(preprocessing.mean, np.float32)) / preprocessing.scale
    return np.clip(pixels / 255, 0, 1)

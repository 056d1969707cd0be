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
from jaxformers.interpret.explanation_figures import heat_figure
from jaxformers.pretrained import registry

CLASSLESS = ("rollout", "attention")  # methods that do not tell classes apart
GREY_LEVEL = 1.5 / 255  # what JPEG and resizing may leave of differences in a uniform picture


@dataclass(frozen=True)
class ExplainedPicture:
    """The likeliest classes of a picture and where each lies in it; `figure()` draws them.

    Attributes:
        picture: what the model saw, `[H, W, C]` between 0 and 1.
        classes: the classes' names, the likeliest first.
        probabilities: theirs; of a regression its numbers.
        relevance: of the patches, row after row, `[M, P]`.
        heat: the same enlarged to the picture, `[M, H, W]`.
        method: what computed the relevance.
        regression: whether `probabilities` are the numbers of a regression.
    """

    picture: np.ndarray
    classes: tuple[str, ...]
    probabilities: np.ndarray
    relevance: np.ndarray
    heat: np.ndarray
    method: Method = "attribution"
    regression: bool = False

    @property
    def uniform(self) -> bool:
        """Whether all pixels are alike, so that nothing in the picture speaks for a class."""
        return is_uniform(self.picture)

    def evidence(self) -> np.ndarray:
        """Heat maps that are comparable between classes, `[M, H, W]`.

        Each class's probability, shared out over the patches by their relevance; so an unlikely
        class is faint. Numbers of a regression have no probability: their relevance as it is. All 0
        for a picture whose pixels are all alike, where the relevance is that of positions alone.
        """
        if self.uniform:
            return np.zeros_like(self.heat)
        if self.regression:
            return self.heat
        # Each class's probability is shared out over its patches: heats of classes compare.
        total = self.relevance.sum(-1)[:, None, None]  # [M, 1, 1]
        shares = np.divide(self.heat, total, out=np.zeros_like(self.heat), where=total > 0)
        return np.asarray(self.probabilities)[:, None, None] * shares

    def figure(self) -> Figure:
        """The picture, and beside it the heat map of each class over it, all on one scale.

        Of a method that does not tell classes apart, a single heat map.
        """
        pairs = zip(self.classes, self.probabilities, strict=True)
        titles = [f"{n} {p:.3g}" if self.regression else f"{n} {p:.1%}" for n, p in pairs]
        if self.method in CLASSLESS:
            titles = [f"{self.method}, the same for all classes:\n{', '.join(titles)}"]
            heat = np.zeros_like(self.heat[:1]) if self.uniform else self.heat[:1]
            return heat_figure(self.picture, heat, titles, "share of attention, per patch")
        label = "relevance" if self.regression else "share of the class's probability, per patch"
        return heat_figure(self.picture, self.evidence(), titles, label)


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
            f"a {type(model).__name__} has no heat map of classes: explain needs a ViT with a "
            "head, or a CLIP and a text"
        )
    check_top(top)
    images = one_image(preprocessing, picture)
    explanation = explain(model, variables, images, None, method, top=top, start_layer=start_layer)
    relevance = explanation.relevance[0]
    grid = images.shape[1] // config.patch_pixels, images.shape[2] // config.patch_pixels
    names = config.class_names or [str(i) for i in range(config.classes)]
    return ExplainedPicture(
        model_view(images[0], preprocessing),
        tuple(names[i] for i in explanation.classes[0]),
        explanation.probabilities[0],
        relevance,
        heat_map(relevance, grid, images.shape[1:3]),
        method,
        config.problem_type == "regression",
    )


def one_image(preprocessing: Preprocessing, picture: Any) -> Float[np.ndarray, "1 H W C"]:
    """The model's input of a picture; raises DataError where several are given."""
    images = preprocessing(os.fspath(picture) if isinstance(picture, os.PathLike) else picture)
    if len(images) != 1:
        raise DataError(f"{len(images)} pictures were given, and one is explained at a time")
    return images


def is_uniform(picture: Float[np.ndarray, "H W C"]) -> bool:
    """Whether all pixels, between 0 and 1, are alike but for what JPEG and resizing leave."""
    return float(np.ptp(picture, axis=(0, 1)).max()) < GREY_LEVEL


def model_view(
    image: Float[Array, "H W C"], preprocessing: Preprocessing
) -> Float[np.ndarray, "H W C"]:
    """A preprocessed image as pixels between 0 and 1 again."""
    # The inverse of x = (scale * pixel - mean) / std.
    pixels = np.asarray(image) * np.asarray(preprocessing.std, np.float32)
    pixels = (pixels + np.asarray(preprocessing.mean, np.float32)) / preprocessing.scale
    return np.clip(pixels / 255, 0, 1)

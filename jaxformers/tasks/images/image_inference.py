"""Trained image models at work: pictures to classes, and to the vectors below the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float
from scipy.special import softmax

from jaxformers.data.images import ArrayImages, ImageRows, Preprocessing
from jaxformers.data.images.sources.image_folder import ENDINGS
from jaxformers.errors import DataError, WeightsError
from jaxformers.pretrained import registry
from jaxformers.tasks.images.image_evaluation import logits_of

Scored = list[tuple[str, float]]


def classify_images(
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    pictures: Sequence[Any],
    *,
    top: int = 5,
    rows: int = 32,
) -> list[Scored]:
    """The likeliest classes of each picture with their probabilities, the best first.

    Classes without names are numbers.

    Args:
        model: an image model with a head.
        variables: its own.
        preprocessing: how pictures are brought to what it takes.
        pictures: as `Preprocessing` takes them.
        top: how many classes.
        rows: pictures at once.

    Raises:
        DataError: a picture that cannot be read, by its name.
    """
    logits = vectors(model, variables, preprocessing, pictures, method="__call__", rows=rows)
    names = model.config.class_names or tuple(map(str, range(logits.shape[1])))
    shares = softmax(logits, axis=-1)
    order = np.argsort(-shares, axis=-1, kind="stable")[:, :top]
    return [
        [(names[k], float(row[k])) for k in best] for row, best in zip(shares, order, strict=True)
    ]


def vectors(
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    pictures: Sequence[Any],
    *,
    method: str = "pooled",
    rows: int = 32,
) -> Float[np.ndarray, "B D"]:
    """What the head sees of each picture, float32; with another `method`, what that gives.

    Raises:
        DataError: a picture that cannot be read, by its name.
    """
    found = [
        logits_of(model, variables, _rows(preprocessing, pictures[at : at + rows]), rows, method)
        for at in range(0, len(pictures), rows)
    ]
    return np.concatenate(found) if found else np.zeros((0, max(model.config.classes, 1)))


def _rows(preprocessing: Preprocessing, pictures: Sequence[Any]) -> ImageRows:
    pixels = preprocessing.pixels(list(pictures))
    done = replace(preprocessing, resize=None, rule="none")
    return ImageRows(ArrayImages(pixels), done)


def listed_pictures(paths: Sequence[epath.PathLike]) -> list[str]:
    """The pictures at these paths, those in a folder in the order of their names.

    In a folder, hidden files, those of other kinds and folders are passed over.

    Raises:
        DataError: a folder without pictures.
    """
    found: list[str] = []
    for path in paths:
        place = epath.Path(path).expanduser()
        inside = [place]
        if place.is_dir():
            inside = sorted(
                each
                for each in place.iterdir()
                if each.suffix.lower() in ENDINGS
                and not each.name.startswith(".")
                and not each.is_dir()
            )
        if not inside:
            raise DataError(f"{path} holds no picture")
        found += map(str, inside)
    return found


def check_classifier(model: Any, place: Any) -> None:
    """Raises WeightsError unless the model names classes of pictures."""
    if type(model) not in registry.modules_for("classify_images") or not model.config.classes:
        raise WeightsError(f"{place} holds a {type(model).__name__}, which classifies no pictures")

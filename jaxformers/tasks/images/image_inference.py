"""Applies trained image models to pictures: their classes, and the features below the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from jaxformers.arrays import check_finite
from jaxformers.data.images import Preprocessing
from jaxformers.data.images.sources.image_folder import ENDINGS
from jaxformers.errors import DataError, WeightsError, folder_contents
from jaxformers.models.problem_type import class_scores
from jaxformers.pretrained import registry
from jaxformers.tasks.evaluation_loop import apply_batched
from jaxformers.tasks.images.image_evaluation import image_program

ClassScores = list[tuple[str, float]]


def classify_images(
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    pictures: Sequence[Any],
    *,
    top: int = 5,
    rows: int = 32,
) -> list[ClassScores]:
    """The `top` likeliest classes of each picture with their scores, best first.

    Scores are probabilities by the model's `problem_type` (`class_scores`), or numbers.

    Args:
        model: an image model with a head; classes without names are numbers.
        variables: its variables.
        preprocessing: that of the model's inputs.
        pictures: as `Preprocessing` takes them.
        top: number of classes.
        rows: pictures of a batch.

    Raises:
        DataError: a picture cannot be read; the message names it.
        WeightsError: outputs that are not finite.
    """
    logits = image_outputs(
        model, variables, preprocessing, pictures, method="__call__", rows=rows
    )  # [n, N]
    check_finite(logits)
    names = model.config.class_names or tuple(map(str, range(logits.shape[1])))
    scores = class_scores(logits, model.config.problem_type)
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :top]
    return [
        [(names[k], float(row[k])) for k in classes]
        for row, classes in zip(scores, order, strict=True)
    ]


def image_outputs(
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    pictures: Sequence[Any],
    *,
    method: str = "pooled",
    rows: int = 32,
) -> Float[np.ndarray, "B D"]:
    """Float32 outputs of a model's method for each picture; `pooled` gives the head's inputs.

    Raises:
        DataError: a picture cannot be read; the message names it.
    """
    run = image_program(model, preprocessing, method)
    outputs = []
    for start in range(0, len(pictures), rows):
        pixels = preprocessing.pixels(list(pictures[start : start + rows]))  # uint8 [b, H, W, C]
        outputs.append(
            apply_batched(lambda batch: run(variables, batch["pixels"]), {"pixels": pixels}, rows)
        )
    return np.concatenate(outputs) if outputs else np.zeros((0, max(model.config.classes, 1)))


def list_pictures(paths: Sequence[epath.PathLike]) -> list[str]:
    """Paths of pictures; a folder stands for the pictures in it, in the order of their names.

    Hidden files, files of other types and sub-folders of a folder are left out.

    Raises:
        DataError: a folder without pictures.
    """
    pictures: list[str] = []
    for path in map(epath.Path, paths):
        files = [path.expanduser()]
        if files[0].is_dir():
            files = sorted(
                file
                for file in files[0].iterdir()
                if file.suffix.lower() in ENDINGS
                and not file.name.startswith(".")
                and not file.is_dir()
            )
        if not files:
            raise DataError(f"{path} holds no picture; {folder_contents(path.expanduser())}")
        pictures += map(str, files)
    return pictures


def check_classifier(model: Any, path: Any) -> None:
    """Raises WeightsError unless the model from `path` classifies images."""
    if type(model) not in registry.modules_for("classify_images") or not model.config.classes:
        raise WeightsError(f"{path} holds a {type(model).__name__}, which classifies no pictures")

"""Applies trained image models to pictures: their classes, and the features below the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, UInt8

from jaxformers.arrays import check_finite
from jaxformers.data.images import Preprocessing
from jaxformers.data.images.sources.folder_listing import describe_passed_over, list_entries
from jaxformers.errors import DataError, WeightsError
from jaxformers.models.clip import CLIP, CLIPImageTower
from jaxformers.models.problem_type import class_scores
from jaxformers.pretrained import registry
from jaxformers.tasks.evaluation_loop import apply_batched
from jaxformers.tasks.images.image_evaluation import image_program

ClassScores = list[tuple[str, float]]
_EMBEDDING_METHODS = {CLIP: "encode_image", CLIPImageTower: "encode"}  # of others: "pooled"


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
    """Float32 outputs `[n, D]` of a model's method; `pooled` gives the head's inputs.

    Raises:
        DataError: a picture cannot be read; the message names it.
    """
    outputs = []
    for start in range(0, max(len(pictures), 1), rows):
        pixels = preprocessing.pixels(list(pictures[start : start + rows]))  # uint8 [b, H, W, C]
        outputs.append(pixel_outputs(model, variables, preprocessing, pixels, method, rows=rows))
    return np.concatenate(outputs)


def pixel_outputs(
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    pixels: UInt8[np.ndarray, "n H W C"],
    method: str = "pooled",
    *,
    rows: int = 32,
) -> Float[np.ndarray, "n D"]:
    """As `image_outputs`, of pixels as `preprocessing.pixels` gives them."""
    run = image_program(model, preprocessing, method)
    if len(pixels):
        return apply_batched(
            lambda batch: run(variables, batch["pixels"]), {"pixels": pixels}, rows
        )
    inputs = jax.ShapeDtypeStruct((1, *pixels.shape[1:]), np.uint8)
    return np.zeros((0, jax.eval_shape(run, variables, inputs).shape[1]), np.float32)


def embed_images(
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    pictures: Sequence[Any],
    *,
    rows: int = 32,
) -> Float[np.ndarray, "n D"]:
    """The vector of each picture, not normalised.

    Of CLIP it is the projected encoding, of a classifier the input of its head.

    Raises:
        DataError: a picture cannot be read; the message names it.
        WeightsError: outputs that are not finite.
    """
    method = _EMBEDDING_METHODS.get(type(model), "pooled")
    vectors = image_outputs(model, variables, preprocessing, pictures, method=method, rows=rows)
    check_finite(vectors)
    return vectors


def embed_pixels(
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    pixels: UInt8[np.ndarray, "n H W C"],
    *,
    rows: int = 32,
) -> Float[np.ndarray, "n D"]:
    """As `embed_images`, of pixels as `preprocessing.pixels` gives them."""
    method = _EMBEDDING_METHODS.get(type(model), "pooled")
    vectors = pixel_outputs(model, variables, preprocessing, pixels, method, rows=rows)
    check_finite(vectors)
    return vectors


def list_pictures(paths: Sequence[epath.PathLike]) -> tuple[list[str], list[str]]:
    """Paths of images, and lines on what is passed over.

    A folder stands for the images in it, in the order of their names, without those in folders
    below it.

    Raises:
        DataError: a folder without images, or an empty path.
    """
    images: list[str] = []
    lines: list[str] = []
    if "" in paths:  # which `Path` takes for the current folder
        raise DataError("the path of a picture is empty")
    for path in map(epath.Path, paths):
        folder = path.expanduser()
        if not folder.is_dir():
            images.append(str(folder))
            continue
        entries = list_entries(folder)
        if entries.folders:
            folders = "folders" if len(entries.folders) > 1 else "folder"
            entries.passed_over[folders] = len(entries.folders)
        if entries.passed_over:
            lines.append(f"passed over in {path}: {describe_passed_over(entries.passed_over)}")
        if not entries.images:
            raise DataError("; ".join([f"{path} holds no image", *lines[-1:]]))
        images += [str(folder / name) for name in entries.images]
    return images, lines


def check_embedder(model: Any, path: Any) -> None:
    """Raises WeightsError unless the model from `path` gives vectors of images."""
    modules = registry.modules_for("embed_images") + registry.modules_for("classify_images")
    if type(model) not in modules:
        raise WeightsError(
            f"{path} holds a {type(model).__name__}, which gives no vectors of pictures: give a "
            "CLIP, ViT, ResNet or BiT"
        )


def check_classifier(model: Any, path: Any) -> None:
    """Raises WeightsError unless the model from `path` classifies images."""
    if type(model) not in registry.modules_for("classify_images") or not model.config.classes:
        raise WeightsError(f"{path} holds a {type(model).__name__}, which classifies no pictures")

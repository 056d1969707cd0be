"""Features of labelled images: computed once in batches over the mesh, and kept on disk.

A store is a folder of safetensors files, each with the features of consecutive images. Its name is
a hash of what the features depend on: the content of the weights, the preprocessing, the data and
the method of the model. Work that was cut off goes on at the first file that is missing.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxformers.arrays import check_finite
from jaxformers.data.images import ImageRows, LabelledImages, Preprocessing
from jaxformers.data.pipeline.memmap_store import cache_folder, locked
from jaxformers.errors import DataError
from jaxformers.evaluation.probes.standardized_probe import Split
from jaxformers.models.clip import CLIP, CLIPImageTower
from jaxformers.tasks.evaluation_loop import round_up_rows
from jaxformers.tasks.image_text.image_index import weights_fingerprint
from jaxformers.tasks.images.image_evaluation import image_program

CHUNK = 4096  # images of a file
FORMAT = "image features 1"
PROJECTED = {CLIP: "encode_image", CLIPImageTower: "encode"}
POOLED = {CLIP: "image_features"}  # of other models: "pooled"
Progress = Callable[[int, int], None]
"""Called with the number of images that are done, and that of all."""


def image_features(
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    images: LabelledImages,
    *,
    projected: bool = False,
    rows: int = 128,
    store: bool = True,
    progress: Progress | None = None,
) -> Split:
    """The features and labels of all images, in their order.

    A batch is divided over the mesh in force.

    Args:
        model: of images, with its `variables`.
        preprocessing: that of its images.
        images: with labels.
        projected: whether CLIP's features are taken after the projection, as they are compared
            with texts, rather than before it, as the paper's linear probe takes them. Of other
            models they are the input of the head.
        rows: images of a batch.
        store: whether features are kept in `$JAXFORMERS_CACHE`, else in `~/.cache/jaxformers`, and
            read from there. Several hosts do not use it.
        progress: is called after each file.

    Raises:
        DataError: images without labels or with several, one that does not decode, or a store that
            cannot be written.
        WeightsError: outputs that are not finite.
    """
    if not images.labelled or images.multi_label:
        raise DataError(f"{images.source}: each image needs one label, and these have none or more")
    method = (PROJECTED if projected else POOLED).get(type(model), "pooled")
    compute = _computation(model, variables, preprocessing, images, method, rows)
    folder = None
    if store and jax.process_count() == 1:
        weights = weights_fingerprint(model, variables, preprocessing)
        folder = store_folder(weights, images, method)
    chunks = []
    for start in range(0, len(images), CHUNK):
        stop = min(start + CHUNK, len(images))
        chunks.append(
            compute(start, stop) if folder is None else _chunk(folder, start, stop, compute)
        )
        if progress is not None:
            progress(stop, len(images))
    return Split(np.concatenate(chunks), np.asarray(images.labels))


def _computation(
    model: Any,
    variables: Any,
    preprocessing: Preprocessing,
    images: LabelledImages,
    method: str,
    rows: int,
) -> Callable[[int, int], Float[np.ndarray, "n D"]]:
    """A function that computes the features of the images `start` to `stop`."""
    store, run = ImageRows(images, preprocessing), image_program(model, preprocessing, method)
    rows = round_up_rows(min(rows, len(images)))

    def compute(start: int, stop: int) -> Float[np.ndarray, "n D"]:
        outputs = []
        for first in range(start, stop, rows):
            indices = np.minimum(np.arange(first, first + rows), stop - 1)
            batch = store.gather(indices)
            outputs.append(np.asarray(run(variables, batch["images"]), np.float32)[: stop - first])
        features = np.concatenate(outputs)
        check_finite(features)
        return features

    return compute


def store_folder(weights: str, images: LabelledImages, method: str) -> Path:
    """Where features of these images lie.

    Args:
        weights: fingerprint of weights, configuration and preprocessing.
        images: the data.
        method: of the model that gives the features.
    """
    facts = json.dumps([FORMAT, weights, images.fingerprint, method], sort_keys=True, default=str)
    return cache_folder() / "image_features" / hashlib.sha256(facts.encode()).hexdigest()[:32]


def _chunk(folder: Path, start: int, stop: int, compute: Callable) -> Float[np.ndarray, "n D"]:
    """The features of a file, which is computed and written where it is missing or damaged."""
    path = folder / f"features-{start:09d}-{stop:09d}.safetensors"
    try:
        with locked(folder):
            features = _read(path, stop - start)
            if features is None:
                features = compute(start, stop)
                folder.mkdir(exist_ok=True)
                # Written beside and renamed: a file is there as a whole or not at all.
                unfinished = folder / f".{uuid.uuid4().hex}"
                save_file({"features": features}, unfinished)
                unfinished.replace(path)
    except OSError as error:
        raise DataError(
            f"the features cannot be kept in {folder}: {error.strerror or error}; set "
            "JAXFORMERS_CACHE to a folder with room"
        ) from None
    return features


def _read(path: Path, rows: int) -> Float[np.ndarray, "n D"] | None:
    if not path.is_file():
        return None
    try:
        features = load_file(path).get("features")
    except (SafetensorError, ValueError):
        return None
    valid = features is not None and features.ndim == 2 and features.dtype == np.float32
    return features if valid and len(features) == rows and np.isfinite(features).all() else None

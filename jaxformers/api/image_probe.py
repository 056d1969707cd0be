"""Probes of a model's frozen image features: a linear classifier, or nearest neighbours."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Literal

import jax

from jaxformers.api import sources
from jaxformers.api.sources import ImageSource
from jaxformers.data.images import HeldOut, ImageFolder, ImageTable
from jaxformers.errors import ConfigError, DataError
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.image_text.transfer import LinearProbeEvaluator, NeighbourEvaluator
from jaxformers.tasks.images import image_inference
from jaxformers.tasks.images.image_data import ImageData
from jaxformers.tasks.processor import Processor


def probe(
    source: ImageSource,
    data: str | os.PathLike | ImageData,
    *,
    dev: ImageData | None = None,
    test: ImageData | None = None,
    method: Literal["linear", "neighbours"] = "linear",
    projected: bool | None = None,
    normalize: bool = False,
) -> dict[str, float]:
    """How well frozen features tell the classes of labelled images, in percent.

    Features are computed once, over all devices, and kept in `$JAXFORMERS_CACHE`, else in
    `~/.cache/jaxformers`; work that was cut off goes on where it stopped.

    Args:
        source: a CLIP, ViT, ResNet or BiT, as for `embed_images`.
        data: training images: a folder with class folders below `train` and `test` (and `dev`), or
            a source such as `TfdsImages("oxford_flowers102", dev="validation")`.
        dev: development images, which choose the penalty or K; None: the data's own, else some of
            the training images of a folder or a table.
        test: test images; None: the data's own.
        method: "linear" is CLIP's logistic regression (appendix A.3); "neighbours" the vote of the
            1 to 21 nearest images.
        projected: whether CLIP's features are taken after its projection; None: for neighbours.
        normalize: whether the linear classifier's features are scaled to unit length.

    Returns:
        `test_linear_probe_top1`, `test_linear_probe_mean_per_class`, `dev_linear_probe_top1`,
        `linear_probe_penalty`; or `test_knn_top1`, `test_knn_mean_per_class`, `dev_knn_top1`,
        `knn_neighbours`.

    Raises:
        ConfigError: an unknown method, `normalize` for neighbours, or no development or test
            images.
        DataError: images that cannot be read, or without labels, or no folder or source of them.
        WeightsError: a model that gives no vectors of images, or outputs that are not finite.

    Example:
        >>> metrics = jf.probe("google/vit-base-patch16-224", "flowers", method="neighbours")
        >>> 0 <= metrics["test_knn_top1"] <= 100
        True
    """
    _check_method(method, normalize)
    model, variables = sources.model_of(source)
    image_inference.check_embedder(model, sources.name_of(source))
    processor = Processor(preprocessing=sources.preprocessing_of(source, model))
    train, dev, test = _sets(data, dev, test)
    evaluator: LinearProbeEvaluator | NeighbourEvaluator
    if method == "linear":
        evaluator = LinearProbeEvaluator(
            train=train, dev=dev, test=test, projected=bool(projected), normalize=normalize
        )
    else:
        evaluator = NeighbourEvaluator(
            train=train, dev=dev, test=test, projected=projected is not False
        )
    with _all_devices():
        return evaluator.evaluate(model, variables, processor, final=True).metrics


def _check_method(method: str, normalize: bool) -> None:
    if method not in ("linear", "neighbours"):
        raise ConfigError(f'method {method!r} is neither "linear" nor "neighbours"')
    if normalize and method == "neighbours":
        raise ConfigError(
            "normalize is of the linear classifier: neighbours are compared by their cosines, too; "
            "leave it out"
        )


def _sets(data: Any, dev: Any, test: Any) -> tuple[ImageData, ImageData, ImageData]:
    """The training, development and test images."""
    train: ImageData
    if isinstance(data, str | os.PathLike) and os.fspath(data):
        train = ImageFolder(os.fspath(data))
    elif isinstance(data, ImageData):
        train = data
    else:
        raise DataError(
            f"{data!r:.80} is no labelled images: give a folder, or a source such as ImageFolder"
        )
    test = test or train.other("test")
    if test is None:
        raise ConfigError("there are no test images: put a folder test beside train, or give test")
    dev = dev or train.other("dev")
    if dev is None and isinstance(train, ImageFolder | ImageTable):
        train = HeldOut(train)
        dev = train.other("dev")
    if dev is None:
        raise ConfigError("there are no development images to choose by: give dev")
    return train, dev, test


def _all_devices() -> contextlib.AbstractContextManager:
    """A mesh of all devices, unless one is in force."""
    if len(jax.devices()) == 1 or not jax.sharding.get_mesh().empty:
        return contextlib.nullcontext()
    return jax.set_mesh(make_mesh(MeshConfig()))

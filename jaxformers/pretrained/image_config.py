"""What the image models share: fields of `config.json`, heads, preprocessing, small sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxformers.data.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from jaxformers.errors import WeightsError
from jaxformers.models.residual import ResidualConfig
from jaxformers.pretrained.family import FineTuning
from jaxformers.pretrained.mapping.config_fields import (
    LAYERS,
    Fields,
    class_fields,
    class_names,
    problem_type,
)
from jaxformers.pretrained.mapping.name_map import TensorSource

LARGEST = 1 << 16
# Variables of an image model that a new head does not take over ("ViT", section 3.2).
IMAGE_HEAD_PATTERN = r"\w+/(head|distillation_head|pre_logits|head_norm|head_batch_norm)/.*"
RESIDUAL_FINE_TUNING = FineTuning(
    head_pattern=IMAGE_HEAD_PATTERN,
    # None changes the weights below the head, or what they compute without training.
    free_fields=(
        "class_names",
        "classes",
        "head_batch_norm",
        "head_bias",
        "image_size",
        "norm_momentum",
        "problem_type",
        "zero_init",
    ),
)


def imagenet_preprocessing(side: int, *fraction: float, **options: Any) -> Preprocessing:
    """A central crop, normalised by ImageNet's mean and standard deviation."""
    return Preprocessing.central(side, *fraction, mean=IMAGENET_MEAN, std=IMAGENET_STD, **options)


def shrink_residual(config: ResidualConfig, **changes: Any) -> ResidualConfig:
    """The same network with two stages of one narrow block, for images of 24 pixels."""
    return replace(config, image_size=24, depths=(1, 1), width=8, widths=(), **changes)


def whole_numbers(fields: Fields, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list of whole numbers above 0, one for each stage of a network.

    Raises:
        WeightsError: it is none, or of a size that no model has.
    """
    numbers = fields.content.get(name, list(default))
    good = isinstance(numbers, list) and 0 < len(numbers) <= 16
    if not good or any(type(n) is not int or not 0 < n <= LARGEST for n in numbers):
        raise fields.refuse(name, "not a list of a few whole numbers above 0")
    if name == "depths" and max(numbers) > LAYERS:
        raise fields.refuse(name, "more blocks than any model has")
    return tuple(numbers)


def head_classes(tensors: TensorSource, name: str) -> int:
    """Classes of the head whose kernel has that name; 0 where there is none.

    Raises:
        WeightsError: it is no matrix.
    """
    shape = tensors.shapes.get(name)
    if shape is None:
        return 0
    if len(shape) < 2 or shape[0] < 1:
        raise WeightsError(f"{tensors.place}: {name} {list(shape)} is no head over classes")
    return shape[0]


def head_fields(config: Any) -> dict[str, Any]:
    """The fields of `config.json` that describe an image model's head; none without a head."""
    if not config.classes:
        return {}
    return class_fields(config.class_names, config.classes, config.problem_type)


def read_residual(fields: Fields, classes: int) -> dict[str, Any]:
    """The `ResidualConfig` of a ResNet's or a BiT's folder.

    Raises:
        WeightsError: a field that is malformed.
    """
    return {
        "image_size": fields.size("image_size", 224),
        "channels": fields.size("num_channels", 3),
        "classes": classes,
        "class_names": class_names(fields.content, classes),
        "problem_type": problem_type(fields),
        "depths": whole_numbers(fields, "depths", (3, 4, 6, 3)),
        "width": fields.size("embedding_size", 64),
        "widths": whole_numbers(fields, "hidden_sizes", (256, 512, 1024, 2048)),
    }


def write_residual(config: ResidualConfig) -> dict[str, Any]:
    """The fields of `read_residual`."""
    return {
        "image_size": config.image_size,  # theirs has no such field, and keeps it
        "num_channels": config.channels,
        "embedding_size": config.width,
        "hidden_sizes": list(config.stage_widths),
        "depths": list(config.depths),
        **head_fields(config),
    }

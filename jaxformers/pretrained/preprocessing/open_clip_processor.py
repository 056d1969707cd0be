"""Image preprocessing of open_clip's folders: `preprocess_cfg` in `open_clip_config.json`."""

from __future__ import annotations

from typing import Any

from etils import epath

from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.mapping.config_fields import Fields
from jaxformers.pretrained.preprocessing.processor_file import (
    OPEN_CLIP_FILE,
    OPENAI_MEAN,
    OPENAI_STD,
)


def read_fields(folder: epath.PathLike, name: str) -> Fields:
    """One of the two objects of `open_clip_config.json`.

    Raises:
        WeightsError: a damaged file, or no such object in it.
    """
    path = epath.Path(folder) / OPEN_CLIP_FILE
    content = safetensors_folder.read_json(path)
    return Fields(object_field(Fields(content, str(path)), name), f"{path}: {name}")


def object_field(fields: Fields, name: str) -> dict[str, Any]:
    """A field that is itself an object; empty where it is missing."""
    value = fields.content.get(name, {})
    if not isinstance(value, dict):
        raise fields.refuse(name, "not an object of fields")
    return value


def read_open_clip_preprocessing(folder: epath.PathLike) -> Preprocessing:
    """What `preprocess_cfg` states, for the images of `model_cfg`'s size.

    Raises:
        WeightsError: a field that is malformed or asks for what is not supported.
    """
    model = read_fields(folder, "model_cfg")
    vision = Fields(object_field(model, "vision_cfg"), f"{model.place}: vision_cfg")
    size = vision.content.get("image_size", 224)
    fields = read_fields(folder, "preprocess_cfg")
    fields.require("mode", "RGB")
    rule = fields.choice("resize_mode", ("shortest", "squash")) or "shortest"
    interpolation = fields.choice("interpolation", ("bicubic", "bilinear")) or "bicubic"
    try:
        return Preprocessing(
            tuple(size) if isinstance(size, list) else size,
            rule="small" if rule == "shortest" else "direct",
            interpolation=interpolation,
            mean=tuple(map(float, fields.content.get("mean", OPENAI_MEAN))),
            std=tuple(map(float, fields.content.get("std", OPENAI_STD))),
            crop="round",
            alpha="late",
        )
    except (ConfigError, TypeError, ValueError) as error:
        raise WeightsError(f"{fields.place}: {error}") from None

"""A checkpoint's `preprocessor_config.json`, in Hugging Face's form, in and out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.pretrained.formats.safetensors_folder import read_json

FILE = "preprocessor_config.json"
WARPED_FROM = 384  # ConvNext's processor crops below this side only
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Fields that change no pixel, or that were written by other versions of the same processors.
SILENT = {
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "_processor_class",
    "_valid_processor_keys",
    "auto_map",
    "data_format",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
    "default_to_square",
    "image_seq_length",
    "do_convert_rgb",
}
READ = {
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "crop_pct",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
}
BASE = dict(do_resize=True, do_rescale=True, rescale_factor=1 / 255, do_normalize=True)
HALVES = dict(image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
CROPPED = dict(
    size=dict(shortest_edge=224),
    resample=3,
    do_center_crop=True,
    crop_size=224,
    image_mean=OPENAI[0],
    image_std=OPENAI[1],
)
# What each processor does where its file says nothing.
DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": BASE | HALVES | dict(size=dict(height=224, width=224), resample=2),
    "Bit": BASE | CROPPED,
    "CLIP": BASE | CROPPED,
    "ConvNext": BASE | HALVES | dict(size=dict(shortest_edge=384), resample=3, crop_pct=224 / 256),
}


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _above_zero(value: Any) -> bool:
    return _number(value) and value > 0


def _each(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: all(map(good, value)) if isinstance(value, list | tuple) else good(value)


def _flag(value: Any) -> bool:
    return type(value) is bool


# What a field's value must be, and how it is called when it is not.
WISHES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "do_resize": (_flag, "neither true nor false"),
    "do_center_crop": (_flag, "neither true nor false"),
    "do_rescale": (_flag, "neither true nor false"),
    "do_normalize": (_flag, "neither true nor false"),
    "resample": (
        lambda value: type(value) is int and value in set(Image.Resampling),
        "not the number of one of Pillow's filters",
    ),
    "crop_pct": (lambda value: _above_zero(value) and value <= 1, "not above 0 and at most 1"),
    "rescale_factor": (_above_zero, "not a number above 0"),
    "image_mean": (_each(_number), "not of finite numbers"),
    "image_std": (_each(_above_zero), "not of finite numbers above 0"),
}


def read_preprocessing(folder: epath.PathLike) -> Preprocessing:
    """The preprocessing that a folder's `preprocessor_config.json` states.

    Read are the processors of ViT (which MAE uses), BiT, CLIP, and ConvNext (which ResNet uses),
    in all the forms that their versions wrote. Pictures become RGB whatever `do_convert_rgb` says.

    Raises:
        WeightsError: the file is missing or malformed, or asks for what is not supported.
    """
    path = epath.Path(folder) / FILE
    if not path.exists():
        raise WeightsError(f"{folder} has no {FILE}: it says how pictures are resized and scaled")
    fields = read_json(path)
    kind = _kind(fields, path)
    _check_fields(fields, path)
    values = DEFAULTS[kind] | {name: fields[name] for name in READ if fields.get(name) is not None}
    try:
        _check_values(values, path)
        return _preprocessing(kind, values, path)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise WeightsError(f"{path} is malformed: {error!r}") from None


def _kind(fields: dict, path: epath.Path) -> str:
    name = str(fields.get("image_processor_type") or fields.get("feature_extractor_type"))
    short = name.removesuffix("Fast").removesuffix("Pil")
    short = short.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if short not in DEFAULTS:
        raise WeightsError(
            f"{path}: the image processor {name} is not supported; those of "
            f"{', '.join(DEFAULTS)} are"
        )
    return short


def _check_fields(fields: dict, path: epath.Path) -> None:
    for name, value in fields.items():
        if name not in READ | SILENT and value not in (None, False):
            raise WeightsError(f"{path}: {name} = {value!r} is not supported")


def _check_values(values: dict[str, Any], path: epath.Path) -> None:
    for name, (good, wish) in WISHES.items():
        if name in values and not good(values[name]):
            raise WeightsError(f"{path}: {name} is {values[name]!r}, {wish}")


def _preprocessing(kind: str, values: dict[str, Any], path: epath.Path) -> Preprocessing:
    resize, rule = _resize(kind, values, path)
    size = resize
    if kind == "ConvNext" and resize < WARPED_FROM:
        resize = int(size / values["crop_pct"])
    elif kind == "ConvNext":
        rule = "direct"
    elif values.get("do_center_crop"):
        size = _square(values["crop_size"], path, "crop_size")
        if not values["do_resize"]:
            raise WeightsError(f"{path}: a central crop without a resize is not supported")
    elif rule == "small":
        raise WeightsError(f"{path}: a resized shorter side without a central crop is no square")
    normalise = values["do_normalize"]
    return Preprocessing(
        size,
        None if resize == size else resize,
        rule if values["do_resize"] else "none",
        Image.Resampling(values["resample"]).name.lower(),
        values["rescale_factor"] if values["do_rescale"] else 1.0,
        _numbers(values["image_mean"]) if normalise else (0.0,) * 3,
        _numbers(values["image_std"]) if normalise else (1.0,) * 3,
        1 if normalise and np.shape(values["image_mean"]) == (1,) else 3,
    )


def _resize(kind: str, values: dict[str, Any], path: epath.Path) -> tuple[int, str]:
    """The side that is resized to, and which one it is."""
    size = values["size"]
    if not isinstance(size, dict):
        return _side(size, path, "size"), "direct" if kind == "ViT" else "small"
    if set(size) == {"shortest_edge"}:
        return _side(size["shortest_edge"], path, "size"), "small"
    return _square(size, path, "size"), "direct"


def _square(size: int | dict[str, int], path: epath.Path, name: str) -> int:
    if not isinstance(size, dict):
        return _side(size, path, name)
    if set(size) != {"height", "width"} or size["height"] != size["width"]:
        raise WeightsError(f"{path}: {name} {size} is no square, which is not supported")
    return _side(size["height"], path, name)


def _side(value: Any, path: epath.Path, name: str) -> int:
    if type(value) is not int or value < 1:
        raise WeightsError(f"{path}: {name} has {value!r}, not a whole number above 0")
    return value


def _numbers(values: float | list[float]) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),) * 3


def write_preprocessing(preprocessing: Preprocessing, folder: epath.PathLike) -> None:
    """Write `preprocessor_config.json`, as a ViT's or BiT's processor reads it."""
    form = preprocessing
    small = form.rule == "small"
    side, square = form.resize or form.size, lambda n: dict(height=n, width=n)
    fields = {
        "image_processor_type": "BitImageProcessor"
        if small or form.resize
        else "ViTImageProcessor",
        "do_convert_rgb": form.channels == 3 or None,
        "do_resize": form.rule != "none",
        "size": dict(shortest_edge=side) if small else square(side),
        "resample": int(Image.Resampling[form.interpolation.upper()]),
        "do_center_crop": small or form.resize is not None,
        "crop_size": square(form.size),
        "do_rescale": True,
        "rescale_factor": form.scale,
        "do_normalize": True,
        "image_mean": list(form.mean),
        "image_std": list(form.std),
    }
    (epath.Path(folder) / FILE).write_text(json.dumps(fields, indent=2) + "\n")

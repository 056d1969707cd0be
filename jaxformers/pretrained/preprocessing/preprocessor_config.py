"""Reads and writes the image preprocessing of Hugging Face's `preprocessor_config.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from jaxformers.arrays import ImageSize, height_width
from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.pretrained.formats.safetensors_folder import read_json
from jaxformers.pretrained.preprocessing.open_clip_processor import (
    read_open_clip_preprocessing,
)
from jaxformers.pretrained.preprocessing.processor_file import (
    DEFAULTS,
    FILE,
    NESTED_FIELD,
    NESTED_FILE,
    ProcessorFile,
    read_processor_file,
    states_open_clip,
)

UNCROPPED_SIDE = 384  # ConvNext's processor crops below this side only
# Fields that change no pixel, or that were written by other versions of the same processors.
IGNORED_FIELDS = {
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
    "image_seq_length",
}
OWN_FIELDS = "jaxformers"
"""An object of the fields of `Preprocessing` that transformers has no name for."""
READ_FIELDS = {
    OWN_FIELDS,
    "do_convert_rgb",
    "do_resize",
    "size",
    "default_to_square",
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
# Names of Pillow's filters, those before version 10 included.
FILTERS = {name: int(number) for name, number in Image.Resampling.__members__.items()}
FILTERS |= {"LINEAR": 2, "CUBIC": 3, "ANTIALIAS": 1}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _all_are(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: all(map(check, value)) if isinstance(value, list | tuple) else check(value)


def _is_flag(value: Any) -> bool:
    return type(value) is bool


# The check of a field's value, and what the message says of a value that fails it.
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    OWN_FIELDS: (lambda value: isinstance(value, dict), "no object of fields"),
    "do_convert_rgb": (_is_flag, "neither true nor false"),
    "do_resize": (_is_flag, "neither true nor false"),
    "do_center_crop": (_is_flag, "neither true nor false"),
    "do_rescale": (_is_flag, "neither true nor false"),
    "do_normalize": (_is_flag, "neither true nor false"),
    "default_to_square": (_is_flag, "neither true nor false"),
    "resample": (
        lambda value: _filter_number(value) is not None,
        "not the number or name of one of Pillow's filters",
    ),
    "crop_pct": (lambda value: _is_positive(value) and value <= 1, "not above 0 and at most 1"),
    "rescale_factor": (_is_positive, "not a number above 0"),
    "image_mean": (_all_are(_is_number), "not of finite numbers"),
    "image_std": (_all_are(_is_positive), "not of finite numbers above 0"),
}


def read_preprocessing(folder: epath.PathLike) -> Preprocessing:
    """The preprocessing that a folder's files state.

    Supported are the processors of `processor_file.DEFAULTS`, in all the forms that their versions
    wrote. Images become RGB whatever `do_convert_rgb` says; with it, transparency is blended onto
    white, as transformers 5 does, else it is dropped, as its pipelines do.

    Raises:
        WeightsError: the file is missing or malformed, or asks for what is not supported.
    """
    if states_open_clip(folder):
        return read_open_clip_preprocessing(folder)
    file = read_processor_file(folder)
    for name, value in file.fields.items():
        if name not in READ_FIELDS | IGNORED_FIELDS and value not in (None, False):
            raise WeightsError(f"{file.path}: {name} = {value!r} is not supported")
    stated = {name: file.fields[name] for name in READ_FIELDS if file.fields.get(name) is not None}
    values = DEFAULTS[file.kind] | stated
    try:
        for name, (check, complaint) in CHECKS.items():
            if name in values and not check(values[name]):
                raise WeightsError(f"{file.path}: {name} is {values[name]!r}, {complaint}")
        return _preprocessing(file, values)
    except ConfigError as error:
        raise WeightsError(f"{file.path}: {error}") from None
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise WeightsError(f"{file.path} is malformed: {error!r}") from None


def _preprocessing(file: ProcessorFile, values: dict[str, Any]) -> Preprocessing:
    side, rule = _resize(file, values)
    crop = _size(values["crop_size"], file, "crop_size") if values.get("do_center_crop") else None
    resize, size = side, crop or side
    if not values["do_resize"]:
        rule = "none"
        if crop:
            raise WeightsError(f"{file.path}: a central crop without a resize is not supported")
    elif file.kind == "ConvNext":
        resize, rule = _convnext_resize(file, values, side, rule)
        if crop not in (None, side):
            raise WeightsError(f"{file.path}: a second crop, to crop_size, is not supported")
    elif rule == "small" and not crop:
        raise WeightsError(
            f"{file.path}: do_center_crop is false, so that a resized shorter side gives images "
            "of many sizes"
        )
    normalise = values["do_normalize"]
    grey = normalise and np.shape(values["image_mean"]) == (1,) and not values["do_convert_rgb"]
    own = {"alpha": "white" if values["do_convert_rgb"] else "drop"} | values.get(OWN_FIELDS, {})
    if unknown := sorted(own.keys() - {"alpha", "crop", "grey_bits"}):
        raise WeightsError(f"{file.path}: {OWN_FIELDS} has an unknown field {unknown[0]!r}")
    return Preprocessing(
        size,
        None if resize == size else resize,
        rule,
        Image.Resampling(_filter_number(values["resample"])).name.lower(),
        values["rescale_factor"] if values["do_rescale"] else 1.0,
        _numbers(values["image_mean"]) if normalise else (0.0,) * 3,
        _numbers(values["image_std"]) if normalise else (1.0,) * 3,
        1 if grey else 3,
        **own,
    )


def _resize(file: ProcessorFile, values: dict[str, Any]) -> tuple[ImageSize, str]:
    """The size that is resized to, and the rule: both sides ("direct") or the shorter ("small")."""
    size = values["size"]
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        return _side(size["shortest_edge"], file, "size"), "small"
    if isinstance(size, dict | list) or values["default_to_square"]:
        return _size(size, file, "size"), "direct"
    return _side(size, file, "size"), "small"


def _convnext_resize(
    file: ProcessorFile, values: dict[str, Any], side: ImageSize, rule: str
) -> tuple[int, str]:
    """ConvNext's side and rule: a central share of the image below 384 pixels, else all of it."""
    if rule != "small":
        raise WeightsError(f"{file.path}: size is {values['size']}, not a shortest_edge")
    return (int(side / values["crop_pct"]), "small") if side < UNCROPPED_SIDE else (side, "direct")


def _size(size: Any, file: ProcessorFile, name: str) -> ImageSize:
    """A side, or height and width by name or in a list."""
    if isinstance(size, list) and len(size) == 2:
        size = dict(height=size[0], width=size[1])
    if not isinstance(size, dict):
        return _side(size, file, name)
    if set(size) != {"height", "width"}:
        raise WeightsError(f"{file.path}: {name} is {size}, not a height and a width")
    height, width = (_side(size[side], file, name) for side in ("height", "width"))
    return height if height == width else (height, width)


def _side(value: Any, file: ProcessorFile, name: str) -> int:
    if type(value) is not int or value < 1:
        raise WeightsError(f"{file.path}: {name} has {value!r}, not a whole number above 0")
    return value


def _filter_number(value: Any) -> int | None:
    """Pillow's number of a filter, from it or from a name such as "bicubic" or "Image.BICUBIC"."""
    if isinstance(value, str):
        return FILTERS.get(value.rpartition(".")[2].upper())
    return value if type(value) is int and value in FILTERS.values() else None


def _numbers(values: float | list[float]) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),) * 3


def write_preprocessing(preprocessing: Preprocessing, folder: epath.PathLike) -> None:
    """Writes `preprocessor_config.json` for the image processor of ViT or BiT.

    A `processor_config.json` in the folder, which transformers reads first, gets the same fields.
    What transformers does otherwise is written below `OWN_FIELDS`.
    """
    folder, form = epath.Path(folder), preprocessing
    small = form.rule == "small"
    resize = form.size if form.resize is None else form.resize
    fields = {
        "image_processor_type": "BitImageProcessor"
        if small or form.resize
        else "ViTImageProcessor",
        "do_convert_rgb": form.channels == 3 or None,
        "do_resize": form.rule != "none",
        "size": dict(shortest_edge=resize) if small else _height_width(resize),
        "resample": int(Image.Resampling[form.interpolation.upper()]),
        "do_center_crop": small or form.resize is not None,
        "crop_size": _height_width(form.size),
        "do_rescale": True,
        "rescale_factor": form.scale,
        "do_normalize": True,
        "image_mean": list(form.mean),
        "image_std": list(form.std),
    }
    implied = {"crop": "floor", "alpha": "white" if form.channels == 3 else "drop", "grey_bits": 16}
    own = {n: getattr(form, n) for n, value in implied.items() if getattr(form, n) != value}
    fields |= {OWN_FIELDS: own} if own else {}
    _write_json(fields, folder / FILE)
    nested_file = folder / NESTED_FILE
    if nested_file.exists() and NESTED_FIELD in (content := read_json(nested_file)):
        _write_json(content | {NESTED_FIELD: fields}, nested_file)


def _height_width(size: ImageSize) -> dict[str, int]:
    return dict(zip(("height", "width"), height_width(size), strict=True))


def _write_json(content: dict[str, Any], path: epath.Path) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")

"""Image preprocessing for weights in a single file, from the files beside it or its publisher."""

from __future__ import annotations

import math
import operator
from typing import Any

from etils import epath
from PIL import Image

from jaxformers.data.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.pretrained.family import SingleFileFormat
from jaxformers.pretrained.formats import single_file
from jaxformers.pretrained.formats.safetensors_folder import CONFIG, read_json
from jaxformers.pretrained.mapping.name_map import TensorSource
from jaxformers.pretrained.preprocessing.preprocessor_config import read_preprocessing
from jaxformers.pretrained.preprocessing.processor_file import FILE, states_preprocessing
from jaxformers.pretrained.timm.timm_args import is_timm_config, pretrained_config


def file_preprocessing(path: epath.PathLike, weights: str | None = None) -> Preprocessing:
    """The image preprocessing for a single file of weights.

    Google's (`.npz`) take a direct resize and (x - 127.5) / 127.5. For others a
    `preprocessor_config.json` or timm's `config.json` beside the file states it; without one,
    ResNets are taken for torchvision's, and ViTs by the names of MAE's or DINOv2's authors for
    theirs. `weights` as for `select_weights`.

    Raises:
        WeightsError: a file of no known model, or one whose publisher cannot be told.
    """
    path = epath.Path(path).expanduser()
    if path.suffix != ".npz" and (stated := _stated_beside(path.parent)) is not None:
        return stated
    source, file_format = single_file.recognise(path, weights)
    if (published := _publishers(source, file_format)) is not None:
        return published
    if (stated := _stated_beside(path.parent)) is not None:
        return stated
    raise WeightsError(
        f"{path} does not state how images are resized and scaled, and publishers differ: put its "
        f"{FILE}, or timm's {CONFIG}, beside it"
    )


def _stated_beside(folder: epath.Path) -> Preprocessing | None:
    """What the folder's `preprocessor_config.json`, or timm's `config.json`, states, if any."""
    if states_preprocessing(folder):
        return read_preprocessing(folder)
    pretrained_cfg = timm_fields(folder)
    return None if pretrained_cfg is None else timm_preprocessing(pretrained_cfg, folder / CONFIG)


def _publishers(source: TensorSource, file_format: SingleFileFormat) -> Preprocessing | None:
    """The preprocessing of the file's publisher; None where several publish such files."""
    return file_format.preprocessing(file_format.read_config(source))


def timm_fields(folder: epath.Path) -> dict[str, Any] | None:
    """The image fields of timm's `config.json` in a folder; None where there is no such file."""
    config = read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    return dict(pretrained_config(config)) if is_timm_config(config) else None


def timm_preprocessing(fields: dict[str, Any], path: epath.Path) -> Preprocessing:
    """timm's evaluation: the shorter side resized (or both, "squash"), then the middle."""
    try:
        mode = fields.get("crop_mode") or "center"
        if mode not in ("center", "squash"):
            raise WeightsError(f"{path}: crop_mode is {mode!r}, not 'center' or 'squash'")
        channels, height, width = map(operator.index, fields["input_size"])
        if height != width and mode == "center":
            raise WeightsError(
                f"{path}: input_size {fields['input_size']} is no square, which crop_mode 'center' "
                "needs here: resize pictures yourself, or set crop_mode to 'squash' where the "
                "model takes pictures whose aspect is changed"
            )
        fraction = fields.get("crop_pct") or 0.875
        resized = math.floor(height / fraction), math.floor(width / fraction)
        return Preprocessing(
            (height, width),
            resized[0] if mode == "center" else resized,
            "small" if mode == "center" else "direct",
            Image.Resampling[fields.get("interpolation", "bilinear").upper()].name.lower(),
            mean=tuple(map(float, fields.get("mean", IMAGENET_MEAN))),
            std=tuple(map(float, fields.get("std", IMAGENET_STD))),
            channels=channels,
            crop="round",
        )
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise WeightsError(f"{path}: pretrained_cfg is malformed: {error!r}") from None

"""The preprocessing that belongs to weights in a single file, which itself says nothing of it."""

from __future__ import annotations

import math
import operator
from typing import Any

from etils import epath
from PIL import Image

from jaxformers.data.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.models import BiTConfig, MAEConfig, ResNetConfig
from jaxformers.pretrained.formats import single_file
from jaxformers.pretrained.formats.safetensors_folder import CONFIG, read_json
from jaxformers.pretrained.preprocessing.preprocessor_config import FILE, read_preprocessing

BIT_SIDE = 480  # at which BiT is fine-tuned
CROPPED = 224  # up to this side MAE's pictures are cut out of larger ones
TIMM = "pretrained_cfg"


def file_preprocessing(path: epath.PathLike) -> Preprocessing:
    """How pictures are brought to what a file of weights takes.

    Google's (`.npz`) take a direct resize and (x - 127.5) / 127.5. Beside others, a
    `preprocessor_config.json` or timm's `config.json` says it; else ResNets are torchvision's, and
    ViTs whose form tells that they are MAE's are that.

    Raises:
        WeightsError: a file of no known model, or one whose publisher cannot be told.
    """
    path = epath.Path(path).expanduser()
    config = single_file.read_config(path)
    if path.suffix == ".npz":
        return Preprocessing(BIT_SIDE if isinstance(config, BiTConfig) else config.image_size)
    if (path.parent / FILE).exists():
        return read_preprocessing(path.parent)
    if (said := timm_fields(path.parent)) is not None:
        return _timm(said, path.parent / CONFIG)
    imagenet = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if isinstance(config, ResNetConfig):
        return Preprocessing.central(config.image_size, **imagenet)
    if isinstance(config, MAEConfig) or config.head_norm or config.positions != "learned":
        side = config.image_size
        fraction = 0.875 if side <= CROPPED else 1.0
        return Preprocessing.central(side, fraction, interpolation="bicubic", **imagenet)
    raise WeightsError(
        f"{path} does not tell how its pictures are scaled, and publishers differ: put its "
        f"{FILE}, or timm's {CONFIG}, beside it"
    )


def timm_fields(folder: epath.Path) -> dict[str, Any] | None:
    """What timm's `config.json` in a folder says of pictures; None where there is no such."""
    said = read_json(folder / CONFIG).get(TIMM) if (folder / CONFIG).exists() else None
    return said if isinstance(said, dict) else None


def _timm(said: dict[str, Any], place: epath.Path) -> Preprocessing:
    """timm's evaluation: the shorter side resized (or both, "squash"), then the middle."""
    try:
        mode = said.get("crop_mode") or "center"
        if mode not in ("center", "squash"):
            raise WeightsError(f"{place}: crop_mode is {mode!r}, not 'center' or 'squash'")
        channels, side, across = map(operator.index, said["input_size"])
        if side != across:
            raise WeightsError(f"{place}: input_size {said['input_size']} is no square")
        return Preprocessing(
            side,
            math.floor(side / said.get("crop_pct", 0.875)),
            "small" if mode == "center" else "direct",
            Image.Resampling[said.get("interpolation", "bilinear").upper()].name.lower(),
            mean=tuple(map(float, said.get("mean", IMAGENET_MEAN))),
            std=tuple(map(float, said.get("std", IMAGENET_STD))),
            channels=channels,
        )
    except ConfigError as error:
        raise WeightsError(f"{place}: {error}") from None
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise WeightsError(f"{place}: {TIMM} is malformed: {error!r}") from None

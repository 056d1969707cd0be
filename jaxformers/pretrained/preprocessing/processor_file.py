"""Where a folder states its image processor, which class that is, and its defaults."""

from __future__ import annotations

from typing import Any, NamedTuple

from etils import epath

from jaxformers.data.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from jaxformers.errors import WeightsError
from jaxformers.pretrained.formats.safetensors_folder import CONFIG, read_json

FILE, NESTED_FILE = "preprocessor_config.json", "processor_config.json"
NESTED_FIELD = "image_processor"
OPEN_CLIP_FILE = "open_clip_config.json"
TYPE_FIELDS = ("image_processor_type", "feature_extractor_type")
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

BASE = dict(
    do_convert_rgb=False,
    do_resize=True,
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=True,
    default_to_square=True,
    resample=3,
    size=dict(height=224, width=224),
    image_mean=(0.5,) * 3,
    image_std=(0.5,) * 3,
)
CENTRAL = dict(do_center_crop=True, crop_size=dict(height=224, width=224))
SHORTER_SIDE = dict(size=dict(shortest_edge=224), default_to_square=False)
OPENAI = dict(image_mean=OPENAI_MEAN, image_std=OPENAI_STD)
# What each image processor of transformers does where its file is silent.
DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": BASE | dict(resample=2),
    "DeiT": BASE | CENTRAL | dict(size=dict(height=256, width=256)),
    "Bit": BASE | CENTRAL | SHORTER_SIDE | OPENAI | dict(do_convert_rgb=True),
    "CLIP": BASE | CENTRAL | SHORTER_SIDE | OPENAI | dict(do_convert_rgb=True),
    "ConvNext": BASE | SHORTER_SIDE | dict(size=dict(shortest_edge=384), crop_pct=224 / 256),
    "Siglip": BASE | dict(default_to_square=False, do_convert_rgb=True),
    "Beit": BASE | dict(crop_size=dict(height=224, width=224)),
    "Pvt": BASE | dict(image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD),
}
# The processor of each model, for files that name none.
KINDS_BY_MODEL_TYPE = {
    "vit": "ViT",
    "vit_mae": "ViT",
    "vit_msn": "ViT",
    "swin": "ViT",
    "deit": "DeiT",
    "bit": "Bit",
    "dinov2": "Bit",
    "dinov2_with_registers": "Bit",
    "resnet": "ConvNext",
    "convnext": "ConvNext",
    "clip": "CLIP",
    "clip_vision_model": "CLIP",
    "siglip": "Siglip",
    "siglip_vision_model": "Siglip",
    "beit": "Beit",
    "pvt": "Pvt",
}


class ProcessorFile(NamedTuple):
    """An image processor's fields and the class of transformers that reads them."""

    path: str
    """The file, for messages."""
    kind: str
    """A key of `DEFAULTS`."""
    fields: dict[str, Any]


def states_preprocessing(folder: epath.PathLike) -> bool:
    """Whether a folder has a file that states an image processor."""
    folder = epath.Path(folder)
    stated = (folder / FILE).exists() or _nested_fields(folder) is not None
    return stated or states_open_clip(folder)


def states_open_clip(folder: epath.PathLike) -> bool:
    """Whether a folder is open_clip's and not Hugging Face's too, which is then read by that."""
    folder = epath.Path(folder)
    return (folder / OPEN_CLIP_FILE).exists() and not (folder / CONFIG).exists()


def read_processor_file(folder: epath.PathLike) -> ProcessorFile:
    """The image processor that a folder's files state.

    As in transformers, `image_processor` in `processor_config.json` precedes
    `preprocessor_config.json`, and a file without a type goes by `config.json`.

    Raises:
        WeightsError: no such file, a malformed one, or a processor that is not supported.
    """
    folder = epath.Path(folder)
    if (fields := _nested_fields(folder)) is not None:
        path = folder / NESTED_FILE
    elif (path := folder / FILE).exists():
        fields = read_json(path)
    else:
        raise WeightsError(f"{folder} has no {FILE}: it says how images are resized and scaled")
    return ProcessorFile(str(path), _kind(fields, folder, path), fields)


def _nested_fields(folder: epath.Path) -> dict[str, Any] | None:
    """`image_processor` in `processor_config.json`; None where there is no such field."""
    path = folder / NESTED_FILE
    if not path.exists():
        return None
    content = read_json(path)
    if NESTED_FIELD not in content:
        return None
    fields = content[NESTED_FIELD]
    if not isinstance(fields, dict):
        raise WeightsError(f"{path}: {NESTED_FIELD} is no object of fields")
    return fields


def _kind(fields: dict[str, Any], folder: epath.Path, path: epath.Path) -> str:
    name = next((fields[name] for name in TYPE_FIELDS if fields.get(name) is not None), None)
    config_path = folder / CONFIG
    config = read_json(config_path) if name is None and config_path.exists() else {}
    name = config.get(TYPE_FIELDS[0]) if name is None else name
    if name is None:
        model_type = config.get("model_type")
        if isinstance(model_type, str) and model_type in KINDS_BY_MODEL_TYPE:
            return KINDS_BY_MODEL_TYPE[model_type]
        raise WeightsError(
            f"{path} has no {TYPE_FIELDS[0]}, and {config_path} no model_type that tells it: add "
            f"one of {', '.join(f'{kind}ImageProcessor' for kind in DEFAULTS)}"
        )
    kind = str(name).removesuffix("Fast").removesuffix("Pil")
    kind = kind.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if kind not in DEFAULTS:
        raise WeightsError(
            f"{path}: the image processor {name} is not supported; those of "
            f"{', '.join(DEFAULTS)} are"
        )
    return kind

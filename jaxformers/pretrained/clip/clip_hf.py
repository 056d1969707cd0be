"""CLIP and SigLIP as Hugging Face publishes them, in and out: both towers, or one alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.layers import Execution
from jaxformers.models.clip import CLIP, CLIPImageTower, CLIPTextTower
from jaxformers.pretrained.clip import clip_config, clip_names
from jaxformers.pretrained.family import HuggingFaceFormat, LoadedModel, Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import open_folder
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)

Files = tuple[dict[str, np.ndarray], dict[str, Any]]
TEXT, VISION = "text_model.", "vision_model."


def load_clip(path: Any, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """`CLIPModel`.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    fields, tensors, _ = open_folder(path, TEXT)
    model = CLIP(clip_config.read_clip(fields), execution)
    return read_model(model, clip_names.huggingface_clip(), tensors)


def load_siglip(path: Any, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """`SiglipModel`; raises as `load_clip`."""
    fields, tensors, _ = open_folder(path, TEXT)
    model = CLIP(clip_config.read_siglip(fields), execution)
    return read_model(model, clip_names.huggingface_siglip(), tensors)


def load_clip_text(path: Any, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """`CLIPTextModelWithProjection`, or `CLIPTextModel`, which has none; raises as `load_clip`."""
    # transformers 5 saves a tower without projection without the prefix, older versions with it.
    fields, tensors, prefix = open_folder(path, TEXT)
    projects = "text_projection.weight" in tensors.shapes
    projection = fields.size("projection_dim", 512) if projects else None
    model = CLIPTextTower(clip_config.read_clip_text(fields, projection), execution)
    return read_model(model, clip_text_map(prefix), tensors)


def load_clip_vision(path: Any, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """`CLIPVisionModelWithProjection` or `CLIPVisionModel`; raises as `load_clip`."""
    fields, tensors, prefix = open_folder(path, VISION)
    projects = "visual_projection.weight" in tensors.shapes
    projection = fields.size("projection_dim", 512) if projects else None
    model = CLIPImageTower(clip_config.read_clip_image(fields, projection), execution)
    return read_model(model, clip_vision_map(prefix), tensors)


def load_siglip_text(path: Any, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """`SiglipTextModel`; raises as `load_clip`."""
    fields, tensors, prefix = open_folder(path, TEXT)
    model = CLIPTextTower(clip_config.read_siglip_text(fields), execution)
    return read_model(model, siglip_text_map(prefix), tensors)


def load_siglip_vision(path: Any, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """`SiglipVisionModel`; raises as `load_clip`."""
    fields, tensors, prefix = open_folder(path, VISION)
    model = CLIPImageTower(clip_config.read_siglip_image(fields), execution)
    return read_model(model, siglip_vision_map(prefix), tensors)


def tower_map(entries: tuple[Entry, ...]) -> NameMap:
    """The map of a tower alone, whose variables have no prefix of ours."""
    return NameMap(clip_names.under(entries, "params/"), clip_names.IGNORED_BUFFERS)


def clip_text_map(prefix: str) -> NameMap:
    """Names of CLIP's text tower alone."""
    projection = clip_names.clip_projection("text_projection")
    return tower_map((*clip_names.huggingface_text(prefix), *projection))


def clip_vision_map(prefix: str) -> NameMap:
    """Names of CLIP's image tower alone."""
    projection = clip_names.clip_projection("visual_projection")
    return tower_map((*clip_names.huggingface_image(prefix), *projection))


def siglip_text_map(prefix: str) -> NameMap:
    """Names of SigLIP's text tower alone."""
    projection = clip_names.siglip_text_projection(prefix)
    return tower_map((*clip_names.huggingface_text(prefix), *projection))


def siglip_vision_map(prefix: str) -> NameMap:
    """Names of SigLIP's image tower alone."""
    return tower_map(clip_names.huggingface_image(prefix))


def write_clip(model: nn.Module, variables: Variables) -> Files:
    """Tensors and JSON files of `CLIPModel`.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    tensors = clip_names.huggingface_clip().write(unpadded_arrays(model, variables))
    return tensors, {safetensors_folder.CONFIG: clip_config.write_clip(model.config)}


def write_siglip(model: nn.Module, variables: Variables) -> Files:
    """Tensors and JSON files of `SiglipModel`; raises as `write_clip`."""
    tensors = clip_names.huggingface_siglip().write(unpadded_arrays(model, variables))
    return tensors, {safetensors_folder.CONFIG: clip_config.write_siglip(model.config)}


def write_clip_text(model: nn.Module, variables: Variables) -> Files:
    """Tensors and JSON files of `CLIPTextModelWithProjection` or `CLIPTextModel`."""
    projects = model.config.projection is not None
    kind = "CLIPTextModelWithProjection" if projects else "CLIPTextModel"
    fields = clip_config.write_text(model.config, clip_config.CLIP_TEXT)
    return _tower_files(model, variables, clip_text_map(TEXT if projects else ""), fields, kind)


def write_clip_vision(model: nn.Module, variables: Variables) -> Files:
    """Tensors and JSON files of `CLIPVisionModelWithProjection` or `CLIPVisionModel`."""
    projects = model.config.projection is not None
    kind = "CLIPVisionModelWithProjection" if projects else "CLIPVisionModel"
    fields = clip_config.write_image(model.config, clip_config.CLIP_VISION)
    names = clip_vision_map(VISION if projects else "")
    return _tower_files(model, variables, names, fields, kind)


def write_siglip_text(model: nn.Module, variables: Variables) -> Files:
    """Tensors and JSON files of `SiglipTextModel`."""
    fields = clip_config.write_text(model.config, clip_config.SIGLIP_TEXT)
    return _tower_files(model, variables, siglip_text_map(""), fields, "SiglipTextModel")


def write_siglip_vision(model: nn.Module, variables: Variables) -> Files:
    """Tensors and JSON files of `SiglipVisionModel`."""
    fields = clip_config.write_image(model.config, clip_config.SIGLIP_VISION)
    return _tower_files(model, variables, siglip_vision_map(""), fields, "SiglipVisionModel")


def _tower_files(
    model: nn.Module, variables: Variables, names: NameMap, fields: dict[str, Any], kind: str
) -> Files:
    tensors = names.write(unpadded_arrays(model, variables))
    content = fields | {"architectures": [kind], "dtype": "float32"}
    return tensors, {safetensors_folder.CONFIG: content}


def _reason(check: Callable[[Any, Any], str | None], module: type[nn.Module]):
    """The `unsupported_reason` of a format whose towers `check` accepts."""

    def reason(model: nn.Module, variables: Variables) -> str | None:
        config = model.config
        if type(model) is not module:
            return f"it is no {module.__name__}"
        if module is CLIP:
            return check(config.image, config.text)
        return check(config, None) if module is CLIPImageTower else check(None, config)

    return reason


CLIP_FORMATS = (
    HuggingFaceFormat(
        clip_config.CLIP, "CLIP", load_clip, _reason(clip_config.clip_reason, CLIP), write_clip
    ),
    HuggingFaceFormat(
        clip_config.SIGLIP,
        "SigLIP",
        load_siglip,
        _reason(clip_config.siglip_reason, CLIP),
        write_siglip,
    ),
)
TEXT_FORMATS = (
    HuggingFaceFormat(
        clip_config.CLIP_TEXT,
        "CLIP's text tower",
        load_clip_text,
        _reason(clip_config.clip_reason, CLIPTextTower),
        write_clip_text,
    ),
    HuggingFaceFormat(
        clip_config.SIGLIP_TEXT,
        "SigLIP's text tower",
        load_siglip_text,
        _reason(clip_config.siglip_reason, CLIPTextTower),
        write_siglip_text,
    ),
)
IMAGE_FORMATS = (
    HuggingFaceFormat(
        clip_config.CLIP_VISION,
        "CLIP's image tower",
        load_clip_vision,
        _reason(clip_config.clip_reason, CLIPImageTower),
        write_clip_vision,
    ),
    HuggingFaceFormat(
        clip_config.SIGLIP_VISION,
        "SigLIP's image tower",
        load_siglip_vision,
        _reason(clip_config.siglip_reason, CLIPImageTower),
        write_siglip_vision,
    ),
)

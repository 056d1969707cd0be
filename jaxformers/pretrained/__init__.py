"""Published weights in and out, by a registry of model families that plug-ins may extend.

Imports `data.images`, `models`, `text`, `layers`, `sharding` and below.
"""

from jaxformers.pretrained.builtin_families import BUILTIN_FAMILIES
from jaxformers.pretrained.family import (
    Family,
    FineTuning,
    FolderFormat,
    HuggingFaceFormat,
    SingleFileFormat,
    TimmFormat,
)
from jaxformers.pretrained.formats.hub import resolve
from jaxformers.pretrained.formats.torch_file import torch_to_safetensors
from jaxformers.pretrained.loading import load_pretrained, save_pretrained
from jaxformers.pretrained.mapping.position_resize import at_image_size, resize_positions
from jaxformers.pretrained.registry import families, register_family
from jaxformers.pretrained.text_backbone import load_text_backbone, stated_label_names

__all__ = [
    "Family",
    "FineTuning",
    "FolderFormat",
    "HuggingFaceFormat",
    "SingleFileFormat",
    "TimmFormat",
    "at_image_size",
    "families",
    "load_pretrained",
    "load_text_backbone",
    "register_family",
    "resize_positions",
    "resolve",
    "save_pretrained",
    "stated_label_names",
    "torch_to_safetensors",
]

for _family in BUILTIN_FAMILIES:
    register_family(_family)

"""CLIP and SigLIP, and their towers alone, as families of the registry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.models.clip import (
    CLIP,
    CLIPConfig,
    CLIPImageConfig,
    CLIPImageTower,
    CLIPTextConfig,
    CLIPTextTower,
    ModifiedResNetConfig,
)
from jaxformers.pretrained.clip import clip_hf, clip_openai, open_clip
from jaxformers.pretrained.family import (
    Family,
    FolderFormat,
    HuggingFaceFormat,
    InputShapes,
    SingleFileFormat,
    image_inputs,
)
from jaxformers.pretrained.preprocessing.processor_file import states_open_clip

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def clip_preprocessing(config: CLIPConfig) -> Preprocessing:
    """OpenAI's: the shorter side resized, a central crop, its own mean and deviation."""
    return Preprocessing(
        config.image_size,
        rule="small",
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
        crop="round",
        alpha="late",
    )


def text_inputs(config: CLIPTextConfig) -> InputShapes:
    """One text of the full length, which SigLIP's tower needs."""
    return (jax.ShapeDtypeStruct((1, config.context_length), jnp.int32),)


def clip_inputs(config: CLIPConfig) -> InputShapes:
    """One image and one text."""
    return (*image_inputs(config), *text_inputs(config.text))


def _shrink_image(config: Any) -> Any:
    if isinstance(config, ModifiedResNetConfig):
        return replace(config, image_size=32, depths=(1, 1, 1, 1), width=4, heads=4, projection=16)
    projection = None if config.projection is None else 16
    size = dict(image_size=24, patch_size=8, width=16, heads=4, feed_forward=32, layers=2)
    return replace(config, projection=projection, **size)


def _shrink_text(config: CLIPTextConfig) -> CLIPTextConfig:
    projection = None if config.projection is None else 16
    size = dict(width=16, heads=4, feed_forward=32, layers=2)
    return replace(config, projection=projection, **size)


def _shrink(config: CLIPConfig) -> CLIPConfig:
    return replace(config, image=_shrink_image(config.image), text=_shrink_text(config.text))


CLIP_FAMILY = Family(
    "clip",
    CLIPConfig,
    {"clip": CLIP},
    clip_inputs,
    takes_images=True,
    shrink=_shrink,
    formats=(
        *clip_hf.CLIP_FORMATS,
        FolderFormat(states_open_clip, open_clip.load, open_clip.load_tokenizer),
        HuggingFaceFormat(
            "open_clip",
            "open_clip",
            open_clip.load,
            open_clip.unsupported_reason,
            open_clip.write,
        ),
        SingleFileFormat(
            clip_openai.recognises,
            clip_openai.read_file_config,
            clip_openai.load_file,
            clip_preprocessing,
        ),
    ),
)
CLIP_TEXT_FAMILY = Family(
    "clip_text",
    CLIPTextConfig,
    {"clip_text": CLIPTextTower},
    text_inputs,
    shrink=_shrink_text,
    formats=clip_hf.TEXT_FORMATS,
)
CLIP_IMAGE_FAMILY = Family(
    "clip_image",
    CLIPImageConfig,
    {"clip_image": CLIPImageTower},
    image_inputs,
    takes_images=True,
    shrink=_shrink_image,
    formats=clip_hf.IMAGE_FORMATS,
)

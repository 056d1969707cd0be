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
from jaxformers.pretrained.preprocessing.processor_file import (
    OPENAI_MEAN,
    OPENAI_STD,
    states_open_clip,
)
from jaxformers.text import CLIPTokenizer, HuggingFaceTokenizer, SigLIPTokenizer, WordPiece

TOKENIZERS = (CLIPTokenizer, SigLIPTokenizer, HuggingFaceTokenizer, WordPiece)


def clip_preprocessing(config: CLIPConfig) -> Preprocessing:
    """OpenAI's: the shorter side resized, a central crop, its own mean and deviation."""
    return Preprocessing(
        config.image_size,
        rule="small",
        interpolation="bicubic",
        mean=OPENAI_MEAN,
        std=OPENAI_STD,
        crop="round",
        alpha="late",
    )


def published_preprocessing(config: Any) -> Preprocessing | None:
    """CLIP's preprocessing for a folder that states none; None for SigLIP, which has several.

    Args:
        config: a `CLIPConfig`, or the configuration of an image tower.
    """
    image = config.image if isinstance(config, CLIPConfig) else config
    siglip = isinstance(image, CLIPImageConfig) and not image.class_token
    return None if siglip else clip_preprocessing(config)


def special_ids(config: CLIPConfig | CLIPTextConfig) -> dict[str, int]:
    """The id that ends a text, where the text tower pools at it."""
    text = config.text if isinstance(config, CLIPConfig) else config
    ends = {"eos": text.eos_id, "highest_id": text.vocab_size - 1}
    return {"eos_id": ends[text.pooling]} if text.pooling in ends else {}


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
    tokenizers=TOKENIZERS,
    special_ids=special_ids,
    exact_tokenizers=(SigLIPTokenizer,),
    takes_images=True,
    uses={
        "zero_shot": (CLIP,),
        "search": (CLIP,),
        "embed": (CLIP,),
        "embed_images": (CLIP,),
    },
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
    tokenizers=TOKENIZERS,
    special_ids=special_ids,
    exact_tokenizers=(SigLIPTokenizer,),
    uses={"embed": (CLIPTextTower,)},
    shrink=_shrink_text,
    formats=clip_hf.TEXT_FORMATS,
)
CLIP_IMAGE_FAMILY = Family(
    "clip_image",
    CLIPImageConfig,
    {"clip_image": CLIPImageTower},
    image_inputs,
    takes_images=True,
    uses={"embed_images": (CLIPImageTower,)},
    shrink=_shrink_image,
    formats=clip_hf.IMAGE_FORMATS,
)

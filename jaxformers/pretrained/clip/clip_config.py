"""`config.json` of Hugging Face's CLIP and SigLIP, read and written.

A configuration may leave out every field that has its default, so each default is stated here.
"""

from __future__ import annotations

import math
from typing import Any

from jaxformers.models.clip import CLIPConfig, CLIPImageConfig, CLIPTextConfig
from jaxformers.pretrained.mapping.config_fields import Fields, activation_name
from jaxformers.pretrained.vit.vit_config import image_size

CLIP, CLIP_TEXT, CLIP_VISION = "clip", "clip_text_model", "clip_vision_model"
SIGLIP, SIGLIP_TEXT, SIGLIP_VISION = "siglip", "siglip_text_model", "siglip_vision_model"
# transformers pools at the highest id where `eos_token_id` is this: OpenAI's first conversions
# state it by mistake.
LEGACY_EOS = 2
EOS = 49407
LOGIT_SCALE = 2.6592
TANH_GELU = "gelu_pytorch_tanh"  # the spelling of these models' files


def read_clip(fields: Fields) -> CLIPConfig:
    """The configuration of `CLIPModel`.

    Raises:
        WeightsError: a field that is malformed or asks for what is not supported.
    """
    projection = fields.size("projection_dim", 512)
    image = read_clip_image(_clip_tower_fields(fields, "vision_config"), projection)
    text = read_clip_text(_clip_tower_fields(fields, "text_config"), projection)
    start = number(fields, "logit_scale_init_value", LOGIT_SCALE)
    return fields.make(CLIPConfig, image=image, text=text, logit_scale=start)


def read_clip_image(fields: Fields, projection: int | None) -> CLIPImageConfig:
    """The image tower of `CLIPModel`, `CLIPVisionModel` or `CLIPVisionModelWithProjection`."""
    common = _read_tower(fields, 768, 12, 3072, "quick_gelu", 1e-5)
    return fields.make(
        CLIPImageConfig,
        image_size=square_side(fields),
        patch_size=fields.size("patch_size", 32),
        channels=fields.size("num_channels", 3),
        projection=projection,
        **common,
    )


def read_clip_text(fields: Fields, projection: int | None) -> CLIPTextConfig:
    """The text tower of `CLIPModel`, `CLIPTextModel` or `CLIPTextModelWithProjection`."""
    common = _read_tower(fields, 512, 8, 2048, "quick_gelu", 1e-5)
    vocab_size = fields.size("vocab_size", 49408)
    eos_id = fields.content.get("eos_token_id", EOS)
    if type(eos_id) is not int or not 0 <= eos_id < vocab_size:
        raise fields.refuse("eos_token_id", f"not an id below vocab_size {vocab_size}")
    legacy = eos_id == LEGACY_EOS
    return fields.make(
        CLIPTextConfig,
        vocab_size=vocab_size,
        context_length=fields.size("max_position_embeddings", 77),
        pooling="highest_id" if legacy else "eos",
        eos_id=vocab_size - 1 if legacy else eos_id,
        projection=projection,
        **common,
    )


def read_siglip(fields: Fields) -> CLIPConfig:
    """The configuration of `SiglipModel`.

    Raises:
        WeightsError: a field that is malformed or asks for what is not supported.
    """
    image = read_siglip_image(sub_fields(fields, "vision_config"))
    text = read_siglip_text(sub_fields(fields, "text_config"))
    return fields.make(
        CLIPConfig, image=image, text=text, logit_scale=math.log(10.0), logit_bias=-10.0
    )


def read_siglip_image(fields: Fields) -> CLIPImageConfig:
    """The image tower of `SiglipModel` or `SiglipVisionModel`."""
    fields.require("vision_use_head", True)
    common = _read_tower(fields, 768, 12, 3072, "gelu_pytorch_tanh", 1e-6)
    return fields.make(
        CLIPImageConfig,
        image_size=square_side(fields),
        patch_size=fields.size("patch_size", 16),
        channels=fields.size("num_channels", 3),
        class_token=False,
        pre_norm=False,
        patch_bias=True,
        pooling="attention",
        projection=None,
        init="xavier",
        **common,
    )


def read_siglip_text(fields: Fields) -> CLIPTextConfig:
    """The text tower of `SiglipModel` or `SiglipTextModel`."""
    common = _read_tower(fields, 768, 12, 3072, "gelu_pytorch_tanh", 1e-6)
    return fields.make(
        CLIPTextConfig,
        vocab_size=fields.size("vocab_size", 32000),
        context_length=fields.size("max_position_embeddings", 64),
        causal=False,
        pooling="last",
        eos_id=1,
        projection=fields.size("projection_size", common["width"]),
        projection_bias=True,
        init="xavier",
        **common,
    )


def _read_tower(
    fields: Fields, width: int, heads: int, feed_forward: int, activation: str, epsilon: float
) -> dict[str, Any]:
    """Fields that all towers share, with the defaults of one; all have 12 layers by default."""
    for name in ("attention_dropout", "dropout"):
        if fields.rate(name, 0.0):
            raise fields.refuse(name, "and these towers have no dropout: set it to 0")
    return dict(
        width=fields.size("hidden_size", width),
        heads=fields.size("num_attention_heads", heads),
        feed_forward=fields.size("intermediate_size", feed_forward),
        layers=fields.size("num_hidden_layers", 12),
        activation=fields.activation("hidden_act", activation),
        norm_epsilon=fields.epsilon("layer_norm_eps", epsilon),
    )


def _clip_tower_fields(fields: Fields, name: str) -> Fields:
    """The fields of a CLIP's tower.

    An old `*_config_dict` replaces all of `*_config`, as in transformers: what it leaves out has
    its default.
    """
    old_name = f"{name}_dict"
    return sub_fields(fields, name if fields.content.get(old_name) is None else old_name)


def sub_fields(fields: Fields, name: str) -> Fields:
    """The fields of an object in the configuration; none where it is absent.

    Raises:
        WeightsError: it is not an object.
    """
    value = fields.content.get(name)
    if value is not None and not isinstance(value, dict):
        raise fields.refuse(name, "not an object of fields")
    return Fields(value or {}, f"{fields.place}: {name}")


def square_side(fields: Fields) -> int:
    """`image_size`: the side of a square, or twice the side; 224 by default.

    Raises:
        WeightsError: it is neither.
    """
    size = image_size(fields, 224)
    if isinstance(size, int):
        return size
    if size[0] != size[1]:
        raise fields.refuse("image_size", "not the side of a square image")
    return size[0]


def number(fields: Fields, name: str, default: float) -> float:
    """The field as a finite number."""
    value = fields.content.get(name, default)
    if type(value) not in (int, float) or not abs(value) < 1e6:
        raise fields.refuse(name, "not a finite number")
    return float(value)


def write_clip(config: CLIPConfig) -> dict[str, Any]:
    """`config.json` of a CLIP that `unsupported_reason` passes."""
    return {
        "model_type": CLIP,
        "architectures": ["CLIPModel"],
        "dtype": "float32",
        "projection_dim": config.text.embedding,
        "logit_scale_init_value": config.logit_scale,
        "text_config": write_text(config.text, CLIP_TEXT),
        "vision_config": write_image(config.image, CLIP_VISION),
    }


def write_siglip(config: CLIPConfig) -> dict[str, Any]:
    """`config.json` of a SigLIP that `unsupported_reason` passes."""
    return {
        "model_type": SIGLIP,
        "architectures": ["SiglipModel"],
        "dtype": "float32",
        "text_config": write_text(config.text, SIGLIP_TEXT),
        "vision_config": write_image(config.image, SIGLIP_VISION),
    }


def write_image(config: CLIPImageConfig, model_type: str) -> dict[str, Any]:
    """The fields of an image tower."""
    projection = {"projection_dim": config.projection} if config.projection else {}
    return {
        "model_type": model_type,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.channels,
        **_write_tower(config),
        **projection,
    }


def write_text(config: CLIPTextConfig, model_type: str) -> dict[str, Any]:
    """The fields of a text tower."""
    if model_type.startswith(SIGLIP):
        pooling = {"projection_size": config.projection}
    else:
        eos_id = LEGACY_EOS if config.pooling == "highest_id" else config.eos_id
        pooling = {"eos_token_id": eos_id, "projection_dim": config.projection or 512}
    return {
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        **_write_tower(config),
        **pooling,
    }


def _write_tower(config: CLIPImageConfig | CLIPTextConfig) -> dict[str, Any]:
    tanh = config.activation == "gelu_tanh"
    return {
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "hidden_act": TANH_GELU if tanh else activation_name(config.activation),
        "layer_norm_eps": config.norm_epsilon,
        "attention_dropout": 0.0,
    }


def clip_reason(image: Any, text: CLIPTextConfig | None) -> str | None:
    """Why towers have no form in Hugging Face's CLIP; None when they have."""
    if not isinstance(image, CLIPImageConfig | None):
        return "its image tower is a ResNet"
    if image and (image.pooling != "class" or not image.pre_norm or image.patch_bias):
        return "its image tower is not CLIP's ViT"
    if text and (not text.causal or text.pooling == "last" or text.projection_bias):
        return "its text tower is not CLIP's"
    return None


def siglip_reason(image: Any, text: CLIPTextConfig | None) -> str | None:
    """Why towers have no form in Hugging Face's SigLIP; None when they have."""
    if not isinstance(image, CLIPImageConfig | None):
        return "its image tower is a ResNet"
    if image and (
        image.pooling != "attention"
        or image.pre_norm
        or image.class_token
        or image.projection
        or not image.patch_bias
    ):
        return "its image tower is not SigLIP's"
    if text and (text.causal or text.pooling != "last" or not text.projection_bias):
        return "its text tower is not SigLIP's"
    return None

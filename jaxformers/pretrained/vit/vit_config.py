"""`config.json` of Hugging Face's ViT and ViTMAE <-> `ViTConfig` and `MAEConfig`.

Fields that a file lacks take the defaults of transformers' configurations, as they do there.
"""

from __future__ import annotations

from typing import Any, get_args

from jaxformers.layers.position_resize import PositionResize
from jaxformers.models import MAEConfig, ViTConfig
from jaxformers.pretrained.image_config import head_fields
from jaxformers.pretrained.mapping.config_fields import (
    ACTIVATIONS,
    Fields,
    activation_name,
)

VIT, MAE = "vit", "vit_mae"
MAE_TABLE = "sincos2d_mae"
POSITION_RESIZE, DYNAMIC_SIZE = "position_resize", "dynamic_size"
LARGEST_SIDE = 1 << 13  # in pixels; beyond it a damaged file would only fill the memory

# Our field -> their field and its default.
SIZES = {
    "channels": ("num_channels", 3),
    "width": ("hidden_size", 768),
    "heads": ("num_attention_heads", 12),
    "feed_forward": ("intermediate_size", 3072),
    "layers": ("num_hidden_layers", 12),
}
RATES = {
    "dropout": ("hidden_dropout_prob", 0.0),
    "attention_dropout": ("attention_probs_dropout_prob", 0.0),
}
DECODER = {
    "decoder_width": ("decoder_hidden_size", 512),
    "decoder_heads": ("decoder_num_attention_heads", 16),
    "decoder_feed_forward": ("decoder_intermediate_size", 2048),
    "decoder_layers": ("decoder_num_hidden_layers", 8),
}


def read_encoder(fields: Fields, **shape_fields: Any) -> ViTConfig:
    """The encoder of a published folder; `shape_fields` are those that its tensors tell.

    Their dropout has no place inside the feed-forward layer, where ours has one too: a difference
    in training at a rate above 0 alone.

    Raises:
        WeightsError: a field that is malformed, or that asks for what is not supported.
    """
    fields.require("pooler_act", "tanh")
    values: dict[str, Any] = {ours: fields.size(*theirs) for ours, theirs in SIZES.items()}
    check_head_width(fields, values)
    values |= {ours: fields.rate(*theirs) for ours, theirs in RATES.items()}
    values |= {
        **read_size_fields(fields, "bicubic"),
        "patch_size": side(fields, "patch_size", 16),
        "qkv_bias": fields.flag("qkv_bias", True),
        "norm_epsilon": fields.epsilon("layer_norm_eps", 1e-12),
        "activation": fields.activation("hidden_act", "gelu"),
    }
    return fields.make(ViTConfig, **values | shape_fields)


def check_head_width(fields: Fields, sizes: dict[str, Any]) -> None:
    """Raises WeightsError where `head_dim` asks for heads that do not make up the width."""
    if "head_dim" in fields.content:
        fields.require("head_dim", sizes["width"] // sizes["heads"])


def read_size_fields(
    fields: Fields, position_resize: PositionResize, *, dynamic: bool = False
) -> dict[str, Any]:
    """The image size, and how positions for another one are made; the arguments are defaults.

    Raises:
        WeightsError: a field that is malformed.
    """
    return {
        "image_size": image_size(fields, 224),
        POSITION_RESIZE: fields.choice(POSITION_RESIZE, get_args(PositionResize), position_resize),
        DYNAMIC_SIZE: fields.flag(DYNAMIC_SIZE, dynamic),
    }


def write_size_fields(config: ViTConfig) -> dict[str, Any]:
    """The fields of `read_size_fields`; transformers has only the first, and keeps the others."""
    size = config.image_size
    return {
        "image_size": size if isinstance(size, int) else list(size),
        POSITION_RESIZE: config.position_resize,
        DYNAMIC_SIZE: config.dynamic_size,
    }


def image_size(fields: Fields, default: int) -> int | tuple[int, int]:
    """`image_size`: a side in pixels, or height and width.

    Raises:
        WeightsError: it is neither.
    """
    size = fields.content.get("image_size", default)
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    if not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in sides):
        raise fields.refuse(
            "image_size", f"not a side from 1 to {LARGEST_SIDE:,} pixels, nor a pair of them"
        )
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def side(fields: Fields, name: str, default: int) -> int:
    """A side in pixels, which may stand there twice."""
    size = fields.content.get(name, default)
    if isinstance(size, list) and len(size) == 2:
        if size[0] != size[1]:
            raise fields.refuse(name, "and only squares are supported")
        size = size[0]
    if type(size) is not int or not 0 < size <= LARGEST_SIDE:
        raise fields.refuse(name, f"not a side from 1 to {LARGEST_SIDE:,} pixels")
    return size


def read_mae(fields: Fields, encoder: ViTConfig) -> MAEConfig:
    """The whole of an MAE's folder.

    Raises:
        WeightsError: as for `read_encoder`.
    """
    values: dict[str, Any] = {ours: fields.size(*theirs) for ours, theirs in DECODER.items()}
    values |= {
        "mask_ratio": fields.rate("mask_ratio", 0.75),
        "norm_pix_loss": fields.flag("norm_pix_loss"),
    }
    return fields.make(MAEConfig, encoder=encoder, **values)


def inexpressible(config: ViTConfig) -> str | None:
    """What keeps an encoder from Hugging Face's form; None: nothing does.

    Stochastic depth and a head's first bias are of training, and are not written.
    """
    reasons = {
        "it has no class token": not config.class_token,
        "it pools by averaging": config.pooling == "average",
        f"it pools by {config.pooling!r}": config.pooling not in ("class", "average"),
        "it has a distillation token": config.distillation_token,
        "it has no norm after its blocks": not config.final_norm,
        "it has register tokens": config.register_tokens > 0,
        f"its prefix_positions are {config.prefix_positions!r}": config.prefix_rows != 1,
        "it norms the embedded tokens": config.embedding_norm,
        "it norms queries and keys": config.query_key_norm,
        "its feed-forward layer is gated": config.gated,
        "it has layer scale": config.layer_scale is not None,
        f"its positions are {config.positions!r}": config.positions not in ("learned", MAE_TABLE),
        "it has a norm after pooling": config.head_norm,
        "it has a layer before its head": bool(config.pre_logits and config.classes),
        "its attention has no biases": not config.attention_bias,
        "it has a convolutional stem": config.stem is not None,
        f"activation {config.activation!r} has no name there": config.activation
        not in ACTIVATIONS.values(),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def write_encoder(config: ViTConfig, model_type: str, architecture: str) -> dict[str, Any]:
    """`config.json` of an encoder that is not `inexpressible`."""
    numbers = {theirs: getattr(config, ours) for ours, (theirs, _) in (SIZES | RATES).items()}
    pooler = {"pooler_output_size": config.pre_logits} if config.pre_logits else {}
    return (
        {"model_type": model_type, "architectures": [architecture], "dtype": "float32"}
        | numbers
        | write_size_fields(config)
        | {
            "patch_size": config.patch_size,
            "hidden_act": activation_name(config.activation),
            "layer_norm_eps": config.norm_epsilon,
            "qkv_bias": config.qkv_bias,
        }
        | pooler
        | head_fields(config)
    )


def write_mae(config: MAEConfig) -> dict[str, Any]:
    """`config.json` of an MAE whose encoder is not `inexpressible`."""
    numbers = {theirs: getattr(config, ours) for ours, (theirs, _) in DECODER.items()}
    return (
        write_encoder(config.encoder, MAE, "ViTMAEForPreTraining")
        | numbers
        | {"mask_ratio": config.mask_ratio, "norm_pix_loss": config.norm_pix_loss}
    )

"""`config.json` of Unified-IO: the fields of the authors' `UnifiedIOConfig` and `VAEConfig`."""

from __future__ import annotations

from typing import Any

from jaxformers.models.unified_io import UnifiedIOConfig
from jaxformers.pretrained.mapping.config_fields import Fields
from jaxformers.pretrained.vqgan.vqgan_family import config_fields as vqgan_fields
from jaxformers.pretrained.vqgan.vqgan_family import read_config as read_vqgan

MODEL_TYPE, TOKENIZER = "unified_io", "vae"
SIZES = {  # our field: theirs, and its default there
    "vocab_size": ("vocab_size", 33_152),
    "image_vocab_size": ("image_vocab_size", 16_384),
    "patch_size": ("image_patch_size", 16),
    "width": ("emb_dim", 512),
    "heads": ("num_heads", 8),
    "head_width": ("head_dim", 64),
    "feed_forward": ("mlp_dim", 2048),
    "encoder_layers": ("num_encoder_layers", 6),
    "decoder_layers": ("num_decoder_layers", 6),
    "segments": ("num_seg_emb", 2),
    "encoder_image_length": ("encoder_max_image_length", 576),
    "encoder_text_length": ("encoder_max_text_length", 256),
    "decoder_image_length": ("decoder_max_image_length", 256),
    "decoder_text_length": ("decoder_max_text_length", 256),
}
FIXED = {
    "mlp_activations": ["gelu", "linear"],
    "logits_via_embedding": True,
}
"""Fields of which one value is published and supported."""


def read_config(fields: Fields) -> UnifiedIOConfig:
    """The configuration of a file.

    Raises:
        WeightsError: a field that is malformed or not supported.
    """
    for name, value in FIXED.items():
        fields.require(name, value)
    for name in ("visual_backbone_type", "visual_backbone_feature"):
        if fields.content.get(name) is not None:
            raise fields.refuse(name, "and no visual backbone is supported")
    values: dict[str, Any] = {
        ours: fields.size(theirs, default) for ours, (theirs, default) in SIZES.items()
    }
    shape = fields.content.get("default_image_size", [384, 384])
    if not isinstance(shape, list) or len(shape) != 2 or {type(n) for n in shape} != {int}:
        raise fields.refuse("default_image_size", "not [height, width] in pixels")
    tokenizer = fields.content.get(TOKENIZER, {})
    if not isinstance(tokenizer, dict):
        raise fields.refuse(TOKENIZER, "not an object of fields")
    vae = Fields(tokenizer, f"{fields.place}: {TOKENIZER}")
    vae.require("double_z", False)
    values |= dict(image_rows=shape[0], image_columns=shape[1])
    dropout = fields.rate("dropout_rate", 0.0)
    return fields.make(UnifiedIOConfig, dropout=dropout, image_tokenizer=read_vqgan(vae), **values)


def write_config(config: UnifiedIOConfig) -> dict[str, Any]:
    """The file's fields of a configuration with an image tokenizer."""
    sizes = {theirs: getattr(config, ours) for ours, (theirs, _) in SIZES.items()}
    return {
        "model_type": MODEL_TYPE,
        **sizes,
        **FIXED,
        "dropout_rate": config.dropout,
        "default_image_size": [config.image_rows, config.image_columns],
        TOKENIZER: vqgan_fields(config.image_tokenizer),
    }

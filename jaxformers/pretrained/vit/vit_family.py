"""ViT and MAE as families of the registry."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.models import MAE, MAEConfig, ViT, ViTConfig
from jaxformers.models.hybrid_stem import HybridStemConfig
from jaxformers.pretrained.family import (
    Family,
    FineTuning,
    HuggingFaceFormat,
    SingleFileFormat,
    TimmFormat,
    image_inputs,
)
from jaxformers.pretrained.image_config import IMAGE_HEAD_PATTERN, imagenet_preprocessing
from jaxformers.pretrained.vit import (
    deit_hf,
    dinov2_hf,
    vit_config,
    vit_google,
    vit_hf,
    vit_mae,
    vit_timm,
)

MAE_CROPPED_SIDE = 224  # up to this side MAE's images are cropped out of larger ones


def _google_preprocessing(config: ViTConfig) -> Preprocessing:
    """A direct resize and (x - 127.5) / 127.5."""
    return Preprocessing(config.image_size)


def _authors_preprocessing(config: ViTConfig | MAEConfig) -> Preprocessing | None:
    """MAE's or DINOv2's, where the form tells that a model is theirs; timm's and DeiT's differ."""
    if isinstance(config, ViTConfig) and config.dynamic_size and config.layer_scale is not None:
        return imagenet_preprocessing(224, 0.875, interpolation="bicubic")
    if isinstance(config, ViTConfig) and not config.head_norm and config.positions == "learned":
        return None
    side = config.image_size
    fraction = 0.875 if side <= MAE_CROPPED_SIDE else 1.0
    return imagenet_preprocessing(side, fraction, interpolation="bicubic")


def _shrink(config: ViTConfig) -> ViTConfig:
    changes = dict(patch_size=8, width=16, heads=4, feed_forward=32, layers=2)
    changes |= dict(pre_logits=16) if config.pre_logits else {}
    if config.stem:  # four pixels of the image to one of its feature map
        changes |= dict(stem=HybridStemConfig(depths=(1,), width=32), patch_size=2)
    return replace(config, image_size=24, **changes)


VIT = Family(
    "vit",
    ViTConfig,
    {"vit": ViT},
    image_inputs,
    takes_images=True,
    sized_encoder=lambda config: config,
    uses={"classify_images": (ViT,), "explain": (ViT,)},
    fine_tuning=FineTuning(
        head_pattern=IMAGE_HEAD_PATTERN,
        # None changes the weights below the head, or what they compute without training.
        free_fields=(
            "attention_dropout",
            "class_names",
            "classes",
            "distillation_head",
            "drop_path",
            "dropout",
            "dynamic_size",
            "head_batch_norm",
            "head_bias",
            "head_norm",
            "image_size",
            "pooling",
            "position_resize",
            "pre_logits",
            "problem_type",
        ),
    ),
    shrink=_shrink,
    formats=(
        HuggingFaceFormat(
            vit_config.VIT, "ViT", vit_hf.load, vit_hf.unsupported_reason, vit_hf.write
        ),
        HuggingFaceFormat(
            deit_hf.MODEL_TYPE, "DeiT", deit_hf.load, deit_hf.unsupported_reason, deit_hf.write
        ),
        *(
            HuggingFaceFormat(
                model_type,
                title,
                partial(dinov2_hf.load, model_type=model_type),
                partial(dinov2_hf.unsupported_reason, model_type=model_type),
                dinov2_hf.write,
            )
            for model_type, title in (
                (dinov2_hf.PLAIN, "DINOv2"),
                (dinov2_hf.REGISTERS, "DINOv2 with registers"),
            )
        ),
        TimmFormat(vit_timm.CLASSES, vit_timm.load_folder),
        SingleFileFormat(
            vit_google.recognises,
            vit_google.read_file_config,
            vit_google.load_file,
            _google_preprocessing,
        ),
        SingleFileFormat(
            vit_timm.recognises,
            vit_timm.read_file_config,
            vit_timm.load_file,
            _authors_preprocessing,
        ),
    ),
)
# Single files of an MAE have timm's names, which the family above reads.
MASKED_AUTOENCODER = Family(
    "mae",
    MAEConfig,
    {"mae": MAE},
    image_inputs,
    takes_images=True,
    sized_encoder=lambda config: config.encoder,
    formats=(
        HuggingFaceFormat(
            vit_config.MAE, "ViTMAE", vit_mae.load, vit_mae.unsupported_reason, vit_mae.write
        ),
    ),
)

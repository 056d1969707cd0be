"""Names of ViT's and MAE's tensors at Hugging Face, old and new, and in timm's and MAE's files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxformers.pretrained.mapping.name_map import Entry
from jaxformers.pretrained.mapping.torch_names import linear, norm
from jaxformers.pretrained.mapping.transforms import Convolution, Lead, Shape

TABLE = "position_embedding/table"
DECODER_TABLE = "decoder_position_embedding/table"
# transformers 5 turns "layers." into "encoder.layer." when it saves, which mangles the first.
DECODER_LAYERS = "decoder.decoder_layers.{layer}", "decoder.decoder_encoder.layer.{layer}"


@dataclass(frozen=True)
class Fused:
    """One tensor `[3 * out, in]`, or the bias `[3 * out]`, of our query, key and value."""

    def their_shape(self, *ours: Shape) -> Shape:
        """Query, key and value one below another."""
        kernel = len(ours[0]) == 3
        outputs = len(ours) * math.prod(ours[0][1:] if kernel else ours[0])
        return (outputs, ours[0][0]) if kernel else (outputs,)

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Parted, transposed, split into heads."""
        matrices = np.split(theirs, len(ours))
        return tuple(matrix.T.reshape(shape) for matrix, shape in zip(matrices, ours, strict=True))

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Joined again."""
        flat = (x.reshape(x.shape[0], -1).T if x.ndim == 3 else x.reshape(-1) for x in ours)
        return np.concatenate(list(flat))


def fused(theirs: str, ours: str) -> tuple[Entry, ...]:
    """timm's `qkv` and our query, key and value."""
    names = [f"{ours}/{projection}" for projection in ("query", "key", "value")]
    return (
        Entry(f"{theirs}.weight", tuple(f"{name}/kernel" for name in names), Fused()),
        Entry(f"{theirs}.bias", tuple(f"{name}/bias" for name in names), Fused()),
    )


def patches(theirs: str) -> tuple[Entry, ...]:
    """The patch convolution."""
    return (
        Entry(f"{theirs}.weight", "patch_embedding/kernel", Convolution()),
        Entry(f"{theirs}.bias", "patch_embedding/bias"),
    )


def token(theirs: str, ours: str) -> Entry:
    """`[1, 1, D]` there."""
    return Entry(theirs, ours, Lead(2))


def table(theirs: str, ours: str) -> Entry:
    """Positions, `[1, L, D]` there."""
    return Entry(theirs, ours, Lead(1))


def _any(
    entries: Callable[..., tuple[Entry, ...]], theirs: Sequence[str], *ours: Any
) -> tuple[Entry, ...]:
    """The entries of a layer or norm that has one of several names; the first is written."""
    spellings = (entries(name, *ours) for name in dict.fromkeys(theirs))
    return tuple(
        replace(same[0], names=tuple(entry.names for entry in same))
        for same in zip(*spellings, strict=True)
    )


def blocks(old: Sequence[str], new: str, ours: str) -> tuple[Entry, ...]:
    """Hugging Face's layers: `old` are their names in published files, `new` in transformers 5."""
    attention, feed = f"{ours}/self_attention", f"{ours}/feed_forward"

    def both(old_part: str, new_part: str) -> tuple[str, ...]:
        return *(f"{entry}.{old_part}" for entry in old), f"{new}.{new_part}"

    sublayers = [
        entry
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v"))
        for entry in _any(
            linear,
            both(f"attention.attention.{name}", f"attention.{letter}_proj"),
            f"{attention}/{name}",
        )
    ]
    return (
        *sublayers,
        *_any(linear, both("attention.output.dense", "attention.o_proj"), f"{attention}/out", 2),
        *_any(linear, both("intermediate.dense", "mlp.fc1"), f"{feed}/up"),
        *_any(linear, both("output.dense", "mlp.fc2"), f"{feed}/down"),
        *_any(norm, both("layernorm_before", "layernorm_before"), f"{attention}_norm"),
        *_any(norm, both("layernorm_after", "layernorm_after"), f"{feed}_norm"),
    )


def timm_blocks(theirs: str, ours: str) -> tuple[Entry, ...]:
    """The layers of timm, which MAE's own code has too."""
    attention, feed = f"{ours}/self_attention", f"{ours}/feed_forward"
    return (
        *fused(f"{theirs}.attn.qkv", attention),
        *linear(f"{theirs}.attn.proj", f"{attention}/out", 2),
        *linear(f"{theirs}.mlp.fc1", f"{feed}/up"),
        *linear(f"{theirs}.mlp.fc2", f"{feed}/down"),
        *norm(f"{theirs}.norm1", f"{attention}_norm"),
        *norm(f"{theirs}.norm2", f"{feed}_norm"),
    )


ENCODER: tuple[Entry, ...] = (
    token("embeddings.cls_token", "class_token"),
    table("embeddings.position_embeddings", TABLE),
    *patches("embeddings.patch_embeddings.projection"),
    *blocks(("encoder.layer.{layer}",), "layers.{layer}", "encoder/blocks"),
    *norm("layernorm", "encoder/norm"),
    *linear("pooler.dense", "pre_logits"),
)
HEAD: tuple[Entry, ...] = linear("classifier", "head")
DECODER: tuple[Entry, ...] = (
    token("decoder.mask_token", "mask_token"),
    table("decoder.decoder_pos_embed", DECODER_TABLE),
    *linear("decoder.decoder_embed", "decoder_embedding"),
    *blocks(DECODER_LAYERS, DECODER_LAYERS[0], "decoder/blocks"),
    *norm("decoder.decoder_norm", "decoder/norm"),
    *linear("decoder.decoder_pred", "decoder_prediction"),
)
TIMM: tuple[Entry, ...] = (
    token("cls_token", "class_token"),
    table("pos_embed", TABLE),
    *patches("patch_embed.proj"),
    *timm_blocks("blocks.{layer}", "encoder/blocks"),
    *norm("norm", "encoder/norm"),
    *norm("fc_norm", "head_norm"),
    *linear("pre_logits.fc", "pre_logits"),
    *linear("head", "head"),
    token("mask_token", "mask_token"),
    table("decoder_pos_embed", DECODER_TABLE),
    *linear("decoder_embed", "decoder_embedding"),
    *timm_blocks("decoder_blocks.{layer}", "decoder/blocks"),
    *norm("decoder_norm", "decoder/norm"),
    *linear("decoder_pred", "decoder_prediction"),
)

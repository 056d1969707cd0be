"""Names of ViT's and MAE's tensors at Hugging Face, old and new, and in timm's and MAE's files."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from jaxformers.pretrained.names import Entry
from jaxformers.pretrained.torch_names import linear, norm
from jaxformers.pretrained.transforms import Convolution, Lead, Shape

TABLE = "position_embedding/table"
DECODER_TABLE = "decoder_position_embedding/table"


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
        parts = np.split(theirs, len(ours))
        return tuple(part.T.reshape(shape) for part, shape in zip(parts, ours, strict=True))

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Joined again."""
        flat = (x.reshape(x.shape[0], -1).T if x.ndim == 3 else x.reshape(-1) for x in ours)
        return np.concatenate(list(flat))


def fused(theirs: str, ours: str) -> tuple[Entry, ...]:
    """timm's `qkv` and our query, key and value."""
    names = [f"{ours}/{part}" for part in ("query", "key", "value")]
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


def _either(old: str, new: str, ours: str, inputs: int = 1) -> tuple[Entry, ...]:
    """A dense layer by the name of published files or by that of transformers 5."""
    return tuple(
        Entry((a.names, b.names), a.paths, a.transform)
        for a, b in zip(linear(old, ours, inputs), linear(new, ours, inputs), strict=True)
    )


def _norms(old: str, new: str, ours: str) -> tuple[Entry, ...]:
    found = zip(norm(old, ours), norm(new, ours), strict=True)
    return tuple(a if old == new else Entry((a.names, b.names), a.paths) for a, b in found)


def blocks(old: str, new: str, ours: str) -> tuple[Entry, ...]:
    """Hugging Face's layers: `old` is their name in published files, `new` in transformers 5."""
    attention, feed = f"{ours}/self_attention", f"{ours}/feed_forward"
    parts = [
        each
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v"))
        for each in _either(
            f"{old}.attention.attention.{name}",
            f"{new}.attention.{letter}_proj",
            f"{attention}/{name}",
        )
    ]
    return (
        *parts,
        *_either(f"{old}.attention.output.dense", f"{new}.attention.o_proj", f"{attention}/out", 2),
        *_either(f"{old}.intermediate.dense", f"{new}.mlp.fc1", f"{feed}/up"),
        *_either(f"{old}.output.dense", f"{new}.mlp.fc2", f"{feed}/down"),
        *_norms(f"{old}.layernorm_before", f"{new}.layernorm_before", f"{attention}_norm"),
        *_norms(f"{old}.layernorm_after", f"{new}.layernorm_after", f"{feed}_norm"),
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
    *blocks("encoder.layer.{layer}", "layers.{layer}", "encoder/blocks"),
    *norm("layernorm", "encoder/norm"),
    *linear("pooler.dense", "pre_logits"),
)
HEAD: tuple[Entry, ...] = linear("classifier", "head")
DECODER: tuple[Entry, ...] = (
    token("decoder.mask_token", "mask_token"),
    table("decoder.decoder_pos_embed", DECODER_TABLE),
    *linear("decoder.decoder_embed", "decoder_embedding"),
    *blocks("decoder.decoder_layers.{layer}", "decoder.decoder_layers.{layer}", "decoder/blocks"),
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

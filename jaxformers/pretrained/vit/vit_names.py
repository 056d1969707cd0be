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
class FusedKernels:
    """One `weight [n * out, in]` of n of our kernels `[in, *outputs]`."""

    def their_shape(self, *ours: Shape) -> Shape:
        """Shape `[n * out, in]`."""
        return len(ours) * math.prod(ours[0][1:]), ours[0][0]

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Splits the rows, transposes, and reshapes the outputs."""
        matrices = np.split(theirs, len(ours))
        return tuple(matrix.T.reshape(shape) for matrix, shape in zip(matrices, ours, strict=True))

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Joins our arrays along the outputs."""
        return np.concatenate([kernel.reshape(kernel.shape[0], -1).T for kernel in ours])


@dataclass(frozen=True)
class FusedBiases:
    """One `bias [n * out]` of n of our biases `[*outputs]`."""

    def their_shape(self, *ours: Shape) -> Shape:
        """Shape `[n * out]`."""
        return (len(ours) * math.prod(ours[0]),)

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Splits the vector and reshapes its parts."""
        biases = np.split(theirs, len(ours))
        return tuple(bias.reshape(shape) for bias, shape in zip(biases, ours, strict=True))

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Joins our arrays along the outputs."""
        return np.concatenate([bias.reshape(-1) for bias in ours])


def fused(theirs: str, *ours: str) -> tuple[Entry, ...]:
    """One linear layer of theirs for several of ours, such as `qkv` for query, key and value."""
    return (
        Entry(f"{theirs}.weight", tuple(f"{name}/kernel" for name in ours), FusedKernels()),
        Entry(f"{theirs}.bias", tuple(f"{name}/bias" for name in ours), FusedBiases()),
    )


def patches(theirs: str) -> tuple[Entry, ...]:
    """The names of the patch embedding's convolution."""
    return (
        Entry(f"{theirs}.weight", "patch_embedding/kernel", Convolution()),
        Entry(f"{theirs}.bias", "patch_embedding/bias"),
    )


def token(theirs: str, ours: str) -> Entry:
    """A token, of shape `[1, 1, D]` in the file."""
    return Entry(theirs, ours, Lead(2))


def table(theirs: str, ours: str) -> Entry:
    """Positions, `[1, L, D]` there."""
    return Entry(theirs, ours, Lead(1))


def any_spelling(
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
        for entry in any_spelling(
            linear,
            both(f"attention.attention.{name}", f"attention.{letter}_proj"),
            f"{attention}/{name}",
        )
    ]
    return (
        *sublayers,
        *any_spelling(
            linear, both("attention.output.dense", "attention.o_proj"), f"{attention}/out", 2
        ),
        *any_spelling(linear, both("intermediate.dense", "mlp.fc1"), f"{feed}/up"),
        *any_spelling(linear, both("output.dense", "mlp.fc2"), f"{feed}/down"),
        *any_spelling(norm, both("layernorm_before", "layernorm_before"), f"{attention}_norm"),
        *any_spelling(norm, both("layernorm_after", "layernorm_after"), f"{feed}_norm"),
    )


def timm_blocks(theirs: str, ours: str, gated: bool = False) -> tuple[Entry, ...]:
    """The layers of timm, which MAE's own code has too; `gated`: with its `SwiGLUPacked`."""
    attention, feed = f"{ours}/self_attention", f"{ours}/feed_forward"
    # One tensor packs silu's argument above its factor; w12 and w3 are DINOv2's authors' names.
    packed = f"{theirs}.mlp.fc1", f"{theirs}.mlp.w12"
    up = any_spelling(fused, packed, f"{feed}/gate", f"{feed}/up")
    return (
        *fused(
            f"{theirs}.attn.qkv", *(f"{attention}/{name}" for name in ("query", "key", "value"))
        ),
        *norm(f"{theirs}.attn.q_norm", f"{attention}/query_norm"),
        *norm(f"{theirs}.attn.k_norm", f"{attention}/key_norm"),
        *linear(f"{theirs}.attn.proj", f"{attention}/out", 2),
        *(up if gated else linear(f"{theirs}.mlp.fc1", f"{feed}/up")),
        *any_spelling(linear, (f"{theirs}.mlp.fc2", f"{theirs}.mlp.w3"), f"{feed}/down"),
        *norm(f"{theirs}.norm1", f"{attention}_norm"),
        *norm(f"{theirs}.norm2", f"{feed}_norm"),
        # The second spelling is that of DeiT III's authors.
        Entry((f"{theirs}.ls1.gamma", f"{theirs}.gamma_1"), f"{attention}_layer_scale"),
        Entry((f"{theirs}.ls2.gamma", f"{theirs}.gamma_2"), f"{feed}_layer_scale"),
    )


def attention_pooling(theirs: str, ours: str) -> tuple[Entry, ...]:
    """timm's `AttentionPoolLatent`."""
    attention, feed = f"{ours}/attention", f"{ours}/feed_forward"
    return (
        Entry(f"{theirs}.latent", f"{ours}/probe", Lead(1)),
        *linear(f"{theirs}.q", f"{attention}/query"),
        *fused(f"{theirs}.kv", f"{attention}/key", f"{attention}/value"),
        *linear(f"{theirs}.proj", f"{attention}/out", 2),
        *norm(f"{theirs}.norm", f"{ours}/norm"),
        *linear(f"{theirs}.mlp.fc1", f"{feed}/up"),
        *linear(f"{theirs}.mlp.fc2", f"{feed}/down"),
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


def timm(gated: bool = False) -> tuple[Entry, ...]:
    """All tensors of timm's ViTs and of MAE's authors' files."""
    return (
        token("cls_token", "class_token"),
        token("dist_token", "distillation_token"),
        # The second spelling is that of DINOv2's authors.
        Entry(("reg_token", "register_tokens"), "register_tokens", Lead(1)),
        table("pos_embed", TABLE),
        *patches("patch_embed.proj"),
        *norm("norm_pre", "embedding_norm"),
        *timm_blocks("blocks.{layer}", "encoder/blocks", gated),
        *norm("norm", "encoder/norm"),
        *norm("fc_norm", "head_norm"),
        *attention_pooling("attn_pool", "attention_pooling"),
        *linear("pre_logits.fc", "pre_logits"),
        *linear("head", "head"),
        *linear("head_dist", "distillation_head"),
        token("mask_token", "mask_token"),
        table("decoder_pos_embed", DECODER_TABLE),
        *linear("decoder_embed", "decoder_embedding"),
        *timm_blocks("decoder_blocks.{layer}", "decoder/blocks", gated),
        *norm("decoder_norm", "decoder/norm"),
        *linear("decoder_pred", "decoder_prediction"),
    )

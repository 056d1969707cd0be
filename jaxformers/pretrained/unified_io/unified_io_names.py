"""Names of Unified-IO's parameters in the authors' files.

Kernels are stored as matrices, heads joined; each layer has tensors of its own; text and image
codes share one table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxformers.models.unified_io import UnifiedIOConfig
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.transforms import Joined, Shape
from jaxformers.pretrained.vqgan.vqgan_names import unified_io_entries


@dataclass(frozen=True)
class TextAndCodes:
    """One table `[V + K, D]` of theirs, our tables of text `[V, D]` and of codes `[K, D]`."""

    def their_shape(self, *ours: Shape) -> Shape:
        """`[V + K, D]`."""
        return ours[0][0] + ours[1][0], ours[0][1]

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Text first."""
        return theirs[: ours[0][0]], theirs[ours[0][0] :]

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Both, one below the other."""
        return np.concatenate(ours)


def _norm(theirs: str, ours: str) -> Entry:
    return Entry(f"{theirs}/scale", f"{ours}/scale")


def _kernel(theirs: str, ours: str, inputs: int = 1) -> Entry:
    return Entry(f"{theirs}/kernel", f"{ours}/kernel", Joined(inputs))


def _bias(theirs: str, ours: str) -> tuple[Entry, ...]:
    """The two projections of positions."""
    return tuple(_kernel(f"{theirs}_{q}_linear", f"{ours}/{name}") for q, name in QUERY_KEY)


def _attention(theirs: str, ours: str) -> tuple[Entry, ...]:
    inputs = tuple(_kernel(f"{theirs}/{x}", f"{ours}/{x}") for x in ("query", "key", "value"))
    return (*inputs, _kernel(f"{theirs}/out", f"{ours}/out", 2))


def _feed_forward(theirs: str, ours: str) -> tuple[Entry, ...]:
    names = {"wi_0": "gate", "wi_1": "up", "wo": "down"}
    return tuple(_kernel(f"{theirs}/{name}", f"{ours}/{names[name]}") for name in names)


def _stack(side: str, attentions: dict[str, str], norms: dict[str, str]) -> tuple[Entry, ...]:
    """A stack's blocks and its final norm; names by ours."""
    theirs, ours = f"{side}/layers_{{layer}}", f"params/{side}/stack/blocks"
    blocks = [e for k, v in attentions.items() for e in _attention(f"{theirs}/{v}", f"{ours}/{k}")]
    blocks += [_norm(f"{theirs}/{v}_layer_norm", f"{ours}/{k}_norm") for k, v in norms.items()]
    blocks += _feed_forward(f"{theirs}/mlp", f"{ours}/feed_forward")
    return (*blocks, _norm(f"{side}/{side}_norm", f"params/{side}/stack/norm"))


def _tables(side: str, segments: str) -> tuple[Entry, ...]:
    """Positions, segments and relative biases."""
    ours = f"params/{side}"
    return (
        Entry(f"{side}/position_embedding/embedding", f"{ours}/position_embedding/table"),
        Entry(f"{side}/{segments}/embedding", f"{ours}/type_embedding/table"),
        Entry(f"{side}/relpos_bias/rel_embedding", f"{ours}/relative_bias/text"),
        Entry(f"{side}/relpos_bias/image_rel_embedding", f"{ours}/relative_bias/image"),
        _norm(f"{side}/pe_pre_ln", f"{ours}/position_norm"),
    )


QUERY_KEY = (("q", "query"), ("k", "key"))
ENCODER = (
    *_tables("encoder", "segment_embedding"),
    _kernel("encoder/image_projection", "params/encoder/patch_projection"),
    _norm("encoder/txt_emb_pre_ln", "params/encoder/text_norm"),
    _norm("encoder/img_emb_pre_ln", "params/encoder/image_norm"),
    *_bias("encoder/position", "params/encoder/position_bias"),
    *_stack(
        "encoder",
        {"self_attention": "attention"},
        {"self_attention": "pre_attention", "feed_forward": "pre_mlp"},
    ),
)
DECODER = (
    *_tables("decoder", "segments_embedding"),
    _norm("decoder/pre_ln", "params/decoder/input_norm"),
    *_bias("decoder/self_position", "params/decoder/self_position_bias"),
    *_bias("decoder/cross_position", "params/decoder/cross_position_bias"),
    *_stack(
        "decoder",
        {"self_attention": "self_attention", "cross_attention": "encoder_decoder_attention"},
        {
            "self_attention": "pre_self_attention",
            "cross_attention": "pre_cross_attention",
            "feed_forward": "pre_mlp",
        },
    ),
)
TOKENS = Entry(
    "token_embedder/embedding",
    ("params/tokens/text_embedding/table", "params/tokens/code_embedding/table"),
    TextAndCodes(),
)


def unified_io_map(config: UnifiedIOConfig) -> NameMap:
    """The names of a file; `discrete_vae` is the image tokenizer, where the model has one."""
    tokenizer = config.image_tokenizer
    entries = () if tokenizer is None else unified_io_entries(tokenizer)
    inside = tuple(e.under("discrete_vae/", "params/image_tokenizer/") for e in entries)
    return NameMap((TOKENS, *ENCODER, *DECODER, *inside))

"""ViT and MAE by timm's names, which those of MAE's, DeiT's and DINOv2's authors are too.

A folder's `config.json` names the architecture and its arguments. A single file says nothing but
names and shapes: `read_file_config` tells from them what they tell, and assumes the rest as its
authors have it (`docs/published_weights.md` lists what).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
from etils import epath

from jaxformers.arrays import height_width
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers import Execution
from jaxformers.models import MAE, MAEConfig, ViT, ViTConfig
from jaxformers.pretrained.formats.safetensors_folder import Tensors
from jaxformers.pretrained.image_config import head_classes
from jaxformers.pretrained.mapping.name_map import NameMap, TensorSource
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
)
from jaxformers.pretrained.timm.timm_args import TimmArgs
from jaxformers.pretrained.vit.vit_mae import FIXED, is_fixed
from jaxformers.pretrained.vit.vit_names import timm

CLASSES = ("VisionTransformer", "VisionTransformerDistilled")
MASK_TOKEN = "mask_token"
KERNEL, TABLE, DECODER_TABLE = "patch_embed.proj.weight", "pos_embed", "decoder_pos_embed"
FIRST_UP = "blocks.0.mlp.fc1.weight", "blocks.0.mlp.w12.weight"
FIRST_DOWN = "blocks.0.mlp.fc2.weight", "blocks.0.mlp.w3.weight"
# A width does not tell its heads: timm's and MAE's models have heads of 64 but for the largest.
HEAD_WIDTH, HEADS = 64, {1152: 16, 1280: 16, 1408: 16, 1664: 16}
DECODER_HEAD_WIDTH = 32
SWIGLU_PACKED = "GluMlp(act_layer=SiLU, gate_last=False)"  # timm's name of that is `SwiGLUPacked`
LAYER_SCALE = 1e-5  # where a file has factors, whose initial value it does not tell
# Arguments with one supported value, or several that mean the same; the first is timm's default.
ONLY: dict[str, tuple[Any, ...]] = {
    "attn_layer": ("attn", "", "Attention"),
    "block_fn": ("Block",),
    "embed_layer": ("PatchEmbed",),
    "mlp_layer": ("Mlp", SWIGLU_PACKED),
    "pool_include_prefix": (False,),
    "pos_embed": ("learn", "", "none"),
    "proj_bias": (True,),
    "scale_attn_norm": (False,),
    "scale_mlp_norm": (False,),
}
UNDERSTOOD = {
    *ONLY,
    "act_layer",
    "class_token",
    "depth",
    "dynamic_img_size",
    "embed_dim",
    "final_norm",
    "fc_norm",
    "global_pool",
    "img_size",
    "in_chans",
    "init_values",
    "mlp_ratio",
    "no_embed_class",
    "norm_layer",
    "num_classes",
    "num_heads",
    "patch_size",
    "pre_norm",
    "qk_norm",
    "qkv_bias",
    "reg_tokens",
}


def name_map(fixed: bool, gated: bool = False, ignored: tuple[str, ...] = ()) -> NameMap:
    """The names.

    Args:
        fixed: whether the tables of positions are MAE's sines, which we do not keep.
        gated: whether the feed-forward layers are timm's `SwiGLUPacked`.
        ignored: further tensors that we do not keep.
    """
    entries = tuple(entry.under("", "params/") for entry in timm(gated))
    tables = (TABLE, DECODER_TABLE) if fixed else ()
    return NameMap(entries, ignored=(*tables, *ignored))


def load_folder(
    folder: epath.Path, args: TimmArgs, execution: Execution = DEFAULT_EXECUTION
) -> tuple[ViT, dict[str, Any]]:
    """The model in a folder of timm's, as its architecture and arguments say.

    Raises:
        WeightsError: an argument that is not supported, or tensors that do not fit; one line.
    """
    source = Tensors(folder)
    try:
        config = config_from_args(args, source)
    except ConfigError as error:
        raise WeightsError(f"{args.place}: {error}") from None
    return read_model(
        ViT(config, execution), name_map(config.positions == FIXED, config.gated), source
    )


def config_from_args(args: TimmArgs, source: TensorSource) -> ViTConfig:
    """The configuration of timm's model with these arguments.

    The tensors say how many classes the head has, and whether the final norm is before or after
    pooling: timm names the two differently.

    Raises:
        ConfigError, WeightsError: arguments that are not supported, or do not suit each other.
    """
    args.check_names(UNDERSTOOD)
    for name, values in ONLY.items():
        args.only(name, *values)
    shapes, distilled = source.shapes, args.model_class == "VisionTransformerDistilled"
    width, patch = args.size("embed_dim", 768), args.sides("patch_size", 16)
    if patch[0] != patch[1]:
        raise args.refuse("patch_size", "and only square patches are supported")
    gated = args.get("mlp_layer", "Mlp") == SWIGLU_PACKED
    hidden = int(width * args.number("mlp_ratio", 4.0))
    classes = head_classes(source, "head.weight")
    registers = args.count("reg_tokens")
    token = args.flag("class_token", True)
    config = ViTConfig(
        image_size=args.image_size(),
        patch_size=patch[0],
        channels=args.size("in_chans", args.input_channels()),
        width=width,
        heads=args.size("num_heads", 12),
        feed_forward=hidden // 2 if gated else hidden,
        layers=args.size("depth", 12),
        class_token=token,
        distillation_token=distilled,
        distillation_head=distilled,
        register_tokens=registers,
        pooling=args.pooling("token", ("token", "avg", "max", "avgmax", "map")),
        positions="learned" if args.get("pos_embed", "learn") == "learn" else "none",
        prefix_positions="none" if args.flag("no_embed_class", False) else "all",
        position_resize="bilinear" if "flexi" in args.architecture else "bicubic_antialiased",
        dynamic_size=args.flag("dynamic_img_size", False),
        embedding_norm=args.flag("pre_norm", False),
        final_norm=args.flag("final_norm", True),
        head_norm="fc_norm.weight" in shapes,
        classes=classes,
        class_names=args.class_names(classes),
        activation=args.activation("gelu"),
        norm_epsilon=args.layer_norm_epsilon(),
        qkv_bias=args.flag("qkv_bias", True),
        query_key_norm=args.flag("qk_norm", False),
        gated=gated,
        layer_scale=args.number("init_values", None),
    )
    _check_table(args, config, shapes)
    if not classes and is_fixed(source, TABLE, config, width):
        config = replace(config, positions=FIXED)
    return config


def _check_table(args: TimmArgs, config: ViTConfig, shapes: Mapping[str, Shape]) -> None:
    """Raises WeightsError where the positions in the file are of another image size."""
    rows = shapes[TABLE][1] if len(shapes.get(TABLE, ())) == 3 else None
    expected = config.prefix_rows + config.num_patches
    if config.positions == "learned" and rows is not None and rows != expected:
        height, width = height_width(config.image_size)
        raise WeightsError(
            f"{args.place}: its images are {height} x {width} pixels, for which {TABLE} has "
            f"{expected} rows and not {rows}: set input_size in pretrained_cfg, or img_size in "
            "model_args, to the size of the weights"
        )


def recognises(shapes: Mapping[str, Shape]) -> bool:
    """Whether a single file's tensors are a ViT's or an MAE's by timm's names."""
    return {KERNEL, "blocks.0.attn.qkv.weight"} <= shapes.keys()


def load_file(
    source: TensorSource, execution: Execution = DEFAULT_EXECUTION
) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a file, an `MAE` if it has a decoder; GELU is exact, epsilon 1e-6.

    Raises:
        WeightsError: tensors that no ViT of ours has; one line.
    """
    config = read_file_config(source)
    has_decoder = isinstance(config, MAEConfig)
    model = MAE(config, execution) if has_decoder else ViT(config, execution)
    encoder = config.encoder if has_decoder else config
    ignored = (MASK_TOKEN,) if _is_dinov2(source.shapes) else ()
    return read_model(model, name_map(encoder.positions == FIXED, encoder.gated, ignored), source)


def read_file_config(source: TensorSource) -> ViTConfig | MAEConfig:
    """The configuration that a file's shapes and tables of positions tell.

    Raises:
        WeightsError: tensors that no ViT of ours has; one line.
    """
    if "norm_pre.weight" in source.shapes:
        raise WeightsError(
            f"{source.place}: norm_pre is CLIP's, whose activation and epsilon a file does not "
            "tell: give timm's folder, whose config.json does"
        )
    try:
        encoder = _encoder(source)
        return _mae(encoder, source.shapes) if "decoder_embed.weight" in source.shapes else encoder
    except ConfigError as error:
        raise WeightsError(f"{source.place}: {error}") from None
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise WeightsError(f"{source.place}: its tensors make no ViT") from None


def _encoder(source: TensorSource) -> ViTConfig:
    shapes = source.shapes
    width, channels, patch, _ = shapes[KERNEL]
    token, head = "cls_token" in shapes, "head.weight" in shapes
    registers = shapes.get("reg_token", shapes.get("register_tokens", (1, 0)))[1]
    distilled = "dist_token" in shapes
    grid, prefix_positions = _grid(shapes[TABLE][1], int(token), token + distilled + registers)
    averages, dinov2 = "fc_norm.weight" in shapes, _is_dinov2(shapes)
    hidden, inner = _first(shapes, FIRST_UP)[0], _first(shapes, FIRST_DOWN)[1]
    gated = hidden == 2 * inner
    resize = "bicubic" if averages else "bicubic_antialiased"
    fields: dict[str, Any] = dict(
        image_size=grid * patch,
        patch_size=patch,
        channels=channels,
        width=width,
        heads=_heads(width, shapes),
        feed_forward=inner,
        layers=_count(shapes, "blocks"),
        class_token=token,
        distillation_token=distilled,
        distillation_head=distilled,
        register_tokens=registers,
        pooling="average" if averages or not token else "class",
        prefix_positions=prefix_positions,
        position_resize="bicubic_offset" if dinov2 and not registers else resize,
        dynamic_size=dinov2,
        head_norm=averages,
        pre_logits=shapes["pre_logits.fc.bias"][0] if "pre_logits.fc.bias" in shapes else None,
        classes=shapes["head.weight"][0] if head else 0,
        activation="silu" if gated else "gelu",
        qkv_bias="blocks.0.attn.qkv.bias" in shapes,
        query_key_norm="blocks.0.attn.q_norm.weight" in shapes,
        gated=gated,
        layer_scale=LAYER_SCALE if _has_layer_scale(shapes) else None,
    )
    if head or not is_fixed(source, TABLE, ViTConfig(**fields), width):
        return ViTConfig(**fields)
    return ViTConfig(**fields | dict(positions=FIXED, position_resize="bicubic"))


def _is_dinov2(shapes: Mapping[str, Shape]) -> bool:
    """Whether a file is of DINOv2's authors, whose mask token is `[1, D]`."""
    return len(shapes.get(MASK_TOKEN, ())) == 2


def _first(shapes: Mapping[str, Shape], names: tuple[str, ...]) -> Shape:
    """The shape of the first of the names that is there; raises KeyError."""
    return shapes[next((name for name in names if name in shapes), names[0])]


def _heads(width: int, shapes: Mapping[str, Shape]) -> int:
    """Heads of a width: by the width of the query norm, or else by timm's and MAE's habit."""
    if "blocks.0.attn.q_norm.weight" in shapes:
        return width // shapes["blocks.0.attn.q_norm.weight"][0]
    if width % HEAD_WIDTH:
        raise ConfigError(f"a width of {width} does not tell how many heads it has")
    return HEADS.get(width, width // HEAD_WIDTH)


def _grid(rows: int, token: int, tokens: int) -> tuple[int, str]:
    """Side of the square grid in a table of so many rows, and `ViTConfig.prefix_positions`."""
    for prefix_rows, name in ((tokens, "all"), (token, "class"), (0, "none")):
        side = math.isqrt(rows - prefix_rows)
        if side**2 == rows - prefix_rows:
            return side, name
    raise ConfigError(f"{TABLE} of {rows} rows holds no square grid of patches")


def _has_layer_scale(shapes: Mapping[str, Shape]) -> bool:
    return "blocks.0.ls1.gamma" in shapes or "blocks.0.gamma_1" in shapes


def _mae(encoder: ViTConfig, shapes: Mapping[str, Shape]) -> MAEConfig:
    width = shapes[MASK_TOKEN][-1]
    if width % DECODER_HEAD_WIDTH:
        raise ConfigError(f"a decoder's width of {width} does not tell how many heads it has")
    return MAEConfig(
        replace(encoder, position_resize="bicubic"),
        decoder_width=width,
        decoder_heads=width // DECODER_HEAD_WIDTH,
        decoder_feed_forward=shapes["decoder_blocks.0.mlp.fc1.weight"][0],
        decoder_layers=_count(shapes, "decoder_blocks"),
    )


def _count(shapes: Mapping[str, Shape], stack: str) -> int:
    matches = (re.match(rf"{stack}\.(\d+)\.", name) for name in shapes)
    return len({match[1] for match in matches if match})

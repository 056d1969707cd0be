"""Hugging Face's DINOv2 folders, without and with registers: encoders and image classifiers.

Positions are resized at each call to the images at hand, as published folders need: their tables
are for 518 pixels, their preprocessing gives 224.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import numpy as np

from jaxformers.arrays import height_width
from jaxformers.layers import Execution
from jaxformers.models import ViT, ViTConfig
from jaxformers.pretrained.family import Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.hf_folder import open_folder
from jaxformers.pretrained.image_config import head_classes, head_fields
from jaxformers.pretrained.mapping.config_fields import (
    ACTIVATIONS,
    Fields,
    activation_name,
    class_names,
    problem_type,
)
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.torch_names import linear, norm
from jaxformers.pretrained.mapping.transforms import Lead
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
    unpadded_arrays,
)
from jaxformers.pretrained.vit import vit_config
from jaxformers.pretrained.vit.vit_names import (
    HEAD,
    TABLE,
    any_spelling,
    fused,
    patches,
    table,
    token,
)

PLAIN, REGISTERS = "dinov2", "dinov2_with_registers"
CLASSES = {PLAIN: "Dinov2", REGISTERS: "Dinov2WithRegisters"}
PATCH_SIZES = {PLAIN: 14, REGISTERS: 16}
# With registers, transformers resizes positions antialiased.
RESIZES = {PLAIN: "bicubic", REGISTERS: "bicubic_antialiased"}
SIZES = {ours: theirs for ours, theirs in vit_config.SIZES.items() if ours != "feed_forward"}

# Our field -> their rate and its default. Their stochastic depth is the same at all layers, ours
# grows from 0: a difference in training at a rate above 0 alone.
RATES = vit_config.RATES | {"drop_path": ("drop_path_rate", 0.0)}
FeedForwardNames = Literal["plain", "fused", "split"]


def name_map(prefix: str, feed_forward: FeedForwardNames) -> NameMap:
    """Names of the tensors; `prefix` stands before those of the encoder.

    `feed_forward`: plain, or gated with both inputs in one tensor (published files) or in two
    (transformers 5 in memory).
    """
    encoder = (
        token("embeddings.cls_token", "class_token"),
        Entry("embeddings.register_tokens", "register_tokens", Lead(1)),
        table("embeddings.position_embeddings", TABLE),
        *patches("embeddings.patch_embeddings.projection"),
        *_attention("encoder.layer.{layer}", "encoder/blocks/self_attention"),
        *_feed_forward("encoder.layer.{layer}", "encoder/blocks/feed_forward", feed_forward),
        *norm("layernorm", "encoder/norm"),
    )
    return NameMap(
        (
            *(entry.under(prefix, "params/") for entry in encoder),
            *(entry.under("", "params/") for entry in HEAD),
        ),
        ignored=(rf"({prefix})?embeddings\.mask_token",),  # read where patches are masked alone
    )


def _attention(theirs: str, ours: str) -> tuple[Entry, ...]:
    projections = (
        any_spelling(
            linear,
            (f"{theirs}.attention.attention.{name}", f"{theirs}.attention.{name[0]}_proj"),
            f"{ours}/{name}",
        )
        for name in ("query", "key", "value")
    )
    out = f"{theirs}.attention.output.dense", f"{theirs}.attention.o_proj"
    return (
        *(entry for projection in projections for entry in projection),
        *any_spelling(linear, out, f"{ours}/out", 2),
        *norm(f"{theirs}.norm1", f"{ours}_norm"),
        Entry(f"{theirs}.layer_scale1.lambda1", f"{ours}_layer_scale"),
    )


def _feed_forward(theirs: str, ours: str, form: FeedForwardNames) -> tuple[Entry, ...]:
    layers = {
        "plain": (
            *linear(f"{theirs}.mlp.fc1", f"{ours}/up"),
            *linear(f"{theirs}.mlp.fc2", f"{ours}/down"),
        ),
        "fused": (
            *fused(f"{theirs}.mlp.weights_in", f"{ours}/gate", f"{ours}/up"),
            *linear(f"{theirs}.mlp.weights_out", f"{ours}/down"),
        ),
        "split": tuple(
            entry
            for name in ("gate", "up", "down")
            for entry in linear(f"{theirs}.mlp.{name}_proj", f"{ours}/{name}")
        ),
    }
    return (
        *layers[form],
        *norm(f"{theirs}.norm2", f"{ours}_norm"),
        Entry(f"{theirs}.layer_scale2.lambda1", f"{ours}_layer_scale"),
    )


def load(
    path: Any, execution: Execution = DEFAULT_EXECUTION, *, model_type: str = PLAIN
) -> tuple[ViT, dict[str, Any]]:
    """The model in a folder of this `model_type`, and its variables.

    Raises:
        WeightsError: a damaged file, what is not supported, or tensors that do not fit; one line.
    """
    fields, tensors, prefix = open_folder(path, f"{model_type}.")
    classes = head_classes(tensors, "classifier.weight")
    config = read_config(fields, classes)
    split = f"{prefix}encoder.layer.0.mlp.gate_proj.weight" in tensors.shapes
    form = ("split" if split else "fused") if config.gated else "plain"
    return read_model(ViT(config, execution), name_map(prefix, form), tensors)


def read_config(fields: Fields, classes: int) -> ViTConfig:
    """The configuration of a folder whose head has that many classes.

    Raises:
        WeightsError: a field that is malformed, or that asks for what is not supported.
    """
    model_type = fields.content["model_type"]
    values: dict[str, Any] = {ours: fields.size(*theirs) for ours, theirs in SIZES.items()}
    values |= {ours: fields.rate(*theirs) for ours, theirs in RATES.items()}
    vit_config.check_head_width(fields, values)
    gated = fields.flag("use_swiglu_ffn")
    inner = values["width"] * fields.size("mlp_ratio", 4)
    if model_type == REGISTERS:
        values["register_tokens"] = fields.size("num_register_tokens", 4)
    height, width = height_width(vit_config.image_size(fields, 224))
    if height != width:
        raise fields.refuse("image_size", "and transformers resizes only squares' positions")
    return fields.make(
        ViTConfig,
        **values,
        feed_forward=swiglu_width(inner) if gated else inner,
        gated=gated,
        activation="silu" if gated else fields.activation("hidden_act", "gelu"),
        patch_size=vit_config.side(fields, "patch_size", PATCH_SIZES[model_type]),
        norm_epsilon=fields.epsilon("layer_norm_eps", 1e-6),
        qkv_bias=fields.flag("qkv_bias", True),
        layer_scale=fields.positive("layerscale_value", 1.0),
        pooling="class_average" if classes else "class",
        prefix_positions="class" if model_type == REGISTERS else "all",
        **vit_config.read_size_fields(fields, RESIZES[model_type], dynamic=True),
        classes=classes,
        class_names=class_names(fields.content, classes),
        problem_type=problem_type(fields) if classes else None,
    )


def swiglu_width(inner: int) -> int:
    """Width of a gated layer with about the parameters of a plain one of width `inner`."""
    return (int(inner * 2 / 3) + 7) // 8 * 8


def unsupported_reason(
    model: nn.Module, variables: Variables, *, model_type: str = PLAIN
) -> str | None:
    """Why the model has no form of that `model_type`; None: it has one."""
    if type(model) is not ViT or model.config.layer_scale is None:
        return "it is no ViT with layer scale"
    config: ViTConfig = model.config
    pooling = "class_average" if config.classes else "class"
    expected: dict[str, Any] = dict(
        class_token=True,
        distillation_token=False,
        pooling=pooling,
        positions="learned",
        embedding_norm=False,
        pre_logits=None,
        head_norm=False,
        attention_bias=True,
        query_key_norm=False,
        stem=None,
    )
    for name, value in expected.items():
        if getattr(config, name) != value:
            return f"its {name} is {getattr(config, name)!r}, and {value!r} there"
    if bool(config.register_tokens) != (model_type == REGISTERS):
        return f"it has {config.register_tokens} register tokens"
    if config.prefix_rows != 1:
        return f"its prefix_positions are {config.prefix_positions!r}"
    if config.gated and config.activation != "silu":
        return f"its gated layers' activation is {config.activation!r}, and 'silu' there"
    if not config.gated and config.activation not in ACTIVATIONS.values():
        return f"activation {config.activation!r} has no name there"
    if mlp_ratio(config) is None:
        return f"no whole ratio of width {config.width} gives feed_forward {config.feed_forward}"
    if not isinstance(config.image_size, int):
        return "its images are not square"
    return None


def mlp_ratio(config: ViTConfig) -> int | None:
    """The whole number that `mlp_ratio` must be for the feed-forward width; None: there is none."""
    plain_width = config.feed_forward * 3 // 2 if config.gated else config.feed_forward
    for ratio in (plain_width // config.width, plain_width // config.width + 1):
        inner = config.width * ratio
        if (swiglu_width(inner) if config.gated else inner) == config.feed_forward:
            return ratio
    return None


def write(model: nn.Module, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and JSON files for transformers' DINOv2 classes.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    config: ViTConfig = model.config
    model_type = REGISTERS if config.register_tokens else PLAIN
    prefix = f"{model_type}." if config.classes else ""
    tensors = name_map(prefix, "fused" if config.gated else "plain").write(
        unpadded_arrays(model, variables)
    )
    if config.register_tokens:  # that class has a mask token in any case
        tensors[f"{prefix}embeddings.mask_token"] = np.zeros((1, config.width), np.float32)
    return tensors, {safetensors_folder.CONFIG: write_config(config, model_type)}


def write_config(config: ViTConfig, model_type: str) -> dict[str, Any]:
    """`config.json` of a configuration that the format can express."""
    numbers = {theirs: getattr(config, ours) for ours, (theirs, _) in (SIZES | RATES).items()}
    kind = CLASSES[model_type] + ("ForImageClassification" if config.classes else "Model")
    # Nothing reads the mask token, which the class with registers has in any case.
    variant = (
        {"num_register_tokens": config.register_tokens}
        if model_type == REGISTERS
        else {"use_mask_token": False}
    )
    return (
        {"model_type": model_type, "architectures": [kind], "dtype": "float32"}
        | numbers
        | {
            "patch_size": config.patch_size,
            "mlp_ratio": mlp_ratio(config),
            "use_swiglu_ffn": config.gated,
            "hidden_act": "gelu" if config.gated else activation_name(config.activation),
            "layer_norm_eps": config.norm_epsilon,
            "qkv_bias": config.qkv_bias,
            "layerscale_value": config.layer_scale,
        }
        | vit_config.write_size_fields(config)
        | variant
        | head_fields(config)
    )

"""open_clip's folders: `open_clip_config.json` beside a safetensors file of OpenAI's names.

`model_cfg` says the architecture, `preprocess_cfg` how images are made. A folder that holds Hugging
Face's `config.json` too is read by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.layers import Activation, Execution
from jaxformers.models.clip import (
    CLIP,
    CLIPConfig,
    CLIPImageConfig,
    CLIPTextConfig,
    ModifiedResNetConfig,
)
from jaxformers.pretrained.clip.clip_config import number, square_side
from jaxformers.pretrained.clip.clip_names import openai_map
from jaxformers.pretrained.clip.clip_openai import HEAD_WIDTH
from jaxformers.pretrained.family import LoadedModel, Variables
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.mapping.config_fields import Fields
from jaxformers.pretrained.model_variables import DEFAULT_EXECUTION, read_model, unpadded_arrays
from jaxformers.pretrained.preprocessing.open_clip_processor import object_field, read_fields
from jaxformers.pretrained.preprocessing.processor_file import OPEN_CLIP_FILE
from jaxformers.text import CLIPTokenizer
from jaxformers.text.base import Tokenizer

WEIGHTS = ("open_clip_model.safetensors", "model.safetensors")
# Fields that change no output of the towers that are supported.
WITHOUT_EFFECT = {
    "output_tokens",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
    "pad_id",
    "tokenizer_mode",
    "pos_embed_type",
}
MLP_RATIO = 4.0
# Fields that must have the value with which these towers are what they are.
REQUIRED: dict[str, Any] = {
    "attentional_pool": False,
    "no_ln_pre": False,
    "final_ln_after_pool": False,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "embed_cls": False,
    "no_causal_mask": False,
    "proj_bias": False,
    "proj_type": "linear",
}
# Fields that must be absent or null.
ABSENT = {
    "ls_init_value",
    "act_kwargs",
    "norm_kwargs",
    "block_type",
    "timm_model_name",
    "hf_model_name",
    "hf_tokenizer_name",
    "tokenizer_kwargs",
}
VISION = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"}
VISION |= {"patch_dropout", "pool_type"}
TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
TEXT |= {"pool_type", "eos_id"}
MODEL = {
    "embed_dim",
    "vision_cfg",
    "text_cfg",
    "quick_gelu",
    "custom_text",
    "init_logit_scale",
    "init_logit_bias",
}


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """The model in a folder of open_clip's.

    Raises:
        WeightsError: a damaged file, a field that is not supported, or tensors that do not fit.
    """
    folder = epath.Path(path)
    fields = read_fields(folder, "model_cfg")
    names = [name for name in WEIGHTS if (folder / name).exists()]
    if not names:
        raise WeightsError(f"{folder} has no {WEIGHTS[0]}: convert open_clip_pytorch_model.bin")
    file = str(folder / names[0])
    source = safetensors_folder.TensorFile(folder / names[0], file)
    config = read_config(fields)
    prefix = "text." if fields.flag("custom_text") else ""
    return read_model(CLIP(config, execution), openai_map(config, prefix), source)


def load_tokenizer(folder: epath.Path) -> Tokenizer | None:
    """OpenAI's tokenizer; None for a vocabulary of another size."""
    tokenizer = CLIPTokenizer()
    size = read_config(read_fields(folder, "model_cfg")).vocab_size
    return tokenizer if tokenizer.vocab_size == size else None


def read_config(fields: Fields) -> CLIPConfig:
    """The configuration that `model_cfg` states.

    Raises:
        WeightsError: a field that is malformed, unknown, or asks for what is not supported.
    """
    _refuse_unknown(fields, MODEL)
    # In JSON a missing `quick_gelu` is false, whoever trained the model.
    activation: Activation = "quick_gelu" if fields.flag("quick_gelu") else "gelu"
    projection = fields.size("embed_dim", 512)
    vision, text = (
        Fields(object_field(fields, name), f"{fields.place}: {name}")
        for name in ("vision_cfg", "text_cfg")
    )
    scale = fields.content.get("init_logit_scale", CLIPConfig().logit_scale)
    return fields.make(
        CLIPConfig,
        image=_image(vision, projection, activation),
        text=_text(text, projection, activation),
        logit_scale=float(scale) if isinstance(scale, int | float) else scale,
        logit_bias=fields.content.get("init_logit_bias"),
    )


def _image(
    fields: Fields, projection: int, activation: Activation
) -> CLIPImageConfig | ModifiedResNetConfig:
    _refuse_unknown(fields, VISION)
    size = square_side(fields)
    width, layers = fields.size("width", 768), fields.content.get("layers", 12)
    head_width = fields.size("head_width", HEAD_WIDTH)
    if isinstance(layers, list):
        return fields.make(
            ModifiedResNetConfig,
            image_size=size,
            depths=tuple(layers),
            width=width,
            heads=32 * width // head_width,
            projection=projection,
        )
    fields.require("pool_type", "tok")
    return fields.make(
        CLIPImageConfig,
        image_size=size,
        patch_size=fields.size("patch_size", 16),
        width=width,
        heads=max(width // head_width, 1),
        feed_forward=_feed_forward(fields, width),
        layers=fields.size("layers", 12),
        projection=projection,
        activation=activation,
        patch_dropout=fields.rate("patch_dropout", 0.0),
    )


def _text(fields: Fields, projection: int, activation: Activation) -> CLIPTextConfig:
    _refuse_unknown(fields, TEXT)
    pooling = fields.choice("pool_type", ("argmax", "eos")) or "argmax"
    width, vocab_size = fields.size("width", 512), fields.size("vocab_size", 49408)
    eos_id = fields.content.get("eos_id", 2) if pooling == "eos" else vocab_size - 1
    return fields.make(
        CLIPTextConfig,
        vocab_size=vocab_size,
        context_length=fields.size("context_length", 77),
        width=width,
        heads=fields.size("heads", 8),
        feed_forward=_feed_forward(fields, width),
        layers=fields.size("layers", 12),
        pooling="eos" if pooling == "eos" else "highest_id",
        eos_id=eos_id,
        projection=projection,
        activation=activation,
    )


def _feed_forward(fields: Fields, width: int) -> int:
    """F: the width of the feed-forward layers, cut to a whole number as in open_clip."""
    return int(width * number(fields, "mlp_ratio", MLP_RATIO))


def _mlp_ratio(config: CLIPImageConfig | CLIPTextConfig) -> dict[str, float]:
    """The field from which `_feed_forward` gives the width of a tower's feed-forward layers."""
    width, feed_forward = config.width, config.feed_forward
    ratio = feed_forward / width
    if int(width * ratio) != feed_forward:  # rounded down to below it
        ratio = (feed_forward + 0.5) / width
    return {} if ratio == MLP_RATIO else {"mlp_ratio": ratio}


def _head_width(width: int, heads: int) -> dict[str, int]:
    """The field from which the number of heads of `width` in all follows."""
    return {} if width == heads * HEAD_WIDTH else {"head_width": width // heads}


def _refuse_unknown(fields: Fields, read: set[str]) -> None:
    for name, value in fields.content.items():
        if name in REQUIRED and value != REQUIRED[name]:
            raise fields.refuse(name, f"and only {REQUIRED[name]!r} is supported")
        if name in ABSENT and value is not None:
            raise fields.refuse(name, "which is not supported")
        if name not in {*read, *REQUIRED, *ABSENT, *WITHOUT_EFFECT}:
            raise fields.refuse(name, "which is not known")


def unsupported_reason(model: nn.Module, variables: Variables) -> str | None:
    """Why a model has no form in open_clip; None when it has."""
    if type(model) is not CLIP:
        return f"it is no {CLIP.__name__}"
    config = model.config
    image, text = config.image, config.text
    if text.pooling == "last" or not text.causal or text.projection_bias or not text.projection:
        return "its text tower is not OpenAI's"
    if text.activation not in ("quick_gelu", "gelu"):
        return "its text tower's activation is not OpenAI's"
    if text.norm_epsilon != 1e-5 or image.norm_epsilon != 1e-5 or image.channels != 3:
        return "its norms' epsilon is not 1e-5, or its images have no three channels"
    if isinstance(image, CLIPImageConfig):
        if (image.pooling, image.pre_norm, image.patch_bias) != ("class", True, False):
            return "its image tower is not OpenAI's"
        if image.activation != text.activation or not image.projection:
            return "its towers have two activations, or its image tower has no projection"
    return None


def write(model: nn.Module, variables: Variables) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and `open_clip_config.json` of a model without an `unsupported_reason`.

    Raises:
        WeightsError: variables that do not fit the model.
    """
    config = model.config
    tensors = openai_map(config).write(unpadded_arrays(model, variables))
    means = [name for name in tensors if name.endswith(".running_mean")]
    counts = {
        name.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64)
        for name in means
    }
    return tensors | counts, {
        OPEN_CLIP_FILE: {"model_cfg": _model_cfg(config), "preprocess_cfg": {}}
    }


def _model_cfg(config: CLIPConfig) -> Mapping[str, Any]:
    image, text = config.image, config.text
    vision: dict[str, Any] = {"image_size": image.image_size, "width": image.width}
    if isinstance(image, CLIPImageConfig):
        vision |= {"layers": image.layers, "patch_size": image.patch_size}
        vision |= {"patch_dropout": image.patch_dropout}
        vision |= _head_width(image.width, image.heads) | _mlp_ratio(image)
    else:
        vision |= {"layers": list(image.depths)} | _head_width(image.features, image.heads)
    pooling = {"pool_type": "eos", "eos_id": text.eos_id} if text.pooling == "eos" else {}
    bias = {} if config.logit_bias is None else {"init_logit_bias": config.logit_bias}
    return {
        "embed_dim": text.embedding,
        "quick_gelu": text.activation == "quick_gelu",
        "init_logit_scale": config.logit_scale,
        **bias,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
            **_mlp_ratio(text),
            **pooling,
        },
    }

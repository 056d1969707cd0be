"""BERT's `config.json` <-> `BertConfig`.

Fields that a file lacks take the defaults of transformers' `BertConfig`, as they do there.
"""

from __future__ import annotations

from typing import Any

from jaxformers.models import BertConfig
from jaxformers.pretrained.mapping.config_fields import (
    ACTIVATIONS,
    Fields,
    activation_name,
    class_fields,
    problem_type,
)

MODEL_TYPE = "bert"

# Our field -> their field and its default.
SIZES = {
    "vocab_size": ("vocab_size", 30522),
    "width": ("hidden_size", 768),
    "heads": ("num_attention_heads", 12),
    "feed_forward": ("intermediate_size", 3072),
    "layers": ("num_hidden_layers", 12),
    "max_length": ("max_position_embeddings", 512),
    "type_vocab_size": ("type_vocab_size", 2),
}
RATES = {
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
}
# What the network would be with another value, we do not have.
ONLY = {
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "position_embedding_type": "absolute",
}


def read_config(config: dict[str, Any], place: str) -> BertConfig:
    """The configuration of a published folder; what its heads are, its tensors tell.

    Args:
        config: its `config.json`.
        place: what messages call `config.json`.

    Raises:
        WeightsError: a field that is malformed, or that asks for what is not supported.
    """
    fields = Fields(config, place)
    for name, required in ONLY.items():
        fields.require(name, required)
    values: dict[str, Any] = {ours: fields.size(*theirs) for ours, theirs in SIZES.items()}
    values |= {ours: fields.rate(*theirs) for ours, theirs in RATES.items()}
    if config.get("classifier_dropout") is not None:
        values["classifier_dropout"] = fields.rate("classifier_dropout", 0.1)
    if (pad := config.get("pad_token_id")) is not None:
        if type(pad) is not int or not 0 <= pad < values["vocab_size"]:
            raise fields.refuse("pad_token_id", "not one token's id")
        values["pad_id"] = pad
    values |= {
        "norm_epsilon": fields.epsilon("layer_norm_eps", 1e-12),
        "activation": fields.activation("hidden_act", "gelu"),
    }
    values["problem_type"] = problem_type(fields)
    return fields.make(BertConfig, **values)


def inexpressible(config: BertConfig) -> str | None:
    """The first field that keeps a model from Hugging Face's form, and why; None: nothing does."""
    if config.variant != "bert":
        return f"its variant is {config.variant!r}"
    if config.activation not in ACTIVATIONS.values():
        return f"activation {config.activation!r} has no name there"
    return None


def write_config(config: BertConfig, architecture: str) -> dict[str, Any]:
    """`config.json` of a configuration that is not `inexpressible`."""
    numbers = {theirs: getattr(config, ours) for ours, (theirs, _) in (SIZES | RATES).items()}
    # A single label of a text is a regression; of a token it is a class like any other.
    problem = {
        "BertForSequenceClassification": config.resolved_problem_type,
        "BertForTokenClassification": config.problem_type,
    }
    named = {}
    if architecture in problem:
        named = class_fields(config.label_names, config.labels, problem[architecture])
    return (
        {"model_type": MODEL_TYPE, "architectures": [architecture], "dtype": "float32"}
        | ONLY
        | numbers
        | {
            "hidden_act": activation_name(config.activation),
            "layer_norm_eps": config.norm_epsilon,
            "pad_token_id": config.pad_id,
            "classifier_dropout": config.classifier_dropout,
        }
        | named
    )

"""`config.json` of BERT and RoBERTa <-> `BertConfig`.

Fields that a file lacks take the defaults of transformers' configurations, as they do there.
"""

from __future__ import annotations

from typing import Any

from jaxformers.errors import WeightsError
from jaxformers.models import BertConfig
from jaxformers.models.bert_config import ROBERTA, UNCASED
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
    """The configuration of a published BERT; what its heads are, its tensors tell.

    Args:
        config: its `config.json`.
        place: what messages call `config.json`.

    Raises:
        WeightsError: a field that is malformed, or that asks for what is not supported.
    """
    fields = Fields(config, place)
    return fields.make(BertConfig, **read_values(fields))


def read_roberta_config(config: dict[str, Any], place: str) -> BertConfig:
    """The configuration of a published RoBERTa, XLM-RoBERTa or CamemBERT; as `read_config`.

    The table of positions has rows up to that of `pad_token_id` which no token uses.
    """
    vocab_size = ROBERTA if config.get("model_type") in (None, "roberta") else UNCASED
    fields = Fields({"vocab_size": vocab_size, "pad_token_id": 1} | config, place)
    values = read_values(fields)
    if "pad_id" not in values:
        raise fields.refuse("pad_token_id", "and RoBERTa counts positions from it")
    values["max_length"] -= values["pad_id"] + 1
    if values["max_length"] < 1:
        raise WeightsError(
            f"{place}: max_position_embeddings leaves no position behind that of pad_token_id "
            f"{values['pad_id']}"
        )
    return fields.make(BertConfig, variant="roberta", **values)


def read_values(fields: Fields) -> dict[str, Any]:
    """Values of the fields that BERT and RoBERTa share."""
    config = fields.content
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
    return values


def inexpressible(config: BertConfig) -> str | None:
    """The first field that keeps a model from Hugging Face's form, and why; None: nothing does."""
    if config.activation not in ACTIVATIONS.values():
        return f"activation {config.activation!r} has no name there"
    return None


def write_config(
    config: BertConfig, architecture: str, model_type: str = MODEL_TYPE
) -> dict[str, Any]:
    """`config.json` of a BERT or RoBERTa that is not `inexpressible`."""
    numbers = {theirs: getattr(config, ours) for ours, (theirs, _) in (SIZES | RATES).items()}
    return (
        {"model_type": model_type, "architectures": [architecture], "dtype": "float32"}
        | ONLY
        | numbers
        | {
            "max_position_embeddings": config.position_rows,
            "hidden_act": activation_name(config.activation),
            "layer_norm_eps": config.norm_epsilon,
            "pad_token_id": config.pad_id,
            "classifier_dropout": config.classifier_dropout,
        }
        | label_fields(config, architecture)
    )


def label_fields(config: BertConfig, architecture: str) -> dict[str, Any]:
    """The fields of the classes in `config.json`; none of an architecture without classifier."""
    if architecture.endswith("ForSequenceClassification"):
        # A single label of a text is a regression; of a token it is a class like any other.
        return class_fields(config.label_names, config.labels, config.resolved_problem_type)
    if architecture.endswith("ForTokenClassification"):
        return class_fields(config.label_names, config.labels, config.problem_type)
    return {}

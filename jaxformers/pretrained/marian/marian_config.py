"""MarianMT's `config.json` and `generation_config.json` <-> `TransformerConfig`.

Fields that a file lacks take the defaults of transformers' `MarianConfig`, as they do there.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from jaxformers.errors import WeightsError
from jaxformers.models import TransformerConfig
from jaxformers.models.transformer import Generation
from jaxformers.pretrained.mapping.config_fields import ACTIVATIONS, Fields, activation_name

MODEL_TYPE = "marian"
EPSILON = 1e-5  # torch's LayerNorm, which Marian's modules leave at its default

# Our field -> their field and its default.
SIZES = {
    "vocab_size": ("vocab_size", 58101),
    "width": ("d_model", 1024),
    "heads": ("encoder_attention_heads", 16),
    "feed_forward": ("encoder_ffn_dim", 4096),
    "encoder_layers": ("encoder_layers", 12),
    "decoder_layers": ("decoder_layers", 12),
    "decoder_heads": ("decoder_attention_heads", 16),
    "decoder_feed_forward": ("decoder_ffn_dim", 4096),
    "max_length": ("max_position_embeddings", 1024),
}
RATES = {
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.0),
    "activation_dropout": ("activation_dropout", 0.0),
}
TOKENS = {
    "pad_id": ("pad_token_id", 58100),
    "eos_id": ("eos_token_id", 0),
    "start_id": ("decoder_start_token_id", 58100),
}
# Fields that only have one supported value.
ONLY = {
    "is_encoder_decoder": True,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "static_position_embeddings": True,
    "normalize_before": False,
    "normalize_embedding": False,
    "add_final_layer_norm": False,
}
# Fields of a search that is not supported, with the values that leave them without effect.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "do_sample": (False,),
    "num_beam_groups": (1,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "forced_bos_token_id": (),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ({},),
    "exponential_decay_length_penalty": (),
}
SEARCH = ("num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size")
FIXED = {
    "norm_position": "post",
    "positions": "marian",
    "norm_epsilon": EPSILON,
}


def read_config(
    config: dict[str, Any], generation: dict[str, Any] | None, path: str
) -> TransformerConfig:
    """The configuration of a published folder.

    Args:
        config: its `config.json`.
        generation: its `generation_config.json`, which replaces `config`'s fields of generation.
        path: of `config.json`, for messages.

    Raises:
        WeightsError: a field that is malformed, or that asks for what is not supported.
    """
    fields = _Fields(config, path)
    for name, required in ONLY.items():
        fields.require(name, required)
    fields.require("decoder_vocab_size", config.get("vocab_size", SIZES["vocab_size"][1]))
    generation_fields = _Fields(config if generation is None else generation, path)
    values = {ours: fields.size(*theirs) for ours, theirs in SIZES.items()}
    values |= {ours: fields.rate(*theirs) for ours, theirs in RATES.items()}
    for ours, (name, default) in TOKENS.items():
        token = generation_fields.token(name)
        values[ours] = fields.token(name, default) if token is None else token
    values["forced_eos_id"] = generation_fields.token("forced_eos_token_id")
    # transformers ignores a ban of the end of sentence.
    values["banned_ids"] = tuple(t for t in generation_fields.banned() if t != values["eos_id"])
    values["generation"] = generation_fields.search()
    values |= {
        "activation": fields.activation("activation_function", "gelu"),
        "scale_embedding": fields.flag("scale_embedding"),
    }
    values |= FIXED | {"attention_bias": True, "logits_bias": True, "zero_pad": False}
    _check_tokens(values, path)
    return fields.make(TransformerConfig, **values)


def _check_tokens(values: dict[str, Any], path: str) -> None:
    """Refuses ids outside the vocabulary by the names that the file has for them."""
    vocab_size = values["vocab_size"]
    tokens = {theirs: values[ours] for ours, (theirs, _) in TOKENS.items()}
    tokens |= {"forced_eos_token_id": values["forced_eos_id"]}
    tokens |= {f"bad_words_ids[{i}]": token for i, token in enumerate(values["banned_ids"])}
    for name, token in tokens.items():
        if token is not None and token >= vocab_size:
            raise WeightsError(f"{path}: {name} {token} is outside {vocab_size:,} tokens")


class _Fields(Fields):
    """Checked reading of MarianMT's fields: ids of tokens, and those of a search."""

    def token(self, name: str, default: int | None = None) -> int | None:
        """A token's id, also of a list with one entry; `default` where there is none."""
        token_id = self.content.get(name)
        if isinstance(token_id, list) and len(token_id) == 1:
            token_id = token_id[0]
        if token_id is None:
            return default
        if type(token_id) is not int or token_id < 0:
            raise self.refuse(name, "not one token's id")
        return token_id

    def banned(self) -> tuple[int, ...]:
        """Tokens of `bad_words_ids`, each a word of one token."""
        bad_words = self.content.get("bad_words_ids") or []
        words = bad_words if isinstance(bad_words, list) else [bad_words]
        for word in words:
            if not isinstance(word, list) or len(word) != 1 or type(word[0]) is not int:
                raise self.refuse("bad_words_ids", "and only words of one token are supported")
            if word[0] < 0:
                raise self.refuse("bad_words_ids", "and a token's id is not below 0")
        return tuple(word[0] for word in words)

    def search(self) -> Generation | None:
        """The search that the file states, or None."""
        for name, allowed in NEUTRAL.items():
            if (value := self.content.get(name)) is not None and value not in allowed:
                raise self.refuse(name, "which is not supported: take it out of the file")
        if not any(self.content.get(name) is not None for name in SEARCH):
            return None
        stop = self.content.get("early_stopping")
        if stop not in (None, True, False, "never"):
            raise self.refuse("early_stopping", "none of true, false and 'never'")
        return Generation(
            beams=self.count("num_beams", 1),
            length_penalty=self.number("length_penalty", 1.0),
            early_stopping=stop or False,
            no_repeat_ngram=self.count("no_repeat_ngram_size", 0) or 0,
            renormalize=self.flag("renormalize_logits"),
            max_length=self.count("max_length", 2),
        )

    def count(self, name: str, least: int) -> int | None:
        """A whole number of at least `least`; None where it is not stated."""
        value = self.content.get(name)
        if value is not None and (type(value) is not int or value < least):
            raise self.refuse(name, f"not a whole number of at least {least}")
        return value

    def number(self, name: str, default: float) -> float:
        """The field as a finite number; `default` where it is not stated."""
        value = self.content.get(name)
        value = default if value is None else value
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.refuse(name, "not a finite number")
        return float(value)


def inexpressible(config: TransformerConfig) -> str | None:
    """The first field that keeps a model from being a MarianMT, and why; None: nothing does."""
    for name, required in FIXED.items():
        if getattr(config, name) != required:
            return f"{name} is {getattr(config, name)!r}, and MarianMT has only {required!r}"
    if config.activation not in ACTIVATIONS.values():
        return f"activation {config.activation!r} has no name there"
    return None


def write_config(config: TransformerConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """`config.json` and `generation_config.json` of a configuration that is not `inexpressible`."""
    block = config.decoder_block
    exact = {"decoder_heads": block.heads, "decoder_feed_forward": block.feed_forward}
    numbers = {
        theirs: exact.get(ours, getattr(config, ours))
        for ours, (theirs, _) in (SIZES | RATES | TOKENS).items()
    }
    tokens = {name: numbers[name] for name, _ in TOKENS.values()}
    forced: dict[Literal["forced_eos_token_id"], int | None]
    forced = {"forced_eos_token_id": config.forced_eos_id}
    described = {
        "model_type": MODEL_TYPE,
        "architectures": ["MarianMTModel"],
        "activation_function": activation_name(config.activation),
        "scale_embedding": config.scale_embedding,
        "decoder_vocab_size": config.vocab_size,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "bos_token_id": None,
        "dtype": "float32",
    }
    generation = tokens | forced
    if config.banned_ids:
        generation["bad_words_ids"] = [[token] for token in config.banned_ids]
    if (search := config.generation) is not None:
        generation |= {
            "num_beams": search.beams,
            "length_penalty": search.length_penalty,
            "early_stopping": search.early_stopping,
            "no_repeat_ngram_size": search.no_repeat_ngram,
            "renormalize_logits": search.renormalize,
            "max_length": search.max_length,
        }
    return ONLY | numbers | forced | described, generation

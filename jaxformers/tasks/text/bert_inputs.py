"""What the tasks over BERT share: its input arrays, random ones, a small model, a base class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxformers.data import Batch
from jaxformers.data.text.labelled_rows import cut_pairs
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.models import Bert, BertConfig
from jaxformers.pretrained import load_text_backbone
from jaxformers.sharding import batch_multiple
from jaxformers.tasks.base import Task, Variables

INPUTS = ("input_ids", "token_type_ids", "attention_mask")
SMALL = 1e-3  # with all parameters this small, every norm sees a variance near its epsilon


def random_inputs(rng: np.random.Generator, rows: int, length: int, model: BertConfig) -> Batch:
    """Random tokens, int32 `[rows, length]`, of two segments where `model` has as many.

    There is padding at the end of most rows.
    """
    at, ends = np.arange(length)[None], rng.integers(3, length + 1, (rows, 1))
    mask = at < ends
    ids = np.where(mask, rng.integers(0, model.vocab_size, (rows, length)), model.pad_id)
    types = mask & (at > ends // 3) & (model.type_vocab_size > 1)
    values = (np.asarray(array, np.int32) for array in (ids, types, mask))
    return dict(zip(INPUTS, values, strict=True))


def check_template(tokenizer: Any, path: Any) -> None:
    """Raises WeightsError where a tokenizer puts no token before a text, which the heads read."""
    if not (tokenizer.template.single[0] and tokenizer.template.pair[0]):
        raise WeightsError(
            f"the post_processor of the tokenizer in {path} puts no token before a text, and the "
            "heads of BERT and its relatives read the first one"
        )


def check_inputs(model: BertConfig, tokenizer: Any, pairs: bool) -> None:
    """Checks that a model can read what a tokenizer gives.

    Args:
        model: of any variant.
        tokenizer: with a template.
        pairs: whether pairs of texts are read.

    Raises:
        ConfigError: a segment that the model does not have, or padding that RoBERTa would count.
    """
    second_type = tokenizer.template.second_type
    if pairs and 0 < model.type_vocab_size <= second_type:
        raise ConfigError(
            f"the model has {model.type_vocab_size} segment, and the tokenizer puts the second "
            f"text of a pair into segment {second_type}: set type_vocab_size to {second_type + 1}, "
            "or read no pairs"
        )
    if model.variant == "roberta" and model.pad_id != tokenizer.pad_id:
        raise ConfigError(
            f"RoBERTa counts positions from pad_id, which is {model.pad_id}, but padding has the "
            f"id {tokenizer.pad_id} in the tokenizer: set pad_id to {tokenizer.pad_id}"
        )


def encode_pairs(
    first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], tokenizer: Any, length: int
) -> Batch:
    """Texts or pairs between the tokenizer's special tokens, int32 `[n, length]`, padded.

    Args:
        first: ids of each first text.
        second: ids of each second text; an empty one counts as none.
        tokenizer: with a template.
        length: of the rows; the longer text of a longer pair is cut.
    """
    template = tokenizer.template
    sizes = (np.array([len(ids) for ids in texts], int) for texts in (first, second))
    lengths = cut_pairs(*sizes, length, template)
    ids = np.full((len(first), length), tokenizer.pad_id, np.int32)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)
    before_second = template.pair_size - len(template.pair[2])
    for row, (a, b, (num_a, num_b)) in enumerate(zip(first, second, lengths.T, strict=True)):
        tokens = template.arrange(a[:num_a], b[:num_b])
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
        if num_b:
            types[row, before_second + num_a : len(tokens)] = template.second_type
    return dict(zip(INPUTS, (ids, types, mask), strict=True))


def states(model: Any, *inputs) -> jax.Array:
    """Hidden states `[B, L, D]` of a BERT's encoder, under whatever head."""
    encoder = model if isinstance(model, Bert) else model.bert
    return encoder(*inputs).hidden


def states_on_small(model: Any, variables: Any, *inputs, scale: float = SMALL) -> jax.Array:
    """The encoder's states where all parameters are small, which shows a norm's epsilon."""
    small = jax.tree.map(lambda x: scale * x, variables)
    return model.apply(small, *inputs, method=states)


def small_bert(model: BertConfig, vocab_size: int, max_length: int) -> BertConfig:
    """The same model with few thousand parameters, for rehearsals with a WordPiece vocabulary.

    Its padding has the id 0, and its pairs have two segments.
    """
    shape = dict(width=16, heads=4, feed_forward=32, layers=2, max_length=max_length, pad_id=0)
    if model.type_vocab_size == 1:
        shape["type_vocab_size"] = 2
    return replace(model, vocab_size=vocab_size, **shape)


class FineTunedBert(Task):
    """Base class of tasks that train a head over the BERT of their field `weights`."""

    def init(self, model: nn.Module, key: jax.Array) -> Variables:
        """Initialises variables with random values."""
        ones = jnp.ones((batch_multiple(), 1), jnp.int32)
        return model.init(key, ones, ones, ones)

    def pretrained(self, model: nn.Module) -> Variables:
        """The encoder of `weights`, with its head where that means the same on all data."""
        return {"params": load_text_backbone(self.weights, model)} if self.weights else {}

    def probe(self, model: nn.Module, variables: Variables, batch) -> dict[str, jax.Array]:
        """Logits, and the encoder's states where all parameters are small."""
        inputs = [batch[name] for name in INPUTS]
        return {
            "logits": model.apply(variables, *inputs),
            "states on small parameters": states_on_small(model, variables, *inputs),
        }

"""What the tasks over BERT share: the arrays that it reads, made-up ones, and a small model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxformers.data import Batch
from jaxformers.models import Bert, BertConfig

INPUTS = ("input_ids", "token_type_ids", "attention_mask")
SMALL = 1e-3  # with all parameters this small, every norm sees a variance near its epsilon


def random_inputs(rng: np.random.Generator, rows: int, length: int, vocab_size: int) -> Batch:
    """Random tokens of two segments, int32 `[rows, length]`; padding at the end of most rows."""
    at, ends = np.arange(length)[None], rng.integers(3, length + 1, (rows, 1))
    mask = at < ends
    ids = rng.integers(0, vocab_size, (rows, length)) * mask
    values = (np.asarray(each, np.int32) for each in (ids, mask & (at > ends // 3), mask))
    return dict(zip(INPUTS, values, strict=True))


def states(model: Any, *inputs) -> jax.Array:
    """Hidden states `[B, L, D]` of a BERT's encoder, under whatever head."""
    encoder = model if isinstance(model, Bert) else model.bert
    return encoder(*inputs).hidden


def states_on_small(model: Any, variables: Any, *inputs, scale: float = SMALL) -> jax.Array:
    """The encoder's states where all parameters are small, which shows a norm's epsilon."""
    small = jax.tree.map(lambda x: scale * x, variables)
    return model.apply(small, *inputs, method=states)


def small_bert(model: BertConfig, vocab_size: int, max_length: int) -> BertConfig:
    """The same model with few thousand parameters, for rehearsals."""
    shape = dict(width=16, heads=4, feed_forward=32, layers=2)
    return replace(model, vocab_size=vocab_size, max_length=max_length, **shape)

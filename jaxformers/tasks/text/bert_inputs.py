"""What the tasks over BERT share: the arrays that it reads, made-up ones, and a small model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxformers.data import Batch
from jaxformers.data.text.labelled_rows import cut_pairs
from jaxformers.errors import WeightsError
from jaxformers.models import Bert, BertConfig
from jaxformers.text import InputTemplate

INPUTS = ("input_ids", "token_type_ids", "attention_mask")
SMALL = 1e-3  # with all parameters this small, every norm sees a variance near its epsilon


def random_inputs(rng: np.random.Generator, rows: int, length: int, vocab_size: int) -> Batch:
    """Random tokens of two segments, int32 `[rows, length]`; padding at the end of most rows."""
    at, ends = np.arange(length)[None], rng.integers(3, length + 1, (rows, 1))
    mask = at < ends
    ids = rng.integers(0, vocab_size, (rows, length)) * mask
    values = (np.asarray(array, np.int32) for array in (ids, mask & (at > ends // 3), mask))
    return dict(zip(INPUTS, values, strict=True))


def check_template(tokenizer: Any, path: Any) -> None:
    """Raises WeightsError where a tokenizer arranges texts otherwise than BERT reads them."""
    cls, sep = (tokenizer.cls_id,), (tokenizer.sep_id,)
    if tokenizer.template != InputTemplate((cls, sep), (cls, sep, sep), second_type=1):
        raise WeightsError(
            f"the post_processor of the tokenizer in {path} does not arrange texts as [CLS] text "
            "[SEP] text [SEP] with segments 0 and 1, which is how BERT's tasks read them"
        )


def encode_pairs(
    first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], tokenizer: Any, length: int
) -> Batch:
    """`[CLS] first [SEP]`, or `[CLS] first [SEP] second [SEP]`, int32 `[n, length]`, padded.

    Args:
        first: ids of each first text.
        second: ids of each second text; an empty one counts as none.
        tokenizer: a WordPiece tokenizer.
        length: of the rows; the longer text of a longer pair is cut.
    """
    sizes = ([len(ids) for ids in texts] for texts in (first, second))
    retained = cut_pairs(*(np.array(lengths, int) for lengths in sizes), length)
    ids = np.full((len(first), length), tokenizer.pad_id, np.int32)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)
    for row, (a, b, (num_a, num_b)) in enumerate(zip(first, second, retained.T, strict=True)):
        tokens = [tokenizer.cls_id, *a[:num_a], tokenizer.sep_id]
        tokens += [*b[:num_b], tokenizer.sep_id] if num_b else []
        ids[row, : len(tokens)] = tokens
        types[row, num_a + 2 : len(tokens)] = 1  # after the first [SEP]
        mask[row, : len(tokens)] = 1
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
    """The same model with few thousand parameters, for rehearsals."""
    shape = dict(width=16, heads=4, feed_forward=32, layers=2)
    return replace(model, vocab_size=vocab_size, max_length=max_length, **shape)

"""A vector for each text, by any BERT (as Reimers and Gurevych 2019, "Sentence-BERT")."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxformers.arrays import check_finite
from jaxformers.data.text.labelled_rows import tokenized
from jaxformers.decoding.batching import batches
from jaxformers.pretrained.bert.sentence_pooling import Mode, Pooling
from jaxformers.sharding import constrain
from jaxformers.tasks.text.bert_inputs import states

LOWEST = -1e9  # stands for padding where the greatest is looked for
SMALLEST = 1e-12  # least length that a vector is divided by


def embed(
    model: Any,
    variables: Any,
    tokenizer: Any,
    texts: Sequence[str],
    pooling: Pooling,
    *,
    rows: int = 32,
) -> Float[np.ndarray, "n D"]:
    """The vector of each text, float32, in their order.

    Args:
        model: a BERT, whatever its head, with its `variables` and its tokenizer.
        texts: a longer one than `pooling` says is cut at its end, as sentence-transformers does.
        pooling: how token states become one vector; D is the model's width for each mode.
        rows: texts of similar lengths that are computed at once.

    Raises:
        WeightsError: outputs that are not finite.
    """
    config = model.config
    limit = min(pooling.max_length or config.max_length, config.max_length)
    texts = [pooling.prompt + text for text in texts]
    texts = [text.lower() for text in texts] if pooling.lowercase else texts
    first, last = tokenizer.cls_id, tokenizer.sep_id
    ids = [[first, *row[: limit - 2], last] for row in tokenized(texts, tokenizer)]
    vectors = np.zeros((len(ids), config.width * len(pooling.modes)), np.float32)
    run = _program(model, pooling)
    for chosen, padded, mask in batches(ids, rows, limit, tokenizer.pad_id):
        vectors[chosen] = np.asarray(run(variables, padded, mask))[: len(chosen)]
    check_finite(vectors)
    return vectors


@lru_cache(maxsize=4)
def _program(model: Any, pooling: Pooling):
    @jax.jit
    def run(variables, ids, mask):
        hidden = model.apply(variables, ids, None, mask, method=states).astype(jnp.float32)
        vectors = [pooled(hidden, mask, mode) for mode in pooling.modes]
        vector = jnp.concatenate(vectors, axis=-1)
        if pooling.normalize:
            norm = jnp.linalg.norm(vector, axis=-1, keepdims=True)
            vector = vector / jnp.maximum(norm, SMALLEST)
        return constrain(vector, None, None)  # replicated, so that every host reads all rows

    return run


def pooled(hidden: Float[jax.Array, "B L D"], mask: Any, mode: Mode) -> Float[jax.Array, "B D"]:
    """One vector of the states that `mask` `[B, L]` marks with 1."""
    if mode == "cls":
        return hidden[:, 0]
    real = mask[:, :, None] > 0
    if mode == "max":
        return jnp.where(real, hidden, LOWEST).max(axis=1)
    count = mask.sum(axis=1, keepdims=True).astype(hidden.dtype)
    total = jnp.where(real, hidden, 0).sum(axis=1)
    return total / (jnp.sqrt(count) if mode == "mean_sqrt_len" else count)

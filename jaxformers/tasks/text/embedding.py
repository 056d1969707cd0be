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
from jaxformers.errors import WeightsError
from jaxformers.layers import Activation
from jaxformers.layers.activations import activate
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
        pooling: how token states become one vector; D is the model's width for each mode, or that
            of the last linear layer.
        rows: texts of similar lengths that are computed at once.

    Raises:
        WeightsError: outputs that are not finite, or a linear layer of another width.
    """
    config = model.config
    limit = min(pooling.max_length or config.max_length, config.max_length)
    texts = [pooling.prompt + text for text in texts]
    texts = [text.lower() for text in texts] if pooling.lowercase else texts
    template = tokenizer.template
    room = max(limit - template.single_size, 0)
    ids = [template.arrange(row[:room]) for row in tokenized(texts, tokenizer)]
    layers = [(dense.kernel, dense.bias) for dense in pooling.dense]
    width = layers[-1][0].shape[1] if layers else config.width * len(pooling.modes)
    if layers and layers[0][0].shape[0] != config.width * len(pooling.modes):
        raise WeightsError(
            f"the first Dense layer reads vectors of {layers[0][0].shape[0]} numbers, but the "
            f"pooling gives {config.width * len(pooling.modes)}"
        )
    vectors = np.zeros((len(ids), width), np.float32)
    activations = tuple(dense.activation for dense in pooling.dense)
    run = _program(model, pooling.modes, activations, pooling.normalize)
    for chosen, padded, mask in batches(ids, rows, limit, tokenizer.pad_id):
        vectors[chosen] = np.asarray(run(variables, layers, padded, mask))[: len(chosen)]
    check_finite(vectors)
    return vectors


@lru_cache(maxsize=4)
def _program(
    model: Any,
    modes: tuple[Mode, ...],
    activations: tuple[Activation | None, ...],
    normalize: bool,
):
    @jax.jit
    def run(variables, layers, ids, mask):
        hidden = model.apply(variables, ids, None, mask, method=states).astype(jnp.float32)
        vector = jnp.concatenate([pooled(hidden, mask, mode) for mode in modes], axis=-1)
        for (kernel, bias), activation in zip(layers, activations, strict=True):
            vector = vector @ kernel + (0.0 if bias is None else bias[None])
            vector = vector if activation is None else activate(vector, activation)
        if normalize:
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
    if mode == "lasttoken":
        last = mask.sum(axis=1) - 1  # [B]
        return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    weights = mask.astype(hidden.dtype)  # [B, L]
    if mode == "weightedmean":
        weights = weights * jnp.arange(1, mask.shape[1] + 1, dtype=hidden.dtype)[None]
    total = jnp.einsum("BLD,BL->BD", jnp.where(real, hidden, 0), weights)
    count = weights.sum(axis=1, keepdims=True)
    return total / (jnp.sqrt(count) if mode == "mean_sqrt_len" else count)

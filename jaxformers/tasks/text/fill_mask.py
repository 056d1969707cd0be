"""Likely words for the masked tokens of texts, by BERT's masked-word head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from jaxformers.arrays import check_finite
from jaxformers.decoding.batching import batches, row_step
from jaxformers.sharding import constrain
from jaxformers.tasks.text.bert_inputs import states
from jaxformers.tasks.text.text_inference import check_lengths

MASKS_AT_ONCE = 64  # masked tokens whose candidates are computed at once

Candidates = list[tuple[str, float]]


def fill_mask(
    model: Any,
    variables: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    top: int = 5,
    rows: int = 32,
) -> list[list[Candidates]]:
    """The likeliest tokens for each [MASK] of each text.

    Args:
        model: a `BertForPreTraining`, with its `variables` and its tokenizer.
        texts: any number of [MASK] in each; the others are seen while one is filled.
        top: how many tokens for each [MASK].
        rows: texts of similar lengths that are computed at once.

    Returns:
        For each text, for each [MASK], (token, probability), the best first. Tokens are as
        transformers' pipelines show them: "##ing" of WordPiece, " house" of byte-level pairs; a
        row of the embedding beyond the vocabulary is an empty text.

    Raises:
        DataError: a text with more tokens than the model has positions.
        WeightsError: outputs that are not finite.
    """
    limit = model.config.max_length
    ids = [tokenizer.template.arrange(row) for row in tokenizer.encode_with_masks(texts)]
    check_lengths([len(row) for row in ids], limit)
    candidates: list[list[Candidates]] = [[] for _ in texts]
    full = [text for text, row in enumerate(ids) if tokenizer.mask_id in row]
    for chosen, padded, mask in batches([ids[i] for i in full], rows, limit, tokenizer.pad_id):
        hidden = np.asarray(_encoder(model)(variables, padded, mask))
        row, column = np.nonzero(padded[: len(chosen)] == tokenizer.mask_id)
        words = _words(model, variables, hidden[row, column], top)
        for at, (shares, tokens) in zip(row, words, strict=True):
            named = [tokenizer.token_text(int(token)) for token in tokens]
            candidates[full[chosen[at]]].append(list(zip(named, shares.tolist(), strict=True)))
    return candidates


def _words(
    model: Any, variables: Any, hidden: np.ndarray, top: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The `top` probabilities and tokens of each state `[n, D]`."""
    run = _head(model, min(top, model.config.vocab_size))
    for start in range(0, len(hidden), MASKS_AT_ONCE):
        chunk = hidden[start : start + MASKS_AT_ONCE]
        padded = np.zeros((row_step(len(chunk), MASKS_AT_ONCE), chunk.shape[1]), chunk.dtype)
        padded[: len(chunk)] = chunk
        shares, tokens = (np.asarray(array)[: len(chunk)] for array in run(variables, padded))
        check_finite(shares)
        yield from zip(shares, tokens, strict=True)


@lru_cache(maxsize=4)
def _encoder(model: Any):
    @jax.jit
    def run(variables, ids, mask):
        hidden = model.apply(variables, ids, None, mask, method=states)
        return constrain(hidden, None, None, None)  # replicated, so that every host reads all rows

    return run


@lru_cache(maxsize=4)
def _head(model: Any, top: int):
    @jax.jit
    def run(variables, hidden):
        logits = model.apply(variables, hidden[:, None], method="masked_word_logits")[:, 0]
        shares, tokens = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), top)  # [n, top] each
        return constrain(shares, None, None), constrain(tokens, None, None)

    return run

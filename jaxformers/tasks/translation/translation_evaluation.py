"""Perplexity on development pairs, BLEU on test pairs, and translating plain text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxformers.data import TokenizedPairs
from jaxformers.data.pipeline.collate import Batch, Chosen, assemble
from jaxformers.decoding import decode_texts
from jaxformers.errors import DataError
from jaxformers.evaluation import chrf2, compound_split_bleu, corpus_bleu, perplexity
from jaxformers.tasks.base import Evaluation
from jaxformers.tasks.evaluation_loop import shared_rows
from jaxformers.text import Tokenizer

if TYPE_CHECKING:
    from jaxformers.tasks.translation.translation import Search, Translation

STEP = 16  # lengths of evaluation batches are multiples of it, so that few shapes are compiled


def evaluate(task: Translation, model, variables, tokenizer: Tokenizer, *, final: bool):
    """The task's metrics: `dev_perplexity`, and when `final` `bleu`, `bleu_compound`, `chrf2`."""
    metrics: dict[str, float] = {}
    if task.dev is not None:
        store = TokenizedPairs.build(task.dev.open(), tokenizer)
        metrics["dev_perplexity"] = dev_perplexity(task, model, variables, store)
    if not final or task.test is None:
        return Evaluation(metrics)
    pairs = list(task.test.open())
    sources, references = [p[0] for p in pairs], [p[1] for p in pairs]
    outputs = translate(model, variables, tokenizer, sources, task.search)
    bleu = corpus_bleu(outputs, references)
    split = compound_split_bleu(outputs, references, task.languages[1])
    chrf = chrf2(outputs, references)
    metrics |= {"bleu": bleu.score, "bleu_compound": split.score, "chrf2": chrf.score}
    return Evaluation(
        metrics,
        list(zip(sources, references, outputs, strict=True)),
        [f"BLEU {bleu.signature}", f"compound-split BLEU {split.signature}", chrf.signature],
        outputs,
    )


def translate(
    model, variables, tokenizer: Tokenizer, texts: Sequence[str], search: Search
) -> list[str]:
    """Translations of `texts`, in their order; an empty text stays empty.

    Raises:
        DataError: a text with more tokens than the model has positions, by its line number.
    """
    limit = model.config.max_length
    ids = [[*row, tokenizer.eos_id] for row in tokenizer.encode(texts)]
    for number, row in enumerate(ids, 1):
        if len(row) > limit:
            raise DataError(
                f"line {number} has {len(row)} tokens, but the model has {limit} positions; "
                "shorten or split it"
            )
    full = [i for i, text in enumerate(texts) if text.strip()]
    outputs = decode_texts(
        model,
        variables,
        [ids[i] for i in full],
        rows=shared_rows(search.rows),
        beams=search.beams,
        alpha=search.alpha,
    )
    result = [""] * len(texts)
    for i, text in zip(full, tokenizer.decode(outputs), strict=True):
        result[i] = text
    return result


def dev_perplexity(task: Translation, model, variables, store: TokenizedPairs) -> float:
    """exp of the mean unsmoothed loss of a target token; every pair counts once."""
    run = _loss_program(task, model)
    nll = weight = 0.0
    for batch in eval_batches(store, shared_rows(task.search.rows), model.config.max_length):
        sums = jax.device_get(run(variables, batch))
        nll, weight = nll + float(sums[0]), weight + float(sums[1])
    return perplexity(nll, weight) if weight else math.nan


@lru_cache(maxsize=4)
def _loss_program(task: Translation, model):
    @jax.jit
    def run(variables, batch):
        loss = task.loss(model, variables, batch)
        return loss.metrics["nll"], loss.weight

    return run


def eval_batches(store: TokenizedPairs, rows: int, limit: int) -> Iterator[Batch]:
    """Every pair once, in batches of similar lengths, the last one filled up with empty rows."""
    source, target = store.lengths
    order = np.argsort(np.maximum(source, target), kind="stable")
    order = order[np.maximum(source, target)[order] <= limit]
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        length = int(max(source[chosen].max(), target[chosen].max()))
        length = min(-(-length // STEP) * STEP, limit)
        yield assemble(store, Chosen(chosen, np.arange(len(chosen))), (rows, length, length))

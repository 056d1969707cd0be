"""Perplexity on development pairs, BLEU on test pairs, and translation of plain text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformers.data import AlignedFiles, BundledPairs, TfdsPairs, TokenizedPairs, TsvPairs
from jaxformers.data.pipeline.collate import Batch, Chosen, assemble
from jaxformers.decoding import check_search, decode_texts
from jaxformers.errors import DataError
from jaxformers.evaluation import chrf2, compound_split_bleu, corpus_bleu, perplexity
from jaxformers.tasks.evaluation_loop import round_up_rows
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.losses import negative_log_likelihood
from jaxformers.tasks.processor import Processor
from jaxformers.text import Tokenizer

PairsConfig = BundledPairs | TfdsPairs | TsvPairs | AlignedFiles
LENGTH_STEP = 16  # evaluation batches have lengths of multiples of it, for few compiled shapes


@dataclass(frozen=True)
class Search:
    """How translations are searched for (section 6.1)."""

    beams: int = 4
    """From 1 (greedy) to 256."""
    alpha: float = 0.6
    """Of the length penalty ((5 + length) / 6)^alpha (Wu et al. 2016, equation 14), -10 to 10."""
    rows: int = 32
    """Sentences translated at once."""

    def __post_init__(self):
        check_search(self.beams, self.alpha)


@dataclass(frozen=True, kw_only=True)
class TranslationEvaluator:
    """`dev_perplexity`, and when final `bleu`, `bleu_compound` and `chrf2` of the test pairs."""

    name: str = "translation"
    dev: PairsConfig | None
    test: PairsConfig | None
    search: Search = Search()
    target_language: str = "de"
    """ISO code; decides which words count as compounds."""

    def evaluate(self, model, variables, processor: Processor, *, final: bool) -> Evaluation:
        """Perplexity on the development pairs; when `final`, BLEU on the test pairs."""
        metrics: dict[str, float] = {}
        if self.dev is not None:
            store = TokenizedPairs.build(self.dev.open(), processor.tokenizer)
            metrics["dev_perplexity"] = dev_perplexity(model, variables, store, self.search.rows)
        if not final or self.test is None:
            return Evaluation(metrics)
        pairs = list(self.test.open())
        sources, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        outputs = translate(model, variables, processor.tokenizer, sources, self.search)
        bleu = corpus_bleu(outputs, references)
        split = compound_split_bleu(outputs, references, self.target_language)
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
    indices = [i for i, text in enumerate(texts) if text.strip()]
    outputs = decode_texts(
        model,
        variables,
        [ids[i] for i in indices],
        rows=round_up_rows(search.rows),
        beams=search.beams,
        alpha=search.alpha,
    )
    translations = [""] * len(texts)
    for i, text in zip(indices, tokenizer.decode(outputs), strict=True):
        translations[i] = text
    return translations


def dev_perplexity(model, variables, store: TokenizedPairs, rows: int) -> float:
    """exp of the mean negative log-likelihood of a target token; every pair counts once."""
    run = _likelihood_program(model)
    nll = tokens = 0.0
    for batch in evaluation_batches(store, round_up_rows(rows), model.config.max_length):
        batch_nll, batch_tokens = jax.device_get(run(variables, batch))
        nll, tokens = nll + float(batch_nll), tokens + float(batch_tokens)
    return perplexity(nll, tokens) if tokens else math.nan


@lru_cache(maxsize=4)
def _likelihood_program(model):
    @jax.jit
    def run(variables, batch):
        weights = (batch["target_segments"] > 0).astype(jnp.float32)
        logits = target_logits(model, variables, batch)
        nll = negative_log_likelihood(logits, batch["target_out_ids"])
        return (nll * weights).sum(), weights.sum()

    return run


def target_logits(model, variables, batch: dict[str, Any], *, train: bool = False, rngs=None):
    """Logits `[B, T, V]` of each target token, given the source and the target tokens before it."""
    packing = ("source_segments", "source_positions", "target_segments", "target_positions")
    return model.apply(
        variables,
        batch["source_ids"],
        batch["target_in_ids"],
        **{name: batch[name] for name in packing},
        train=train,
        rngs=rngs,
    )


def evaluation_batches(store: TokenizedPairs, rows: int, limit: int) -> Iterator[Batch]:
    """Every pair once, in batches of similar lengths, the last one filled up with empty rows."""
    source, target = store.lengths
    order = np.argsort(np.maximum(source, target), kind="stable")
    order = order[np.maximum(source, target)[order] <= limit]
    for start in range(0, len(order), rows):
        indices = order[start : start + rows]
        length = int(max(source[indices].max(), target[indices].max()))
        length = min(-(-length // LENGTH_STEP) * LENGTH_STEP, limit)
        yield assemble(store, Chosen(indices, np.arange(len(indices))), (rows, length, length))

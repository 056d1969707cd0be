"""Perplexity on development pairs, BLEU on test pairs, and translation of plain text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxformers.data import AlignedFiles, BundledPairs, TfdsPairs, TokenizedPairs, TsvPairs
from jaxformers.data.pipeline.collate import Batch, Chosen, assemble
from jaxformers.decoding import Scoring, decode_n_best
from jaxformers.decoding.search import LARGEST_ALPHA, MOST_BEAMS
from jaxformers.errors import DataError
from jaxformers.evaluation import chrf2, compound_split_bleu, corpus_bleu, perplexity
from jaxformers.fields import CheckedFields, PositiveInt, Range
from jaxformers.models.transformer import Generation
from jaxformers.tasks.evaluation_loop import round_up_rows
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.losses import negative_log_likelihood
from jaxformers.tasks.processor import Processor
from jaxformers.text import Tokenizer

PairsConfig = BundledPairs | TfdsPairs | TsvPairs | AlignedFiles
# Hugging Face's `early_stopping` -> `Scoring.stopping`.
STOPPING = {False: "present_length", True: "all_complete", "never": "exact"}
LENGTH_STEP = 16  # evaluation batches have lengths of multiples of it, for few compiled shapes


@dataclass(frozen=True)
class Search(CheckedFields):
    """How translations are searched for (section 6.1)."""

    beams: Annotated[int, Range(ge=1, le=MOST_BEAMS)] = 4
    """1: greedy."""
    alpha: Annotated[float, Range(ge=-LARGEST_ALPHA, le=LARGEST_ALPHA)] = 0.6
    """Of the length penalty ((5 + length) / 6)^alpha (Wu et al. 2016, equation 14)."""
    rows: PositiveInt = 32
    """Sentences translated at once."""
    scoring: Scoring = Scoring()
    """Another form of the length penalty, and further choices."""
    longest: PositiveInt | None = None
    """Most tokens of a translation, the start token counted; None: the source's and 50."""


def stated_search(
    model: Any,
    beams: int | None = None,
    alpha: float | None = None,
    no_repeat_ngram: int | None = None,
) -> Search:
    """The search that a model's publisher states, or the paper's, with changes.

    Args:
        model: a `Transformer`.
        beams: None: as stated, else 4.
        alpha: of the paper's length penalty, with the paper's maximum length; None: the stated
            penalty and length, else 0.6.
        no_repeat_ngram: None: as stated, else 0.
    """
    stated = model.config.generation or Generation()
    search, scoring = Search(), Scoring(no_repeat_ngram=stated.no_repeat_ngram)
    longest = stated.max_length if alpha is None else None
    if model.config.generation is not None and alpha is None:
        alpha = stated.length_penalty
        scoring = replace(
            scoring,
            length_norm="power",
            stopping=STOPPING[stated.early_stopping],
            renormalize=stated.renormalize,
        )
    if no_repeat_ngram is not None:
        scoring = replace(scoring, no_repeat_ngram=no_repeat_ngram)
    return replace(
        search,
        beams=next(number for number in (beams, stated.beams, search.beams) if number is not None),
        alpha=search.alpha if alpha is None else alpha,
        scoring=scoring,
        longest=longest,
    )


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
    model, variables, tokenizer: Tokenizer, texts: Sequence[str], search: Search, **options
) -> list[str]:
    """The best translation of each text, in their order; an empty text stays empty.

    Options and errors are those of `translate_n_best`.
    """
    n_best = translate_n_best(model, variables, tokenizer, texts, search, **options)
    return [translations[0][0] if translations else "" for translations in n_best]


def translate_n_best(
    model,
    variables,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    search: Search,
    n_best: int = 1,
    *,
    truncate: bool = False,
) -> list[list[tuple[str, float]]]:
    """The best translations of each text with their scores, best first; none of an empty text.

    Args:
        model: a `Transformer`, with its `variables` and its `tokenizer`.
        texts: any number.
        search: how translations are searched for.
        n_best: translations of each text, at most `search.beams`.
        truncate: whether a text with more tokens than the model has positions is cut at its end.

    Raises:
        ConfigError: more translations than beams.
        DataError: a text with more tokens than the model has positions, unless `truncate`, by its
            line number.
        WeightsError: outputs that are not finite.
    """
    limit = model.config.max_length
    pieces = tokenizer.encode(texts)
    if truncate:
        pieces = [row[: limit - 1] for row in pieces]
    ids = [[*row, tokenizer.eos_id] for row in pieces]
    for number, row in enumerate(ids, 1):
        if len(row) > limit:
            raise DataError(
                f"line {number} has {len(row)} tokens, but the model has {limit} positions; "
                "shorten or split it"
            )
    indices = [i for i, text in enumerate(texts) if text.strip()]
    outputs = decode_n_best(
        model,
        variables,
        [ids[i] for i in indices],
        n_best,
        rows=round_up_rows(search.rows),
        beams=search.beams,
        alpha=search.alpha,
        longest=search.longest,
        scoring=search.scoring,
    )
    translations: list[list[tuple[str, float]]] = [[] for _ in texts]
    for i, hypotheses in zip(indices, outputs, strict=True):
        decoded = tokenizer.decode([hypothesis.ids for hypothesis in hypotheses])
        scores = (hypothesis.score for hypothesis in hypotheses)
        translations[i] = list(zip(decoded, scores, strict=True))
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

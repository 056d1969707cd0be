"""Trained and published models at work on plain text: what all uses check, and how they batch.

Texts of similar lengths are computed together, in few shapes, for each shape is compiled once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxformers.arrays import check_finite
from jaxformers.data.text.labelled_rows import tokenized
from jaxformers.data.text.labelled_texts import Labels
from jaxformers.data.text.windows import WindowSize
from jaxformers.decoding.batching import length_step, row_step
from jaxformers.errors import DataError, WeightsError
from jaxformers.models import BertConfig
from jaxformers.models.problem_type import class_scores
from jaxformers.pretrained import registry
from jaxformers.tasks.evaluation_loop import apply_batched
from jaxformers.tasks.text import span_answers
from jaxformers.tasks.text.bert_inputs import (
    INPUTS,
    check_inputs,
    check_template,
    encode_pairs,
)
from jaxformers.tasks.text.classification_evaluation import logits_program
from jaxformers.tasks.text.span_answers import Answer

LENGTH_STEP = 16  # batches have lengths of multiples of it, for few compiled shapes

# What a model lacks that cannot serve a function.
LACKING = {
    "translate": "a decoder",
    "fill_mask": "a masked-word head",
    "classify": "a classifier",
    "answer": "a head for answers",
    "tag": "a classifier over tokens",
    "embed": "a text encoder",
    "zero_shot": "towers of images and of texts",
    "search": "a text tower, which a text as query needs",
}


def check_head(use: str, model: Any, path: Any) -> None:
    """Raises WeightsError where the model from `path` lacks the head for that use."""
    modules = registry.modules_for(use)
    if type(model) not in modules or (use == "fill_mask" and not model.config.masked_words):
        what = f"a {type(model).__name__} without {LACKING[use]}"
        raise WeightsError(f"{path} holds {what}; {use} needs a {modules[0].__name__}")


def check_tokenizer(model: Any, tokenizer: Any, path: Any) -> None:
    """Raises WeightsError where the tokenizer cannot be that of the weights, or is no BERT's."""
    registry.check_tokenizer(model, tokenizer, path)
    if isinstance(model.config, BertConfig):
        check_template(tokenizer, path)


def check_lengths(lengths: Sequence[int], limit: int) -> None:
    """Raises DataError where a text has more tokens than the model has positions."""
    for number, length in enumerate(lengths, 1):
        if length > limit:
            raise DataError(
                f"text {number} has {length} tokens, but the model has {limit} positions; "
                "shorten or split it"
            )


def length_groups(lengths: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Indices of at most `rows` texts of similar lengths, the longest first."""
    order = np.argsort(-np.asarray(lengths, int), kind="stable").tolist()
    for start in range(0, len(order), rows):
        yield order[start : start + rows]


def classify(
    model: Any,
    variables: Any,
    tokenizer: Any,
    texts: Sequence[str | tuple[str, str]],
    *,
    truncate: bool = False,
    rows: int = 32,
) -> list[tuple[str, float]]:
    """The likeliest class of each text, or pair of texts, and its probability.

    Args:
        model: a `BertForSequenceClassification`, with its `variables` and its tokenizer.
        texts: single texts, or (text, second text).
        truncate: whether the longer text of a pair is cut until the pair fits, as in training.
        rows: texts of a batch.

    Returns:
        (label, probability); of a regression ("score", number), with the label's name if it has
        one. Labels without names are numbers. Of labels that do not exclude each other, the
        likeliest with its own probability.

    Raises:
        DataError: a text with more tokens than the model has positions, or not one or two texts.
        WeightsError: outputs that are not finite.
    """
    if isinstance(texts, Mapping | bytes):
        raise DataError(f"expected texts or pairs of texts, not a {type(texts).__name__}")
    pairs = [_pair(number, text) for number, text in enumerate(texts, 1)]
    check_inputs(model.config, tokenizer, any(second for _, second in pairs))
    first, second = (tokenized([pair[i] for pair in pairs], tokenizer) for i in (0, 1))
    arrange = tokenizer.template.arrange
    sizes = [len(arrange(a, b)) for a, b in zip(first, second, strict=True)]
    limit = model.config.max_length
    if not truncate:
        check_lengths(sizes, limit)
    run, predictions = logits_program(model), [("", 0.0)] * len(pairs)
    for indices in length_groups(sizes, rows):  # the longest text of a group comes first
        length = min(-(-sizes[indices[0]] // LENGTH_STEP) * LENGTH_STEP, limit)
        # Rows are repeated up to a few fixed numbers, for few compiled shapes.
        num_rows = row_step(len(indices), rows)
        repeated = indices + [indices[-1]] * (num_rows - len(indices))
        batch = encode_pairs(
            [first[i] for i in repeated], [second[i] for i in repeated], tokenizer, length
        )
        logits = apply_batched(
            lambda batch: run(variables, *(batch[name] for name in INPUTS)), batch, num_rows
        )  # [num_rows, N]
        check_finite(logits)
        for index, row in zip(indices, logits, strict=False):
            predictions[index] = _best_label(row, model.config)
    return predictions


def _best_label(logits: np.ndarray, config: BertConfig) -> tuple[str, float]:
    """The likeliest label and its probability, of logits `[N]`; of a regression its number."""
    names, problem_type = config.label_names, config.resolved_problem_type
    scores = class_scores(logits, problem_type)
    index = int(scores.argmax())
    if problem_type == "regression" and len(logits) == 1:
        names = names or ("score",)
    return Labels(len(logits), names).name(index), float(scores[index])


def _pair(number: int, text: Any) -> tuple[str, str]:
    pair = (text, "") if isinstance(text, str) else text
    listed = isinstance(pair, tuple | list) and len(pair) == 2
    if not listed or not all(isinstance(item, str) for item in pair):
        raise DataError(f"text {number} is neither a text nor a pair of texts")
    return tuple(pair)


def answer(
    model: Any,
    variables: Any,
    tokenizer: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    rows: int = 8,
    **options,
) -> list[Answer]:
    """`span_answers.answer`, contexts of similar lengths together, short ones in short windows.

    Args:
        rows: windows read at once.
        options: `longest`, `null_threshold`.

    Raises:
        DataError: another number of questions than of contexts.
    """
    if len(questions) != len(contexts):
        raise DataError(f"{len(questions)} questions but {len(contexts)} contexts: give one each")
    check_inputs(model.config, tokenizer, pairs=True)
    full_size = span_answers.default_size(model.config.max_length)
    question_ids, read = (tokenized(list(texts), tokenizer) for texts in (questions, contexts))
    num_special = tokenizer.template.pair_size
    sizes = [
        min(len(q), full_size.query_length) + max(len(c), 1) + num_special
        for q, c in zip(question_ids, read, strict=True)
    ]
    results = [Answer("", 0.0, 0, 0)] * len(sizes)
    for chosen in length_groups(sizes, rows):
        size, several = _window(sizes[chosen[0]], full_size, num_special)
        answers = span_answers.answer(
            model,
            variables,
            tokenizer,
            [questions[i] for i in chosen],
            [contexts[i] for i in chosen],
            size=size,
            rows=rows if several else row_step(len(chosen), rows),
            **options,
        )
        for index, best in zip(chosen, answers, strict=True):
            results[index] = best
    return results


def _window(needed: int, full_size: WindowSize, num_special: int) -> tuple[WindowSize, bool]:
    """Windows that hold so many tokens, and whether a context takes several of them."""
    if needed > full_size.length:
        return full_size, True
    length = length_step(needed, full_size.length)
    return WindowSize(
        length, full_size.stride, min(full_size.query_length, length - num_special - 1)
    ), False

"""Entities of plain texts, by a classifier of tokens, as transformers' pipeline aggregates them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxformers.arrays import check_finite
from jaxformers.data.text.tags.schemes import BEGINS, ENDS, OUTSIDE, marks_entities, split_tag
from jaxformers.decoding.batching import row_step
from jaxformers.models.problem_type import class_scores
from jaxformers.tasks.evaluation_loop import apply_batched
from jaxformers.tasks.text.bert_inputs import INPUTS, encode_pairs
from jaxformers.tasks.text.tagging.tag_evaluation import logits_program
from jaxformers.tasks.text.text_inference import LENGTH_STEP, check_lengths, length_groups
from jaxformers.text import Spans

Aggregation = Literal["simple", "first", "average", "max"]
"""How the tokens of a word agree on a tag, see `tag`."""


class Entity(NamedTuple):
    """An entity in a text, or a word with its class."""

    text: str
    """As it stands in the text."""
    label: str
    """Its type: a tag without its prefix."""
    score: float
    """Mean probability of its words' tags; of its tokens' for the aggregation "simple"."""
    start: int
    """Where it begins in the text, in characters."""
    end: int
    """One past its last character."""


def tag(
    model: Any,
    variables: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    aggregation: Aggregation = "first",
    truncate: bool = False,
    rows: int = 32,
) -> list[list[Entity]]:
    """The entities of each text, in their order.

    Words of the same type follow each other into one entity until a tag begins another ("B-"); an
    "I-" that follows no entity of its type begins one. Words tagged "O" are left out.

    Args:
        model: a `BertForTokenClassification`, with its `variables` and its tokenizer.
        aggregation: the tag of a word, by its tokens: "first" takes the first one's, "max" that of
            the most certain token, "average" that of their mean probabilities; "simple" lets each
            token have its own. Where the tokenizer does not mark tokens that go on with a word
            (byte-level pairs), a word is what stands between blanks.
        truncate: whether a longer text is cut at the model's positions; nothing is tagged behind.
        rows: texts of a batch.

    Raises:
        DataError: a text with more tokens than the model has positions, unless `truncate`.
        WeightsError: outputs that are not finite.
    """
    limit, all_spans = model.config.max_length, tokenizer.spans(list(texts))
    before, behind = map(len, tokenizer.template.single)
    lengths = [before + len(spans.ids) + behind for spans in all_spans]
    if not truncate:
        check_lengths(lengths, limit)
    run, results = logits_program(model), [list[Entity]() for _ in texts]
    for indices in length_groups(lengths, rows):  # the longest text of a group comes first
        length = min(-(-lengths[indices[0]] // LENGTH_STEP) * LENGTH_STEP, limit)
        # Rows are repeated up to a few fixed numbers, for few compiled shapes.
        num_rows = row_step(len(indices), rows)
        ids = [all_spans[i].ids for i in indices + [indices[-1]] * (num_rows - len(indices))]
        batch = encode_pairs(ids, [[]] * num_rows, tokenizer, length)
        logits = apply_batched(
            lambda batch: run(variables, *(batch[name] for name in INPUTS)), batch, num_rows
        )  # [num_rows, L, N]
        check_finite(logits)
        for index, row in zip(indices, logits, strict=False):
            spans = all_spans[index]
            num_tokens = min(len(spans.ids), length - before - behind)
            spans = Spans(spans.ids[:num_tokens], spans.starts, spans.ends)
            scores = class_scores(row[before : before + num_tokens], None)  # [n, N]
            results[index] = entities(
                texts[index], spans, scores, model.config, tokenizer, aggregation
            )
    return results


def entities(
    text: str,
    spans: Spans,
    scores: np.ndarray,
    config: Any,
    tokenizer: Any,
    aggregation: Aggregation,
) -> list[Entity]:
    """The entities of a text.

    Args:
        spans: the text's n tokens, without special ones.
        scores: their probabilities `[n, N]`.
        config: `label_names` and `labels` of the model.
        tokenizer: of the model.
        aggregation: see `tag`.
    """
    names = config.label_names or tuple(f"LABEL_{i}" for i in range(config.labels))
    if aggregation == "simple":
        starts = np.arange(len(spans.ids))
    else:
        starts = np.flatnonzero(~_continues_word(text, spans, tokenizer))
    tagged = []  # (tag, probability, start, end) of each word
    for first, end in zip(starts, [*starts[1:], len(spans.ids)], strict=False):
        word_scores = _word_scores(scores[first:end], aggregation)
        index = int(word_scores.argmax())
        span = int(spans.starts[first]), int(spans.ends[end - 1])
        tagged.append((names[index], float(word_scores[index]), *span))
    in_scheme = marks_entities(names)
    groups: list[tuple[str, list]] = []
    open_type, previous_prefix = "", ""
    for word in tagged:
        prefix, entity_type = _split(word[0], in_scheme)
        begins = prefix in BEGINS or previous_prefix in ENDS or entity_type != open_type
        if begins:
            groups.append((entity_type, []))
        groups[-1][1].append(word)
        open_type, previous_prefix = entity_type, prefix
    return [
        Entity(
            text[words[0][2] : words[-1][3]],
            label,
            float(np.mean([score for _, score, _, _ in words])),
            words[0][2],
            words[-1][3],
        )
        for label, words in groups
        if label != OUTSIDE
    ]


def _split(name: str, in_scheme: bool) -> tuple[str, str]:
    """Prefix and type of a class; of classes that are not of one scheme only B- and I- are cut."""
    if name != OUTSIDE and (in_scheme or name.startswith(("B-", "I-"))):
        return split_tag(name)
    return "", name


def _continues_word(text: str, spans: Spans, tokenizer: Any) -> np.ndarray:
    """Which tokens go on with the word of the token before them, bool `[n]`; the first never."""
    if tokenizer.continuation_prefix:
        continues = tokenizer.continues[spans.ids]
    else:  # transformers' rule: no blank at the token's first character nor before it
        starts = np.asarray(spans.starts[: len(spans.ids)]).tolist()
        inside = [start > 0 and " " not in text[start - 1 : start + 1] for start in starts]
        continues = np.array(inside, bool) & (np.array(spans.ids, int) != tokenizer.unk_id)
    continues[:1] = False
    return continues


def _word_scores(scores: np.ndarray, aggregation: Aggregation) -> np.ndarray:
    """Probabilities `[N]` that a word goes by, of those of its tokens `[n, N]`."""
    if aggregation == "average":
        return scores.mean(0)
    if aggregation == "max":
        return scores[scores.max(1).argmax()]
    return scores[0]

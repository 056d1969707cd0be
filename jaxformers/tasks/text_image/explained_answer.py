"""Explains a text answer to a sample: rows of arrays to words, patches and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxformers.arrays import check_finite
from jaxformers.errors import DataError
from jaxformers.interpret import ExplainedAnswer, explain_answer, heat_map
from jaxformers.interpret.explain import in_float32
from jaxformers.interpret.explain_answer import text_logits
from jaxformers.interpret.words import relevance_by_word
from jaxformers.models import UnifiedIO
from jaxformers.tasks.text_image.base import Sample
from jaxformers.tasks.text_image.evaluation import model_inputs
from jaxformers.tasks.text_image.features import squared
from jaxformers.tasks.text_image.inference import answer_samples, sample_rows
from jaxformers.text import UnifiedIOTokenizer

LENGTHS = 8  # answers are padded to a multiple of this


def explain_sample(
    model: UnifiedIO,
    variables: Any,
    tokenizer: UnifiedIOTokenizer,
    sample: Sample,
    answer: str | None = None,
) -> ExplainedAnswer:
    """What a text answer to a sample's prompt and picture rests on.

    Args:
        model: the network.
        variables: its variables.
        tokenizer: of prompt and answer.
        sample: prompt, and picture if there is one.
        answer: the text to explain; None: the one that the model generates by greedy search.

    Raises:
        DataError: an empty answer, or a prompt or answer that is longer than the model takes.
        WeightsError: logits that are not finite.
    """
    (row,) = sample_rows(model.config, tokenizer, [sample])
    if answer is None:
        (prediction,) = answer_samples(model, variables, tokenizer, [sample], "text")
        ids = _until_end(prediction.ids, tokenizer.eos_id)
    else:
        ids = _until_end(tokenizer.encode([answer])[0], tokenizer.eos_id)
    longest = model.config.decoder_text_length
    if not ids:
        how = "generated" if answer is None else "given"
        raise DataError(f"the {how} answer is empty: give a text with answer=")
    if len(ids) > longest:
        raise DataError(f"the answer has {len(ids)} tokens; the model has {longest} positions")
    inputs = model_inputs({name: array[None] for name, array in row.items()})
    if sample.image is None:  # what is absent costs nothing; what is masked does
        inputs = {name: inputs[name] for name in ("input_ids", "input_mask")}
    params = {"params": variables["params"]}
    # Decoder inputs: the start token 0, then the answer but its last token.
    length = min(-(-len(ids) // LENGTHS) * LENGTHS, longest)
    targets = np.zeros((1, length), np.int32)
    targets[0, 1 : len(ids)] = ids[:-1]
    mask = (np.arange(length) < len(ids))[None]
    target = {"target_ids": targets, "target_mask": mask}
    logits = np.asarray(text_logits(in_float32(model), params, inputs | target))[0, : len(ids)]
    check_finite(logits)
    probabilities = np.asarray(jax.nn.softmax(logits))[np.arange(len(ids)), ids]
    positions = np.arange(len(ids))[None]
    relevance = explain_answer(
        model, params, **target, positions=positions, tokens=np.array([ids]), **inputs
    )
    text = answer or tokenizer.decode([ids])[0] or " ".join(map(tokenizer.token_text, ids))
    return _explained(model, tokenizer, sample, text, ids, probabilities, relevance)


def _explained(model, tokenizer, sample, text, ids, probabilities, relevance) -> ExplainedAnswer:
    """The relevance of one example by tokens, words and pixels."""
    (prompt_ids,) = tokenizer.encode([sample.prompt])
    num_tokens, num_patches = len(prompt_ids), 0
    source, target = relevance.source[0], relevance.target[0]  # [M, S + P], [M, T]
    picture, heat = None, np.zeros((len(ids), 0, 0), np.float32)
    if sample.image is not None:
        side, size = model.config.image_rows, model.config.patch_size
        square, visible = squared(sample.image, side, "the picture")
        height, width = visible[:, 0].sum(), visible[0].sum()
        grid = (side // size, side // size)
        num_patches = grid[0] * grid[1]
        picture = square[:height, :width] / np.float32(255)
        heat = heat_map(source[:, -num_patches:], grid, (side, side))[:, :height, :width]
    token_relevance = source[:, :num_tokens]
    prompt_tokens = tuple(map(tokenizer.token_text, prompt_ids))
    words, word_relevance = relevance_by_word(
        tokenizer, sample.prompt, prompt_ids, prompt_tokens, token_relevance
    )
    # Decoder input t + 1 is the answer's token t; its residual's 1 is no relevance for a later one.
    own = np.eye(len(ids), k=-1, dtype=np.float32)
    answer_relevance = np.pad(target[:, 1 : len(ids)], ((0, 0), (0, 1))) - own
    return ExplainedAnswer(
        sample.prompt,
        text,
        tuple(map(tokenizer.token_text, ids)),
        probabilities,
        picture,
        source[:, source.shape[1] - num_patches :],
        heat,
        prompt_tokens,
        token_relevance,
        words,
        word_relevance,
        answer_relevance,
    )


def _until_end(ids: Sequence[int], eos: int) -> list[int]:
    """The ids before the end token."""
    ids = list(ids)
    return ids[: ids.index(eos)] if eos in ids else ids

"""Unified-IO at work: samples to answers, in batches of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from jaxformers.data import Batch
from jaxformers.data.pipeline.stateless_random import Draws
from jaxformers.decoding.generation import generate_codes, generate_text
from jaxformers.decoding.sampling import Sampling
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import CheckedFields, PositiveFraction, PositiveInt, Seed
from jaxformers.models import UnifiedIO
from jaxformers.models.unified_io import UnifiedIOConfig
from jaxformers.tasks.evaluation_loop import round_up_rows
from jaxformers.tasks.text_image.base import Prediction, Sample
from jaxformers.tasks.text_image.evaluation import decoded_pictures, in_size, model_inputs
from jaxformers.tasks.text_image.features import RowBuilder
from jaxformers.text import UnifiedIOTokenizer

Output = Literal["text", "image"]
ROWS = 16
LENGTHS = 32  # input texts are padded to a multiple of this


@dataclass(frozen=True)
class Decoding(CheckedFields):
    """How answers are generated."""

    max_tokens: PositiveInt = 64
    """Of a text, the end included; at most as many as the model has positions."""
    beams: PositiveInt = 1
    """Width of the search for a text; 1 is greedy."""
    top_p: PositiveFraction = 0.9
    """Nucleus from which the codes of a picture are drawn."""
    seed: Seed = 0
    """Of these draws."""


def answer_samples(
    model: UnifiedIO,
    variables: Any,
    tokenizer: UnifiedIOTokenizer,
    samples: Sequence[Sample],
    output: Output,
    decoding: Decoding = Decoding(),
) -> list[Prediction]:
    """The model's answer to each sample; a picture has the size of the sample's, if it has one.

    Raises:
        ConfigError: no such output, or a picture of a model without an image tokenizer.
        DataError: a prompt with more tokens than the model has positions.
    """
    check_output(output)
    if output == "image" and model.config.image_tokenizer is None:
        raise ConfigError(
            "this model has no image tokenizer, so its answers are texts: ask for a text, or load "
            "weights that hold a VQGAN"
        )
    rows = sample_rows(model.config, tokenizer, samples, decoding.seed)
    predictions: list[Prediction] = []
    num_rows = round_up_rows(min(ROWS, len(rows)))  # what a mesh divides
    for start in range(0, len(rows), num_rows):
        indices = np.minimum(np.arange(start, start + num_rows), len(rows) - 1)
        chunk = [rows[index] for index in indices]
        batch = {name: np.stack([row[name] for row in chunk]) for name in chunk[0]}
        predictions += _predict(model, variables, batch, output, decoding, start)
    return [
        Prediction(p.ids, _in_sample_size(p.picture, sample), p.picture)
        for p, sample in zip(
            predictions[: len(samples)], samples, strict=True
        )  # without padding rows
    ]


def check_output(output: Any) -> None:
    """Raises ConfigError for a kind of answer that there is not."""
    if output not in ("text", "image"):
        raise ConfigError(f"output is {output!r}, not one of text, image")


def sample_rows(
    config: UnifiedIOConfig,
    tokenizer: UnifiedIOTokenizer,
    samples: Sequence[Sample],
    seed: int = 0,
) -> list[Batch]:
    """The arrays of each sample's prompt and picture, as `RowBuilder` gives them.

    Raises:
        DataError: a prompt with more tokens than the model has positions.
    """
    prompts = tokenizer.encode([sample.prompt for sample in samples])
    longest = max(map(len, prompts)) + 1
    if longest > config.encoder_text_length:
        raise DataError(
            f"a prompt has {longest} tokens, its end included; the model has "
            f"{config.encoder_text_length} positions: shorten it"
        )
    text_length = min(-(-longest // LENGTHS) * LENGTHS, config.encoder_text_length)
    builder = RowBuilder(tokenizer, config, (text_length, 1), None)
    words = Draws(seed).words(builder.draws)
    return [
        builder.row(sample, (ids, ()), words, f"picture {number}")
        for number, (sample, ids) in enumerate(zip(samples, prompts, strict=True), 1)
    ]


def _predict(
    model: UnifiedIO, variables: Any, batch: Any, output: Output, decoding: Decoding, start: int
) -> list[Prediction]:
    inputs, params = model_inputs(batch), {"params": variables["params"]}
    if output == "text":
        length = min(decoding.max_tokens, model.config.decoder_text_length)
        decoded = generate_text(model, params, inputs, length, beams=decoding.beams)
        return [Prediction(row.tolist()) for row in np.asarray(decoded.ids)]
    key = jax.random.fold_in(jax.random.key(decoding.seed), start)
    count = model.config.image_tokenizer.grid**2
    sampling = Sampling(top_p=decoding.top_p)
    decoded = generate_codes(model, params, inputs, key, num_codes=count, sampling=sampling)
    pictures = decoded_pictures(model, params, np.asarray(decoded.ids))
    return [Prediction(picture=picture) for picture in pictures]


def _in_sample_size(picture: Any, sample: Sample) -> Any:
    if picture is None or sample.image is None:
        return picture
    return in_size(picture, sample.size)

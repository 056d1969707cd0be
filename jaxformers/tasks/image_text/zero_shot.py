"""Zero-shot classification ("CLIP", section 3.1): classes are texts, the nearest one is chosen.

Axis letters: n images or texts, N classes, P prompts of a class, E embedding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxformers.arrays import check_finite
from jaxformers.errors import ConfigError, DataError
from jaxformers.models.clip import CLIP
from jaxformers.sharding import constrain
from jaxformers.tasks.evaluation_loop import apply_batched
from jaxformers.text import Tokenizer
from jaxformers.text.clip import count_cut, padded_rows

TEMPLATE = "a photo of a {}."
"""The prompt of the paper's section 3.1.4."""
FIELD = "{}"


def embed_texts(
    model: Any,
    variables: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    truncate: bool = True,
    normalize: bool = False,
    rows: int = 64,
) -> Float[np.ndarray, "n E"]:
    """The projected encoding of each text, float32, in their order.

    Args:
        model: a `CLIP` or `CLIPTextTower`, with its `variables` and its tokenizer.
        texts: of any length.
        truncate: whether a text with more tokens than the model has positions is cut, its end-of-
            text token kept; False: it is refused.
        normalize: whether vectors get length 1.
        rows: texts of a batch.

    Raises:
        DataError: a text that is too long, unless `truncate`.
        WeightsError: outputs that are not finite.

    Warns:
        UserWarning: how many texts were cut.
    """
    tower = model.config.text if isinstance(model, CLIP) else model.config
    if not texts:
        return np.zeros((0, tower.embedding), np.float32)
    length = tower.context_length
    if truncate and (count := count_cut(tokenizer, texts, length)):
        warnings.warn(
            f"cut {count:,} of {len(texts):,} texts to the {length} tokens that the model takes",
            stacklevel=2,
        )
    input_ids = padded_rows(tokenizer, texts, length, truncate=truncate)
    run = _text_program(model)
    encodings = apply_batched(
        lambda batch: run(variables, batch["input_ids"]), {"input_ids": input_ids}, rows
    )
    check_finite(encodings)
    return unit_vectors(encodings) if normalize else encodings


def class_weights(
    model: CLIP,
    variables: Any,
    tokenizer: Tokenizer,
    names: Sequence[str],
    templates: Sequence[str] = (TEMPLATE,),
    *,
    truncate: bool = False,
) -> Float[np.ndarray, "N E"]:
    """The unit vector of each class: the mean of its prompts' unit vectors, normalised.

    Args:
        model: a `CLIP`, with its `variables` and its tokenizer.
        names: of the classes; a name may come again.
        templates: each with `{}` where the name stands.
        truncate: whether a prompt that is too long is cut.

    Raises:
        ConfigError: no template, or one without `{}`.
        DataError: no names, or a prompt that is too long, unless `truncate`.
    """
    if not names:
        raise DataError("no class names: give at least one")
    if not templates:
        raise ConfigError(f"no templates: give at least one, such as {TEMPLATE!r}")
    for template in templates:
        if FIELD not in template:
            raise ConfigError(
                f"the template {template!r:.80} has no {FIELD}: put it where the name stands"
            )
    # Not str.format, for which a brace in a name or a template has a meaning.
    prompts = [template.replace(FIELD, name) for name in names for template in templates]
    vectors = embed_texts(
        model, variables, tokenizer, prompts, truncate=truncate, normalize=True
    )  # [N P, E]
    return unit_vectors(vectors.reshape(len(names), len(templates), -1).mean(axis=1))


def class_probabilities(
    model: CLIP,
    variables: Any,
    image_encodings: Float[np.ndarray, "n E"],
    weights: Float[np.ndarray, "N E"],
) -> Float[np.ndarray, "n N"]:
    """The probability of each class for each image.

    Args:
        model: a `CLIP`, with its `variables`.
        image_encodings: of any length, as `encode_image` gives them.
        weights: as `class_weights` gives them.

    Returns:
        softmax(exp(logit_scale) cos); for a model with `logit_bias` (SigLIP), whose classes do not
        exclude each other, sigmoid(exp(logit_scale) cos + logit_bias).
    """
    embeds = unit_vectors(np.asarray(image_encodings, np.float32))
    logits = model.apply(variables, embeds, weights, method="logits")
    softmax = model.config.logit_bias is None
    return np.asarray(jax.nn.softmax(logits, axis=-1) if softmax else jax.nn.sigmoid(logits))


def unit_vectors(vectors: Float[np.ndarray, "*batch E"]) -> Float[np.ndarray, "*batch E"]:
    """Vectors divided by their lengths."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@lru_cache(maxsize=4)
def _text_program(model: Any):
    method = "encode_text" if isinstance(model, CLIP) else "encode"

    @jax.jit
    def run(variables, input_ids):
        encodings = model.apply(variables, input_ids, method=method)
        return constrain(encodings.astype(jnp.float32), None, None)

    return run

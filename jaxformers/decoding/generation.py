"""Text and images from Unified-IO: text first, then the codes of an image; scores of given answers.

Axis letters: B batch, T text tokens, C codes, N options, L tokens of an option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.decoding.sampling import Sampling, sample
from jaxformers.decoding.search import Decoded, decode
from jaxformers.decoding.unified_io import EOS_ID, PAD_ID, CachedUnifiedIO
from jaxformers.errors import ConfigError, DataError
from jaxformers.models.unified_io import UnifiedIO

OPTION_ROWS = 256
NUCLEUS = Sampling(top_p=0.9)
Inputs = Mapping[str, Array]  # arguments of `UnifiedIO.encode`


def generate_text(
    model: UnifiedIO,
    variables: Mapping[str, Any],
    inputs: Inputs,
    max_tokens: int | None = None,
    *,
    beams: int = 1,
    sampling: Sampling | None = None,
    key: Array | None = None,
    unconditional: Inputs | None = None,
) -> Decoded:
    """Text for each example: by greedy search, beam search, or sampling.

    Args:
        model: the network.
        variables: its variables.
        inputs: arguments of `UnifiedIO.encode` by name.
        max_tokens: T, the most tokens, the end token counted; None: all that the decoder has
            positions for.
        beams: width of the beam search, without a length penalty; 1 is greedy search.
        sampling: draw tokens instead, with `key`.
        key: a key of `jax.random`.
        unconditional: inputs for the sampling's guidance.

    Returns `ids [B, T]`, padded with 0 after the end token 1, and `scores [B]`.

    Raises:
        ConfigError: more tokens than positions, or choices that exclude each other.
    """
    longest = model.config.decoder_text_length
    length = longest if max_tokens is None else max_tokens
    if not 1 <= length <= longest:
        raise ConfigError(f"max_tokens={length}: this model generates from 1 to {longest}")
    decoder = CachedUnifiedIO(model, length)
    if sampling is None:
        return decode(decoder, variables, dict(inputs), length, beams=beams, alpha=0.0)
    if beams != 1:
        raise ConfigError(f"sampling with beams={beams}: choose sampling or beam search")
    other = None if unconditional is None else dict(unconditional)
    return sample(decoder, variables, dict(inputs), length, _required(key), sampling, other)


def generate_codes(
    model: UnifiedIO,
    variables: Mapping[str, Any],
    inputs: Inputs,
    key: Array,
    text_ids: Int[Array, "B T"] | None = None,
    num_codes: int | None = None,
    *,
    sampling: Sampling = NUCLEUS,
    unconditional: Inputs | None = None,
) -> Decoded:
    """Codes of an image for each example, after its text.

    Args:
        model: the network.
        variables: its variables.
        inputs: arguments of `UnifiedIO.encode` by name.
        key: a key of `jax.random`.
        text_ids: the text before the image, as `generate_text` returns it; None: an empty text.
        num_codes: C; None: all that the decoder has positions for.
        sampling: temperature, nucleus and guidance.
        unconditional: inputs for guidance; the same text stands before their image.

    Returns `ids [B, C]`, codes without their offset V, and `scores [B]`.

    Raises:
        ConfigError: more codes or text than positions.
    """
    longest = model.config.decoder_image_length
    count = longest if num_codes is None else num_codes
    if not 1 <= count <= longest:
        raise ConfigError(f"num_codes={count}: this model generates from 1 to {longest}")
    batch = jax.tree.leaves(dict(inputs))[0].shape[0]
    if text_ids is None:
        # In training an image without text follows the start token, whose target is the end token.
        text_ids = np.full((batch, 1), EOS_ID, np.int32)
    target_ids, target_mask = decoder_text(text_ids)
    if target_ids.shape[1] > model.config.decoder_text_length:
        raise ConfigError(
            f"a text of {target_ids.shape[1]} tokens before the image: this model has "
            f"{model.config.decoder_text_length} positions"
        )
    text = {"target_ids": target_ids, "target_mask": target_mask}
    decoder = CachedUnifiedIO(model, target_ids.shape[1], count)
    other = None if unconditional is None else dict(unconditional) | text
    return sample(decoder, variables, dict(inputs) | text, count, key, sampling, other)


def decoder_text(text_ids: Int[Array, "B T"]) -> tuple[Int[Array, "B T"], Array]:
    """Decoder inputs of a text that an image follows, and their mask.

    The inputs are the start token and then the text but its last token; those from the end token on
    are masked, as in training, where they have no target.
    """
    target_ids = jnp.pad(text_ids[:, :-1], ((0, 0), (1, 0)), constant_values=PAD_ID)
    return target_ids, jnp.cumsum(target_ids == EOS_ID, axis=1) == 0


def score_options(
    model: UnifiedIO,
    variables: Mapping[str, Any],
    inputs: Inputs,
    options: Sequence[Sequence[int]],
    *,
    reduce: Literal["sum", "mean"] = "sum",
    modality: Literal["text", "image"] = "text",
    rows: int = OPTION_ROWS,
) -> Float[np.ndarray, "B N"]:
    """Log-probability of each option as the answer to each example, over its tokens.

    Args:
        model: the network.
        variables: its variables.
        inputs: arguments of `UnifiedIO.encode` by name.
        options: token ids of each answer, the same for all examples; the end token is added where
            it is missing. Of images, codes without their offset V, scored after an empty text.
        reduce: the sum of an option's log-probabilities, or their mean.
        modality: of the options.
        rows: how many pairs of example and option are scored at a time.

    Raises:
        DataError: no option, or one that is empty or too long.
    """
    if modality == "text":
        options = [[*ids] if EOS_ID in ids else [*ids, EOS_ID] for ids in options]
    c, is_text = model.config, modality == "text"
    longest = c.decoder_text_length if is_text else c.decoder_image_length
    lengths = [len(ids) for ids in options]
    if not options or min(lengths) < 1 or max(lengths) > longest:
        raise DataError(
            f"{len(options)} options of {min(lengths, default=0)} to {max(lengths, default=0)} "
            f"tokens: give at least one, each of 1 to {longest}"
        )
    ids = np.zeros((len(options), max(lengths)), np.int32)
    for row, option in zip(ids, options, strict=True):
        row[: len(option)] = option
    mask = np.arange(ids.shape[1])[None] < np.array(lengths)[:, None]
    states, states_mask = _encode(model, variables, dict(inputs))
    # Every chunk has as many options, so that one program scores them all.
    chunk = max(1, min(len(options), rows // states.shape[0]))
    scores = []
    for start in range(0, len(options), chunk):
        indices = np.minimum(np.arange(start, start + chunk), len(options) - 1)
        chunk_scores = _score(
            model, variables, states, states_mask, ids[indices], mask[indices], is_text, reduce
        )
        scores.append(np.asarray(chunk_scores)[:, : len(options) - start])
    return np.concatenate(scores, axis=1)


@partial(jax.jit, static_argnames="model")
def _encode(model: UnifiedIO, variables, inputs) -> tuple[Array, Array | None]:
    return model.apply(variables, **inputs, method="encode_masked")


@partial(jax.jit, static_argnames=("model", "is_text", "reduce"))
def _score(model, variables, states, states_mask, options, mask, is_text, reduce) -> Array:
    """Scores `[B, N]` of options `[N, L]`."""
    batch, num_options = states.shape[0], options.shape[0]
    # Examples in order, each with all options: [B x N, ...].
    states = jnp.repeat(states, num_options, axis=0)
    states_mask = None if states_mask is None else jnp.repeat(states_mask, num_options, axis=0)
    targets, valid = (jnp.tile(x, (batch, 1)) for x in (options, mask))
    v = model.config.vocab_size
    if is_text:
        ids = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=PAD_ID)
        arguments = (ids, valid)
    else:
        codes = jnp.pad(targets[:, :-1] + v, ((0, 0), (1, 0)), constant_values=v - 1)
        arguments = (jnp.zeros((len(targets), 1), jnp.int32), None, codes)
    out = model.apply(variables, states, states_mask, *arguments, method="decode")
    log_probs = jax.nn.log_softmax(out.text_logits if is_text else out.image_logits, axis=-1)
    per_token = jnp.take_along_axis(log_probs, targets[..., None], axis=2)[..., 0]
    scores = jnp.where(valid, per_token, 0.0).sum(1)
    if reduce == "mean":
        scores = scores / valid.sum(1).astype(scores.dtype)
    return scores.reshape(batch, num_options)


def _required(key: Array | None) -> Array:
    if key is None:
        raise ConfigError("sampling needs a key of jax.random: give key=jax.random.key(seed)")
    return key

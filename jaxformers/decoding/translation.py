"""Greedy and beam search of the translation Transformer (Vaswani et al. 2017, section 6.1).

Axis letters: B batch, S source length, L generated length.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from jaxformers.arrays import Array
from jaxformers.decoding.cached import CachedTransformer
from jaxformers.decoding.scoring import Scoring
from jaxformers.decoding.search import BEAMS, DEFAULT_SCORING, Decoded, decode_to_end
from jaxformers.errors import ConfigError, DataError
from jaxformers.models import Transformer

EXTRA_LENGTH = 50  # section 6.1: "maximum output length during inference to input length + 50"


def greedy(
    model: Transformer,
    variables: dict,
    source_ids: Int[Array, "B S"],
    source_mask: Int[Array, "B S"] | Bool[Array, "B S"] | None = None,
    max_length: int | None = None,
) -> Decoded:
    """Takes the most probable next token at every step.

    Arguments and errors are `beam_search`'s. `ids` are `[B, L]`; `scores [B]` are the sums of
    log-probabilities.

    Example:
        >>> config = jf.TransformerConfig(
        ...     vocab_size=50, width=16, heads=2, feed_forward=32, max_length=16,
        ...     encoder_layers=1, decoder_layers=1,
        ... )
        >>> model, source_ids = jf.Transformer(config), jnp.array([[5, 8, 2]])
        >>> variables = model.init(jax.random.key(0), source_ids, source_ids)
        >>> ids, scores = jf.greedy(model, variables, source_ids, max_length=6)
        >>> ids.shape, scores.shape
        ((1, 5), (1,))
    """
    return beam_search(model, variables, source_ids, source_mask, max_length, beams=1, alpha=0.0)


def beam_search(
    model: Transformer,
    variables: dict,
    source_ids: Int[Array, "B S"],
    source_mask: Int[Array, "B S"] | Bool[Array, "B S"] | None = None,
    max_length: int | None = None,
    beams: int = BEAMS,
    alpha: float = 0.6,
    *,
    all_beams: bool = False,
    scoring: Scoring = DEFAULT_SCORING,
) -> Decoded:
    """The best hypothesis of each source that beam search finds.

    Args:
        source_ids: source tokens.
        source_mask: 1 for tokens, 0 for padding; None: no padding.
        max_length: most tokens of a translation, the start token counted. None: for each
            sentence its own source's length + 50, so that padding changes nothing.
        beams: the number of hypotheses that run side by side; 1 is greedy search.
        alpha: scores are log-probabilities over ((5 + tokens) / 6)^alpha, the end of sentence
            counted; 0: plain sums.
        all_beams: return the `beams` best hypotheses rather than the best.
        scoring: another form of the length penalty, and further choices.

    Returns `ids [B, L]` and `scores [B]`, with `all_beams` `[B, beams, L]` and `[B, beams]`, best
    first; L is the most tokens that can be generated. Where fewer hypotheses exist the remaining
    rows are padding with score -inf. The configuration's `forced_eos_id` ends, at no cost, what
    reaches the maximum length, and its `banned_ids` are never generated otherwise.

    One program is compiled for each shape of the source, maximum length, number of beams, scoring
    and model; within `jax.set_mesh` it runs on the mesh with `variables` sharded as they are.

    Raises:
        ConfigError: `beams` or `alpha` out of range, or `max_length` below 2.
        DataError: a source or `max_length` beyond the model's positions.

    Example:
        >>> config = jf.TransformerConfig(
        ...     vocab_size=50, width=16, heads=2, feed_forward=32, max_length=16,
        ...     encoder_layers=1, decoder_layers=1,
        ... )
        >>> model, source_ids = jf.Transformer(config), jnp.array([[5, 8, 2]])
        >>> variables = model.init(jax.random.key(0), source_ids, source_ids)
        >>> options = dict(max_length=6, beams=2, all_beams=True)
        >>> decoded = jf.beam_search(model, variables, source_ids, **options)
        >>> decoded.ids.shape, decoded.scores.shape
        ((1, 2, 5), (1, 2))
    """
    options = dict(beams=beams, alpha=alpha, all_beams=all_beams, scoring=scoring)
    return search_to_end(model, variables, source_ids, source_mask, max_length, **options)[0]


def search_to_end(
    model: Transformer,
    variables: dict,
    source_ids: Int[Array, "B S"],
    source_mask: Int[Array, "B S"] | Bool[Array, "B S"] | None = None,
    max_length: int | None = None,
    longest: int | None = None,
    **options,
) -> tuple[Decoded, Bool[Array, " B"]]:
    """`beam_search`, and whether each sentence's search ended before its maximum length.

    `longest` bounds each sentence's own maximum, where `max_length` is None.
    """
    length = generated_length(model, source_ids.shape[1], max_length)
    mask = np.ones(source_ids.shape, bool) if source_mask is None else source_mask.astype(bool)
    limits = None
    if max_length is None:
        limits = (mask.sum(-1) + (EXTRA_LENGTH - 1)).astype(np.int32)
        limits = limits if longest is None else np.minimum(limits, longest - 1)
    decoder, inputs = CachedTransformer(model), (source_ids, mask)
    return decode_to_end(decoder, variables, inputs, length, limits, **options)


def generated_length(model: Transformer, source_length: int, max_length: int | None = None) -> int:
    """L: how many tokens a translation may have, the start token not counted."""
    positions = model.config.max_length
    if source_length > positions:
        raise DataError(
            f"a source of {source_length} tokens is longer than the model's {positions} positions"
        )
    if max_length is None:
        return min(source_length + EXTRA_LENGTH, positions) - 1
    if max_length < 2:
        raise ConfigError(f"max_length={max_length} leaves no token after the start token")
    if max_length > positions:
        raise DataError(f"max_length={max_length} is beyond the model's {positions} positions")
    return max_length - 1

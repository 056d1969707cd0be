"""Greedy and beam search (section 6.1) with the length penalty of Wu et al. 2016 (GNMT).

A hypothesis is complete when it ends in the end-of-sentence token or has reached the maximum
length. At each step the 2 x beams best continuations of a sentence are taken; those among the
first `beams` that are complete are kept if they are good enough, and the best `beams` of the
others go on. A sentence is done when none of its running beams can beat the worst kept hypothesis
any more, however long it grew: log-probabilities only fall, so the bound is exact.

Axis letters: B batch, S source length, L generated length.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxformers.arrays import Array
from jaxformers.decoding import cached
from jaxformers.decoding.candidates import Candidates, best_candidates
from jaxformers.errors import ConfigError, DataError
from jaxformers.models import Transformer
from jaxformers.sharding import batch_multiple, constrain

EXTRA_LENGTH = 50  # section 6.1: "maximum output length during inference to input length + 50"


class Decoded(NamedTuple):
    """What a search found: `ids, scores = greedy(...)`."""

    ids: Int[Array, "B L"] | Int[Array, "B beams L"]
    """Generated tokens, without the start token, the end of sentence included; then padding."""
    scores: Float[Array, " B"] | Float[Array, "B beams"]
    """Log-probability over the length penalty."""


def greedy(
    model: Transformer,
    variables: dict,
    source_ids: Int[Array, "B S"],
    source_mask: Int[Array, "B S"] | Bool[Array, "B S"] | None = None,
    max_length: int | None = None,
) -> Decoded:
    """The most probable next token, again and again.

    Arguments and errors are `beam_search`'s. `ids` are `[B, L]`; `scores [B]` are the sums of
    log-probabilities.
    """
    return beam_search(model, variables, source_ids, source_mask, max_length, beams=1, alpha=0.0)


def beam_search(
    model: Transformer,
    variables: dict,
    source_ids: Int[Array, "B S"],
    source_mask: Int[Array, "B S"] | Bool[Array, "B S"] | None = None,
    max_length: int | None = None,
    beams: int = 4,
    alpha: float = 0.6,
    *,
    all_beams: bool = False,
) -> Decoded:
    """The best hypothesis of each source that beam search finds.

    Args:
        source_ids: source tokens.
        source_mask: 1 for tokens, 0 for padding; None: no padding.
        max_length: most tokens of a translation, the start token counted. None: for each
            sentence its own source's length + 50, so that padding changes nothing.
        beams: hypotheses that run side by side; 1 is greedy search.
        alpha: scores are log-probabilities over ((5 + tokens) / 6)^alpha, the end of sentence
            counted; 0: plain sums.
        all_beams: return the `beams` best hypotheses rather than the best.

    Returns `ids [B, L]` and `scores [B]`, with `all_beams` `[B, beams, L]` and `[B, beams]`, best
    first; L is the most tokens that can be generated. Where fewer hypotheses exist the rest are
    padding with score -inf. The configuration's `forced_eos_id` ends, at no cost, what reaches the
    maximum length, and its `banned_ids` are never generated otherwise.

    One program is compiled for each shape of the source, maximum length, number of beams and
    model; within `jax.set_mesh` it runs on the mesh as `variables` lie there.

    Raises:
        ConfigError: beams or max_length that cannot be.
        DataError: a source or max_length beyond the model's positions.
    """
    if beams < 1:
        raise ConfigError(f"a search with beams={beams}; it takes 1 or more")
    length = generated_length(model, source_ids.shape[1], max_length)
    if source_mask is None:
        source_mask = np.ones(source_ids.shape, bool)
    rows = source_ids.shape[0]
    if missing := -rows % batch_multiple():
        more = ((0, missing), (0, 0))
        source_ids, source_mask = (jnp.pad(x, more, mode="edge") for x in (source_ids, source_mask))
    found = _search(
        model,
        variables["params"],
        source_ids,
        source_mask,
        np.float32(alpha),
        sizes=Sizes(rows, beams, beams if all_beams else 1, length, max_length is None),
    )
    return found if all_beams else Decoded(found.ids[:, 0], found.scores[:, 0])


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


class Sizes(NamedTuple):
    """What a compiled search is fixed to."""

    rows: int
    """Sentences asked for; a mesh may want more in a batch."""
    beams: int
    kept: int
    """How many complete hypotheses are kept."""
    length: int
    """The most tokens generated."""
    by_source: bool
    """Whether each sentence's limit is its own source's length + 50."""


@flax.struct.dataclass
class State:
    """The search after `time` tokens; the best beam and the best hypothesis come first."""

    time: Int[Array, ""]
    tokens: Int[Array, "B beams"]
    """Newest token of each running beam."""
    scores: Float[Array, "B beams"]
    """Log-probability of each running beam; -inf: there is none."""
    ids: Int[Array, "B beams L"]
    ancestors: Int[Array, "B beams L"]
    """The slot of each place that a running beam descends from (see `cached`)."""
    kept_ids: Int[Array, "B kept L"]
    kept_scores: Float[Array, "B kept"]
    """Score of each complete hypothesis, length penalty applied; -inf: there is none."""
    done: Bool[Array, " B"]
    cache: Any


@partial(jax.jit, static_argnames=("model", "sizes"))
def _search(model, params, source_ids, source_mask, alpha, sizes: Sizes) -> Decoded:
    source_mask = source_mask.astype(bool)
    limits = jnp.full(source_ids.shape[:1], sizes.length)
    if sizes.by_source:
        limits = jnp.minimum(limits, source_mask.sum(-1) + (EXTRA_LENGTH - 1))
    prepared = cached.prepare(model, params, source_ids, source_mask)

    def grow(state: State) -> State:
        logits, cache = cached.step(
            model, prepared, state.cache, state.tokens, state.ancestors, state.time
        )
        found = _candidates(model.config, logits, state, limits)
        return _advance(model.config, state, found, limits, alpha).replace(cache=cache)

    end = jax.lax.while_loop(
        lambda s: (s.time < sizes.length) & ~s.done.all(),
        grow,
        _start(model, source_ids.shape[0], sizes),
    )
    # Whole on every device, so that each host of a pod can read all of it.
    ids, scores = (constrain(x, *(None,) * x.ndim) for x in (end.kept_ids, end.kept_scores))
    return Decoded(ids[: sizes.rows], scores[: sizes.rows])


def _start(model: Transformer, batch: int, sizes: Sizes) -> State:
    c, beams, kept, length = model.config, sizes.beams, sizes.kept, sizes.length
    lead = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)
    return State(
        time=jnp.int32(0),
        tokens=jnp.full((batch, beams), c.start_id, jnp.int32),
        scores=jnp.broadcast_to(lead, (batch, beams)),
        ids=jnp.full((batch, beams, length), c.pad_id, jnp.int32),
        ancestors=jnp.broadcast_to(jnp.arange(beams)[None, :, None], (batch, beams, length)),
        kept_ids=jnp.full((batch, kept, length), c.pad_id, jnp.int32),
        kept_scores=jnp.full((batch, kept), -jnp.inf),
        done=jnp.zeros(batch, bool),
        cache=cached.empty_cache(model, batch, length * beams),
    )


def _candidates(config, logits: Array, state: State, limits: Array) -> Candidates:
    """The best continuations; at the maximum length, each beam's forced token if there is one."""
    beams = state.tokens.shape[1]
    ban = np.zeros(logits.shape[-1], np.float32)
    ban[list(config.banned_ids)] = ban[config.vocab_size :] = -np.inf
    # With one beam a second candidate would outlive a complete first: no longer greedy search.
    count = 1 if beams == 1 else min(2 * beams, beams * config.vocab_size)
    found = best_candidates(logits, state.scores, count, ban)
    if config.forced_eos_id is None:
        return found
    last = (state.time + 1 >= limits)[:, None]
    more = ((0, 0), (0, count - beams))
    forced = jnp.pad(state.scores, more, constant_values=-jnp.inf)
    own = jnp.minimum(jnp.arange(count), beams - 1)[None, :]
    return Candidates(
        jnp.where(last, forced, found.scores),
        jnp.where(last, own, found.parents),
        jnp.where(last, config.forced_eos_id, found.tokens),
    )


def _advance(config, state: State, found: Candidates, limits: Array, alpha: Array) -> State:
    """Keeps the complete ones among the first `beams` candidates, goes on with the best others."""
    beams, kept = state.tokens.shape[1], state.kept_scores.shape[1]
    time = state.time + 1
    ids = _take(state.ids, found.parents).at[:, :, state.time].set(found.tokens)
    complete = (found.tokens == config.eos_id) | (time >= limits)[:, None]

    new = jnp.where(complete & ~state.done[:, None], found.scores / penalty(time, alpha), -jnp.inf)
    merged = jnp.concatenate([state.kept_scores, new[:, :beams]], axis=1)
    kept_scores, best = jax.lax.top_k(merged, kept)
    kept_ids = _take(jnp.concatenate([state.kept_ids, ids[:, :beams]], axis=1), best)

    scores, best = jax.lax.top_k(jnp.where(complete, -jnp.inf, found.scores), beams)
    parents = jnp.take_along_axis(found.parents, best, axis=1)
    ancestors = _take(state.ancestors, parents).at[:, :, time].set(jnp.arange(beams)[None])
    ends = jnp.stack([jnp.broadcast_to(time + 1, limits.shape), limits])
    possible = (scores[None, :, 0] / penalty(ends, alpha)).max(0)
    return state.replace(
        time=time,
        tokens=jnp.take_along_axis(found.tokens, best, axis=1),
        scores=scores,
        ids=_take(ids, best),
        ancestors=ancestors,
        kept_ids=kept_ids,
        kept_scores=kept_scores,
        done=state.done | (possible <= kept_scores[:, -1]),
    )


def penalty(length: Array, alpha: Array) -> Array:
    """((5 + length) / 6)^alpha, by which log-probabilities are divided (GNMT, equation 14)."""
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def _take(rows: Int[Array, "B N L"], which: Int[Array, "B M"]) -> Int[Array, "B M L"]:
    return jnp.take_along_axis(rows, which[..., None], axis=1)

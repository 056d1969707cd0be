"""Greedy and beam search over any `StepDecoder`, as one compiled loop.

A hypothesis Y is complete when it ends in the end-of-sequence token or has reached its maximum
length. Its score is that of Wu et al. 2016 (GNMT), equation 14, without the coverage penalty:

    score(Y) = log P(Y | X) / lp(Y),    lp(Y) = ((5 + |Y|) / 6)^alpha

At each step the 2 x beams best continuations of an example are taken: as at most `beams` of them
are an end of sequence, `beams` others remain to go on. Those among the first `beams` that are
complete compete for the `best` complete hypotheses.

An example is done when no running beam can beat the worst of its complete hypotheses any more,
however long it grew. Log-probabilities only fall, so a beam with log-probability s ends with at
most s / lp(n) for some n between the next length and the limit. lp is monotonic in n, so the
largest of these is at one of the two ends: the bound is exact for any sign of alpha.

`Scoring` has the choices of Hugging Face's `generate` beside these, for weights whose publisher
states them.

Axis letters: B batch, L generated length, V vocabulary.
"""

from __future__ import annotations

import numbers
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxformers.arrays import Array
from jaxformers.decoding.candidates import Candidates, best_candidates
from jaxformers.decoding.protocol import StepDecoder, Vocabulary, first_cache, padded_batch
from jaxformers.decoding.scoring import Scoring, completes_repeated_ngram, length_penalty
from jaxformers.errors import ConfigError
from jaxformers.sharding import constrain

MOST_BEAMS = 256  # each keeps a cache of keys and values
LARGEST_ALPHA = 10  # beyond it the length penalty of long sequences leaves float32
BEAMS, DEFAULT_SCORING = 4, Scoring()


class Decoded(NamedTuple):
    """The generated sequences: `ids, scores = greedy(...)`."""

    ids: Int[Array, "B L"] | Int[Array, "B beams L"]
    """Generated tokens, without the start token, the end of sequence included; then padding."""
    scores: Float[Array, " B"] | Float[Array, "B beams"]
    """Log-probability over the length penalty."""


def decode(
    decoder: StepDecoder,
    variables: Any,
    inputs: Any,
    max_tokens: int,
    limits: Int[Array, " B"] | None = None,
    *,
    beams: int = BEAMS,
    alpha: float = 0.6,
    all_beams: bool = False,
    scoring: Scoring = DEFAULT_SCORING,
) -> Decoded:
    """Beam search over any model; greedy search with `beams=1`, `alpha=0`.

    Args:
        decoder: the model, hashable; see `StepDecoder`.
        variables: its variables.
        inputs: what its `encode` takes: any pytree of arrays, batch first.
        max_tokens: L, the most tokens generated, the end of sequence counted.
        limits: the most tokens of each example, where fewer than `max_tokens`.
        beams: the number of hypotheses that run side by side; 1 is greedy search.
        alpha: the exponent of the length penalty; 0: scores are sums of log-probabilities.
        all_beams: return the `beams` best hypotheses rather than the best.
        scoring: the form of the length penalty, when a search ends, what may not be repeated.

    Returns `ids [B, L]` and `scores [B]`, with `all_beams` `[B, beams, L]` and `[B, beams]`, best
    first. Where fewer hypotheses exist the remaining rows are padding with score -inf.

    One program is compiled for each decoder, shape of the inputs, `max_tokens`, number of beams
    and scoring; within `jax.set_mesh` it runs on the mesh with `variables` sharded as they are.

    Raises:
        ConfigError: `beams`, `alpha` or `max_tokens` out of range.
    """
    return decode_to_end(
        decoder,
        variables,
        inputs,
        max_tokens,
        limits,
        beams=beams,
        alpha=alpha,
        all_beams=all_beams,
        scoring=scoring,
    )[0]


def decode_to_end(
    decoder: StepDecoder,
    variables: Any,
    inputs: Any,
    max_tokens: int,
    limits: Int[Array, " B"] | None = None,
    *,
    beams: int = BEAMS,
    alpha: float = 0.6,
    all_beams: bool = False,
    scoring: Scoring = DEFAULT_SCORING,
) -> tuple[Decoded, Bool[Array, " B"]]:
    """`decode`, and whether each example's search ended before its limit.

    Where it did, a larger limit would give the same hypotheses, as long as the bound of the
    module's docstring does not depend on the limit (`scoring.stopping` other than "exact").
    """
    check_search(beams, alpha)
    if max_tokens < 1:
        raise ConfigError(f"a search with max_tokens={max_tokens}; it takes 1 or more")
    rows = jax.tree.leaves(inputs)[0].shape[0]
    inputs, limits = padded_batch((inputs, limits))
    # Only the exact bound lets a search end when its best hypothesis is certain.
    best = 1 if scoring.stopping == "exact" and not all_beams else beams
    decoded, ended = _search(
        decoder,
        variables,
        inputs,
        limits,
        np.float32(alpha),
        sizes=Sizes(rows, beams, best, max_tokens),
        scoring=scoring,
    )
    return decoded if all_beams else Decoded(decoded.ids[:, 0], decoded.scores[:, 0]), ended


def check_search(beams: Any, alpha: Any) -> None:
    """Raises ConfigError unless `beams` is from 1 to 256 and `alpha` from -10 to 10."""
    if not isinstance(beams, numbers.Integral) or not 1 <= beams <= MOST_BEAMS:
        raise ConfigError(
            f"a search with beams={beams}; it takes a whole number from 1 to {MOST_BEAMS}"
        )
    # A comparison with NaN is false.
    if not isinstance(alpha, numbers.Real) or not -LARGEST_ALPHA <= alpha <= LARGEST_ALPHA:
        raise ConfigError(
            f"a search with alpha={alpha}; it takes a number from {-LARGEST_ALPHA} to "
            f"{LARGEST_ALPHA}"
        )


class Sizes(NamedTuple):
    """The numbers that a compiled search is specialised to."""

    rows: int
    """Examples returned; a mesh may want more in a batch."""
    beams: int
    best: int
    """Complete hypotheses returned for each example."""
    length: int
    """L, the most tokens generated."""


@flax.struct.dataclass
class State:
    """The search after `time` tokens; running beams and complete hypotheses are best first."""

    time: Int[Array, ""]
    tokens: Int[Array, "B beams"]
    """Newest token of each running beam."""
    scores: Float[Array, "B beams"]
    """Log-probability of each running beam; -inf: there is none."""
    ids: Int[Array, "B beams L"]
    complete_ids: Int[Array, "B best L"]
    complete_scores: Float[Array, "B best"]
    """Score of each complete hypothesis, length penalty applied; -inf: there is none."""
    done: Bool[Array, " B"]
    ended: Bool[Array, " B"]
    """Whether the example was done before it reached its limit."""
    cache: Any


@partial(jax.jit, static_argnames=("decoder", "sizes", "scoring"))
def _search(decoder, variables, inputs, limits, alpha, sizes: Sizes, scoring: Scoring):
    batch = jax.tree.leaves(inputs)[0].shape[0]
    longest = jnp.full(batch, sizes.length)
    limits = longest if limits is None else jnp.minimum(limits, longest)
    vocabulary = decoder.vocabulary
    memory = decoder.encode(variables, inputs)

    def grow(state: State) -> State:
        logits, cache = decoder.step(memory, state.cache, state.tokens, state.time)
        candidates = _candidates(vocabulary, logits, state, limits, scoring)
        state, parents = _advance(vocabulary, state, candidates, limits, alpha, scoring)
        return state.replace(cache=decoder.reorder(cache, parents))

    end = jax.lax.while_loop(
        lambda s: (s.time < sizes.length) & ~s.done.all(),
        grow,
        _initial_state(
            vocabulary,
            first_cache(decoder, memory, batch, sizes.beams, sizes.length),
            limits,
            sizes,
        ),
    )
    # Replicated on every device, so that each host of a pod can read all rows.
    ids, scores, ended = (
        constrain(x, *(None,) * x.ndim)[: sizes.rows]
        for x in (end.complete_ids, end.complete_scores, end.ended)
    )
    return Decoded(ids, scores), ended


def _initial_state(vocabulary: Vocabulary, cache: Any, limits: Array, sizes: Sizes) -> State:
    batch, (_, beams, best, length) = len(limits), sizes
    # All beams begin with the same token: were more than one alive, candidates would come twice.
    scores = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)
    return State(
        time=jnp.int32(0),
        tokens=jnp.full((batch, beams), vocabulary.start_id, jnp.int32),
        scores=jnp.broadcast_to(scores, (batch, beams)),
        ids=jnp.full((batch, beams, length), vocabulary.pad_id, jnp.int32),
        complete_ids=jnp.full((batch, best, length), vocabulary.pad_id, jnp.int32),
        complete_scores=jnp.full((batch, best), -jnp.inf),
        done=jnp.zeros(batch, bool),
        ended=jnp.zeros(batch, bool),
        cache=cache,
    )


def _candidates(
    vocabulary: Vocabulary, logits: Array, state: State, limits: Array, scoring: Scoring
) -> Candidates:
    """The best continuations; at the maximum length, each beam's forced token if there is one."""
    beams = state.tokens.shape[1]
    ban = np.zeros(logits.shape[-1], np.float32)
    ban[list(vocabulary.banned_ids)] = ban[vocabulary.size :] = -np.inf
    # With one beam a second candidate would outlive a complete first: no longer greedy search.
    count = 1 if beams == 1 else min(2 * beams, beams * vocabulary.size)
    log_normalizers, allowed = None, logits  # [B, beams], [B, beams, V]
    if scoring.no_repeat_ngram:
        log_normalizers = jax.nn.logsumexp(logits, axis=-1)
        repeated = completes_repeated_ngram(
            state.ids, state.time, vocabulary.start_id, scoring.no_repeat_ngram, logits.shape[-1]
        )
        allowed = jnp.where(repeated, -jnp.inf, logits)
    if scoring.renormalize:
        log_normalizers = jax.nn.logsumexp(allowed + ban[None, None], axis=-1)
        # A beam that may go on with no token at all has no finite normaliser, and no candidate.
        log_normalizers = jnp.where(jnp.isneginf(log_normalizers), 0.0, log_normalizers)
    candidates = best_candidates(allowed, state.scores, count, ban, log_normalizers)  # [B, count]
    if vocabulary.forced_eos_id is None:
        return candidates
    # At the limit beam i has candidate i, which costs nothing; the others have score -inf.
    at_limit = (state.time + 1 >= limits)[:, None]
    padding = ((0, 0), (0, count - beams))
    forced_scores = jnp.pad(state.scores, padding, constant_values=-jnp.inf)
    own_beam = jnp.minimum(jnp.arange(count), beams - 1)[None, :]
    return Candidates(
        jnp.where(at_limit, forced_scores, candidates.scores),
        jnp.where(at_limit, own_beam, candidates.parents),
        jnp.where(at_limit, vocabulary.forced_eos_id, candidates.tokens),
    )


def _advance(
    vocabulary: Vocabulary,
    state: State,
    candidates: Candidates,
    limits: Array,
    alpha: Array,
    scoring: Scoring,
) -> tuple[State, Int[Array, "B beams"]]:
    """The state a token later, but for its cache, and the beam that each new beam continues."""
    beams, best = state.tokens.shape[1], state.complete_scores.shape[1]
    time = state.time + 1
    ids = _gather(state.ids, candidates.parents)  # [B, count, L]
    ids = ids.at[:, :, state.time].set(candidates.tokens)
    complete = (candidates.tokens == vocabulary.eos_id) | (time >= limits)[:, None]

    # Only the first `beams` candidates may complete: a worse one would not have been a beam.
    new_scores = candidates.scores / length_penalty(time, alpha, scoring.length_norm)
    new_scores = jnp.where(complete & ~state.done[:, None], new_scores, -jnp.inf)
    merged = jnp.concatenate([state.complete_scores, new_scores[:, :beams]], axis=1)
    complete_scores, order = jax.lax.top_k(merged, best)
    complete_ids = jnp.concatenate([state.complete_ids, ids[:, :beams]], axis=1)
    complete_ids = _gather(complete_ids, order)  # [B, best, L]

    scores, order = jax.lax.top_k(jnp.where(complete, -jnp.inf, candidates.scores), beams)
    if scoring.stopping == "all_complete":
        stop = jnp.isfinite(complete_scores[:, -1]) | jnp.isneginf(scores[:, 0])
    else:
        # The stopping rule of the module's docstring: the best running beam, at both ends.
        lengths = jnp.stack([jnp.broadcast_to(time + 1, limits.shape), limits])  # [2, B]
        if scoring.stopping == "present_length":
            lengths = jnp.broadcast_to(time, (1, len(limits)))
        bound = scores[None, :, 0] / length_penalty(lengths, alpha, scoring.length_norm)
        stop = bound.max(0) <= complete_scores[:, -1]  # [B]
    done = state.done | stop
    state = state.replace(
        time=time,
        tokens=jnp.take_along_axis(candidates.tokens, order, axis=1),
        scores=scores,
        ids=_gather(ids, order),
        complete_ids=complete_ids,
        complete_scores=complete_scores,
        done=done,
        ended=state.ended | (done & (time < limits)),
    )
    return state, jnp.take_along_axis(candidates.parents, order, axis=1)


def _gather(rows: Int[Array, "B N L"], indices: Int[Array, "B M"]) -> Int[Array, "B M L"]:
    """`rows[b, indices[b, m]]`."""
    return jnp.take_along_axis(rows, indices[..., None], axis=1)

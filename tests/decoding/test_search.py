"""The search finds what it should, and nothing about batching, caching or shapes changes it."""

import itertools
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.decoding import beam_search, greedy
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.models import Transformer, TransformerConfig

PAD, EOS = 0, 1


@cache
def tiny(vocab=5, seed=0, scale=3.0, execution=None, **changes):
    """A small model whose logits are far enough apart to prefer something."""
    config = TransformerConfig(
        vocab, width=8, heads=2, feed_forward=16, encoder_layers=1, decoder_layers=2,
        max_length=96, pad_id=PAD, eos_id=EOS, logits_bias=True, **changes,
    )  # fmt: skip
    model = Transformer(config, execution or Execution())
    ids = jnp.zeros((1, 3), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(seed), ids, ids)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    variables = jax.tree.unflatten(tree, noisy)
    variables["params"]["token_embedding"]["table"] *= scale
    return model, variables


def sources(vocab, rows=3, length=6, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, vocab, (rows, length)).astype(np.int32)
    mask = (np.arange(length) < rng.integers(2, length + 1, (rows, 1))).astype(np.int32)
    return np.where(mask, ids, PAD).astype(np.int32), mask


@partial(jax.jit, static_argnames="model")
def _log_softmax(model, variables, *inputs):
    return jax.nn.log_softmax(model.apply(variables, *inputs))


def log_probs(model, variables, source, mask, generated):
    """Log-probabilities [N, T, V] of every next token of N sequences, computed without a cache."""
    n = len(generated)
    start = np.full((n, 1), model.config.start_id)
    inputs = np.concatenate([start, generated], axis=1)[:, :-1]
    every = (np.repeat(source[None], n, 0), inputs, np.repeat(mask[None], n, 0))
    return np.asarray(_log_softmax(model, variables, *every), np.float64)


def exhaustive(model, variables, source, mask, length, alpha):
    """The best score of all complete sequences, and that sequence, padded."""
    c = model.config
    allowed = [t for t in range(c.vocab_size) if t not in c.banned_ids]
    every = np.array(list(itertools.product(allowed, repeat=length)))
    logp = log_probs(model, variables, source, mask, every)
    logp = np.take_along_axis(logp, every[:, :, None], 2)[:, :, 0]
    best = (-np.inf, None)
    for row, steps in zip(every, logp, strict=True):
        ends = np.flatnonzero(row == c.eos_id)
        n = ends[0] + 1 if len(ends) else length
        if n == length and c.forced_eos_id is not None:
            if row[-1] != c.forced_eos_id:
                continue
            steps = [*steps[:-1], 0.0]
        score = sum(steps[:n]) / ((5 + n) / 6) ** alpha
        if score > best[0]:
            best = score, [*row[:n], *[c.pad_id] * (length - n)]
    return best


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    ("vocab", "length", "alpha", "changes"),
    [
        (4, 5, 0.0, {}),
        (4, 5, 0.6, dict(norm_position="pre")),
        (5, 4, 2.0, dict(banned_ids=(0,))),
        (5, 4, -0.5, dict(positions="marian", zero_pad=False)),
        (6, 3, 0.6, dict(forced_eos_id=EOS)),
        (6, 3, 1.0, dict(banned_ids=(0, 3), forced_eos_id=EOS, start_id=4)),
    ],
)
def test_beam_search_returns_the_highest_scoring_of_all_sequences(vocab, length, alpha, changes):
    execution = Execution(vocab_multiple=4)
    for seed in range(2):
        model, variables = tiny(vocab, seed, execution=execution, **changes)
        ids, mask = sources(vocab, seed=seed)
        beams = vocab ** (length - 1)  # no beam is ever left out before the last token
        result = beam_search(model, variables, ids, mask, length + 1, beams, alpha)
        for row in range(len(ids)):
            score, best = exhaustive(model, variables, ids[row], mask[row], length, alpha)
            assert result.ids[row].tolist() == best
            np.testing.assert_allclose(result.scores[row], score, rtol=1e-5, atol=1e-5)


def generated_lengths(ids):
    ended = (ids == EOS).any(-1)
    return np.where(ended, (ids == EOS).argmax(-1) + 1, ids.shape[-1])


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("beams", [1, 4])
def test_scores_of_cached_decoding_equal_those_computed_without_a_cache(beams):
    model, variables = tiny(23, scale=1.5)
    ids, mask = sources(23, rows=5)
    result = beam_search(model, variables, ids, mask, 20, beams, 0.6, all_beams=True)
    for row in range(len(ids)):
        hypotheses = np.asarray(result.ids[row])
        n = generated_lengths(hypotheses)
        logp = log_probs(model, variables, ids[row], mask[row], hypotheses)
        logp = np.take_along_axis(logp, hypotheses[:, :, None], 2)[:, :, 0]
        sums = (logp * (np.arange(19) < n[:, None])).sum(-1) / ((5 + n) / 6) ** 0.6
        np.testing.assert_allclose(result.scores[row], sums, atol=2e-5)
    assert len(np.unique(np.asarray(result.ids).reshape(-1, 19), axis=0)) > beams


def test_greedy_takes_the_most_probable_token_each_time():
    model, variables = tiny(23, scale=1.5)
    ids, mask = sources(23, rows=5)
    generated, scores = greedy(model, variables, ids, mask, 16)
    for row in range(len(ids)):
        logp = log_probs(model, variables, ids[row], mask[row], np.asarray(generated[row])[None])[0]
        n = generated_lengths(np.asarray(generated[row]))
        assert logp.argmax(-1)[:n].tolist() == generated[row, :n].tolist()
        assert (generated[row, n:] == PAD).all()
        np.testing.assert_allclose(scores[row], logp.max(-1)[:n].sum(), atol=1e-4)
    one_beam = beam_search(model, variables, ids, mask, 16, beams=1, alpha=0.6)
    np.testing.assert_array_equal(one_beam.ids, generated)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(("search", "max_length"), [(greedy, 9), (beam_search, None)])
def test_a_batch_gives_each_sentence_what_it_gets_alone_without_padding(search, max_length):
    model, variables = tiny(23, scale=1.0)
    ids, mask = sources(23, rows=6)
    mask = (np.arange(6) < np.array([2, 6, 4, 4, 2, 6])[:, None]).astype(np.int32)
    ids = np.where(mask, np.maximum(ids, 2), PAD).astype(np.int32)
    together = search(model, variables, ids, mask, max_length)
    for row in range(len(ids)):
        alone = search(model, variables, ids[row : row + 1, : mask[row].sum()], None, max_length)
        width = alone.ids.shape[1]
        np.testing.assert_array_equal(together.ids[row, :width], alone.ids[0])
        assert (together.ids[row, width:] == PAD).all()
        np.testing.assert_allclose(together.scores[row], alone.scores[0], rtol=1e-5)


@pytest.mark.slow
def test_the_start_token_counts_and_the_default_limit_is_the_source_and_fifty():
    model, variables = tiny(7, banned_ids=(PAD, EOS))  # never ends by itself
    ids, mask = sources(7)
    assert beam_search(model, variables, ids, mask, 8).ids.shape == (3, 7)
    generated = beam_search(model, variables, ids, mask).ids
    assert ((np.asarray(generated) != PAD).sum(-1) == mask.sum(-1) + 49).all()


@pytest.mark.slow
def test_all_beams_come_best_first_distinct_and_with_the_best_in_front():
    model, variables = tiny(23, scale=1.0)
    ids, mask = sources(23)
    every = beam_search(model, variables, ids, mask, 12, all_beams=True)
    assert every.ids.shape == (3, 4, 11) and every.scores.shape == (3, 4)
    assert (np.diff(every.scores) <= 0).all()
    best = beam_search(model, variables, ids, mask, 12)
    np.testing.assert_array_equal(every.ids[:, 0], best.ids)
    np.testing.assert_allclose(every.scores[:, 0], best.scores, rtol=1e-6)
    assert all(len(np.unique(rows, axis=0)) == 4 for rows in np.asarray(every.ids))


@pytest.mark.slow
def test_banned_and_padding_tokens_never_come_and_the_forced_one_comes_last():
    changes = dict(banned_ids=(3, 5, PAD), forced_eos_id=EOS)
    model, variables = tiny(10, execution=Execution(vocab_multiple=8), **changes)
    variables = jax.tree.map(lambda p: p, variables)
    params = variables["params"]
    params["token_embedding"]["table"] = params["token_embedding"]["table"].at[10:].set(50.0)
    params["logits_bias"] = params["logits_bias"].at[jnp.array([3, 5])].set(9.0).at[EOS].set(-20.0)
    ids, mask = sources(10)
    for result in (
        greedy(model, variables, ids, mask, 9),
        beam_search(model, variables, ids, mask, 9),
    ):
        generated = np.asarray(result.ids)
        assert (generated[:, -1] == EOS).all()
        assert not np.isin(generated, (3, 5, PAD, *range(10, 16))).any()


def compilations(run):
    """How many programs `run` compiles."""
    counted = []
    event = "/jax/core/compile/backend_compile_duration"
    jax.monitoring.register_event_duration_secs_listener(
        listener := lambda name, *_, **__: counted.append(name) if name == event else None
    )
    try:
        run()
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    return len(counted)


def test_nothing_is_compiled_after_the_first_call_for_a_shape():
    model, variables = tiny(11)
    ids, mask = sources(11)
    beam_search(model, variables, ids, mask, 10)
    other_variables = tiny(11, seed=5)[1]
    again = Transformer(replace(model.config))

    def run():
        more, more_mask = sources(11, seed=3)
        jax.block_until_ready(beam_search(again, other_variables, more, more_mask, 10, alpha=0.2))

    assert compilations(run) == 0
    assert compilations(lambda: beam_search(model, variables, ids, mask, 11)) > 0


def test_bfloat16_models_decode():
    model, variables = tiny(23, execution=Execution("bfloat16"))
    ids, mask = sources(23)
    assert np.isfinite(beam_search(model, variables, ids, mask, 9).scores).all()


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        (dict(max_length=1), ConfigError, "max_length=1"),
        (dict(beams=0), ConfigError, "beams=0"),
        (dict(beams=1000), ConfigError, "beams=1000; it takes a whole number from 1 to 256"),
        (dict(alpha=float("nan")), ConfigError, "alpha=nan; it takes a number from -10 to 10"),
        (dict(alpha=float("inf")), ConfigError, "alpha=inf"),
        (dict(max_length=97), DataError, "96 positions"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(changes, error, text):
    model, variables = tiny()
    with pytest.raises(error, match=text) as caught:
        beam_search(model, variables, *sources(5), **changes)
    assert "\n" not in str(caught.value)

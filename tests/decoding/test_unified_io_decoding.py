"""Text and codes from Unified-IO: the cached loops against plain NumPy statements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.decoding import (
    Sampling,
    decode,
    generate_codes,
    generate_text,
    sample,
    score_options,
)
from jaxformers.decoding.generation import decoder_text
from jaxformers.decoding.sampling import _sample, draw, in_nucleus
from jaxformers.decoding.unified_io import CachedUnifiedIO
from jaxformers.errors import ConfigError, DataError
from tests.fixtures import unified_io_cases as cases
from tests.helpers.unified_io import network

LENGTH, CODES = 6, 9
TARGETS = ("target_ids", "target_mask", "target_codes")
MODEL, VARIABLES = network("odd")
V = MODEL.config.vocab_size
APPLY = jax.jit(MODEL.apply)


def encoder_inputs(case="both"):
    return {key: value for key, value in cases.inputs(case).items() if key not in TARGETS}


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def text_log_probs(inputs, row, ids):
    """Log-probabilities of the token after each of `ids`, by the network without a cache."""
    target = np.zeros((2, LENGTH), np.int32)
    target[row, 1 : len(ids) + 1] = ids
    logits = APPLY(VARIABLES, **inputs, target_ids=target).text_logits
    return log_softmax(logits[row])


def plain_beam_search(inputs, row, beams):
    running, complete = [((), 0.0)], []
    for time in range(LENGTH):
        candidates = [
            ((*ids, token), score + gain)
            for ids, score in running
            for token, gain in enumerate(text_log_probs(inputs, row, ids)[time])
        ]
        candidates = sorted(candidates, key=lambda c: -c[1])[: 2 * beams]
        ends = [c for c in candidates[:beams] if c[0][-1] == 1 or time == LENGTH - 1]
        complete = sorted(complete + ends, key=lambda c: -c[1])[:beams]
        running = [c for c in candidates if c[0][-1] != 1][:beams]
    return complete[0]


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("beams", [1, 3])
def test_text_is_that_of_a_plain_search_without_a_cache(beams):
    inputs = encoder_inputs()
    ids, scores = generate_text(MODEL, VARIABLES, inputs, LENGTH, beams=beams)
    for row in range(2):
        expected, score = plain_beam_search(inputs, row, beams)
        np.testing.assert_array_equal(ids[row][: len(expected)], expected)
        assert not ids[row][len(expected) :].any()
        assert float(scores[row]) == pytest.approx(score, abs=1e-4)


def codes_log_probs(inputs, codes, text_ids):
    target_ids, target_mask = decoder_text(text_ids)
    target_codes = np.pad(codes[:, :-1] + V, ((0, 0), (1, 0)), constant_values=V - 1)
    text = dict(target_ids=target_ids, target_mask=target_mask)
    logits = APPLY(VARIABLES, **inputs, **text, target_codes=target_codes.astype(np.int32))
    return log_softmax(logits.image_logits)


TEXTS = {"empty": np.full((2, 1), 1, np.int32), "ended": np.array([[7, 1, 0, 0], [5, 6, 8, 1]])}


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("text", sorted(TEXTS))
def test_codes_come_from_the_nucleus_of_the_network_without_a_cache(text):
    inputs, text_ids = encoder_inputs(), TEXTS[text].astype(np.int32)
    decoder_ids = None if text == "empty" else text_ids
    sampling = Sampling(temperature=0.7, top_p=0.6)
    codes, scores = generate_codes(
        MODEL, VARIABLES, inputs, jax.random.key(3), decoder_ids, CODES, sampling=sampling
    )
    log_probs = codes_log_probs(inputs, np.asarray(codes), text_ids)
    chosen = np.take_along_axis(log_probs, np.asarray(codes)[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(scores, chosen.sum(1), atol=1e-3)
    for row in range(2):
        for time in range(CODES):
            assert codes[row, time] in plain_nucleus(np.exp(log_probs[row, time]), 0.6)


def plain_nucleus(probabilities, top_p):
    """The fewest most probable tokens whose probabilities sum to `top_p`."""
    tokens, total = [], 0.0
    for token in np.argsort(-probabilities):
        tokens.append(token)
        total += probabilities[token]
        if total >= top_p:
            break
    return tokens


def test_the_nucleus_is_that_of_a_plain_statement():
    logits = np.random.default_rng(0).normal(size=(40, 23)).astype(np.float32) * 2
    for top_p in (1e-6, 0.3, 0.9, 1.0):
        allowed = np.asarray(in_nucleus(logits, jnp.float32(top_p)))
        for row in range(40):
            probabilities = np.exp(log_softmax(logits[row]))
            # All tokens at 1, whatever their sum is rounded to.
            expected = range(23) if top_p == 1 else plain_nucleus(probabilities, top_p)
            assert set(np.flatnonzero(allowed[row])) == set(expected)


def test_tokens_are_drawn_in_proportion_to_their_tempered_probabilities():
    logits, count, temperature = np.array([2.0, 1.0, 0.5, -1.0], np.float32), 20_000, 0.5
    keys = jax.random.split(jax.random.key(0), count)
    rows = jnp.broadcast_to(logits, (count, 4))
    drawn = draw(keys, rows, jnp.float32(temperature), jnp.float32(0.9))
    nucleus = plain_nucleus(np.exp(log_softmax(logits)), 0.9)
    odds = np.where(np.isin(np.arange(4), nucleus), np.exp(logits / temperature), 0)
    expected = odds / odds.sum()
    shares = np.bincount(drawn, minlength=4) / count
    assert (np.abs(shares - expected) <= 4 * np.sqrt(expected * (1 - expected) / count)).all()
    greedy = draw(keys[:3], rows[:3], jnp.float32(0), jnp.float32(0.9))
    np.testing.assert_array_equal(greedy, [0, 0, 0])


def test_guidance_combines_the_logits_of_both_inputs():
    inputs = encoder_inputs()
    unprompted = inputs | {"input_ids": np.zeros_like(inputs["input_ids"])}
    sampling = Sampling(temperature=0.0, guidance=2.5)
    codes, _ = generate_codes(
        MODEL,
        VARIABLES,
        inputs,
        jax.random.key(0),
        num_codes=CODES,
        sampling=sampling,
        unconditional=unprompted,
    )
    text_ids = TEXTS["empty"]
    with_prompt = codes_log_probs(inputs, np.asarray(codes), text_ids)
    without = codes_log_probs(unprompted, np.asarray(codes), text_ids)
    guided = without + 2.5 * (with_prompt - without)
    np.testing.assert_array_equal(codes, guided.argmax(-1))


def test_what_an_example_draws_depends_on_no_other_and_sizes_of_sampling_compile_nothing():
    decoder, inputs = CachedUnifiedIO(MODEL, LENGTH), encoder_inputs()
    key = jax.random.key(1)
    first = sample(decoder, VARIABLES, inputs, LENGTH, key, Sampling(top_p=0.9))
    programs = _sample._cache_size()
    changed = {k: np.concatenate([v[:1], v[:1]]) for k, v in inputs.items()}
    second = sample(decoder, VARIABLES, changed, LENGTH, key, Sampling(top_p=0.9))
    np.testing.assert_array_equal(first.ids[0], second.ids[0])
    sample(decoder, VARIABLES, inputs, LENGTH, jax.random.key(2), Sampling(0.3, 0.5))
    assert _sample._cache_size() == programs
    assert (np.cumsum(np.asarray(first.ids) == 1, axis=1)[:, :-1] * first.ids[:, 1:] == 0).all()


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_scores_of_options_are_their_log_probabilities(reduce, modality):
    inputs = encoder_inputs()
    if modality == "text":
        options, ends = [[5, 6, 1], [7], [8, 9, 3, 4]], [[5, 6, 1], [7, 1], [8, 9, 3, 4, 1]]
    else:
        options = ends = [[3, 4, 5, 6], [0, 11, 2, 1], [9, 9, 9, 9]]
    scores = score_options(
        MODEL, VARIABLES, inputs, options, reduce=reduce, modality=modality, rows=4
    )
    assert scores.shape == (2, 3)
    for n, ids in enumerate(ends):
        if modality == "text":
            rows = np.stack([text_log_probs(inputs, row, ids[:-1]) for row in range(2)])
        else:
            codes = np.tile(np.array(ids), (2, 1))
            rows = codes_log_probs(inputs, codes, TEXTS["empty"])
        per_token = rows[:, np.arange(len(ids)), ids]
        expected = per_token.mean(1) if reduce == "mean" else per_token.sum(1)
        np.testing.assert_allclose(scores[:, n], expected, atol=1e-4)


@pytest.mark.slow
def test_on_a_mesh_text_and_codes_are_the_same():
    inputs, key = encoder_inputs("text"), jax.random.key(0)  # three examples on four devices
    text = generate_text(MODEL, VARIABLES, inputs, LENGTH, beams=2)
    codes = generate_codes(MODEL, VARIABLES, inputs, key, text.ids, CODES)
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        sharded = generate_text(MODEL, VARIABLES, inputs, LENGTH, beams=2)
        np.testing.assert_array_equal(text.ids, sharded.ids)
        np.testing.assert_allclose(text.scores, sharded.scores, atol=1e-5)
        sharded = generate_codes(MODEL, VARIABLES, inputs, key, text.ids, CODES)
    np.testing.assert_array_equal(codes.ids, sharded.ids)


def test_what_cannot_be_generated_is_refused():
    inputs, key = encoder_inputs(), jax.random.key(0)
    with pytest.raises(ConfigError, match="max_tokens=10"):
        generate_text(MODEL, VARIABLES, inputs, 10)
    with pytest.raises(ConfigError, match="needs a key"):
        generate_text(MODEL, VARIABLES, inputs, 3, sampling=Sampling())
    with pytest.raises(ConfigError, match="choose sampling or beam search"):
        generate_text(MODEL, VARIABLES, inputs, 3, sampling=Sampling(), beams=2, key=key)
    with pytest.raises(ConfigError, match="num_codes=21"):
        generate_codes(MODEL, VARIABLES, inputs, key, num_codes=21)
    with pytest.raises(ConfigError, match="give both or neither"):
        generate_codes(MODEL, VARIABLES, inputs, key, sampling=Sampling(guidance=2.0))
    with pytest.raises(DataError, match="0 options"):
        score_options(MODEL, VARIABLES, inputs, [])
    with pytest.raises(ConfigError, match="max_tokens=0"):
        decode(CachedUnifiedIO(MODEL, 3), VARIABLES, inputs, 0)

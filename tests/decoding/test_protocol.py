"""Greedy and beam search over a model of no attention at all: a Markov chain over 7 tokens."""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.decoding import StepDecoder, Vocabulary, decode
from jaxformers.errors import ConfigError

START, EOS, PAD = 6, 5, 0


@dataclass(frozen=True)
class MarkovChain:
    """A second-order chain: the next token depends on the newest two, the cache is the older one.

    Its variables are log-odds `[examples, 7, 7, 7]`; its inputs choose an example's table.
    """

    vocabulary: Vocabulary = Vocabulary(7, START, EOS, PAD)

    def encode(self, variables, inputs):
        return variables["table"][inputs]

    def init_cache(self, batch, beams, length):
        return jnp.full((batch, beams), START)

    def step(self, memory, cache, tokens, time):
        rows = jnp.arange(len(tokens))[:, None]
        return memory[rows, cache, tokens], tokens

    def reorder(self, cache, parents):
        return jnp.take_along_axis(cache, parents, axis=1)


def table(seed=0, scale=2.0):
    return scale * np.random.default_rng(seed).standard_normal((3, 7, 7, 7)).astype(np.float32)


def log_probability(table, tokens):
    """Of a sequence, by the chain alone."""
    history = [START, START, *tokens]
    log_probs = np.array(jax.nn.log_softmax(table, axis=-1), np.float64)
    steps = zip(history, history[1:], history[2:], strict=False)
    return sum(log_probs[older, newest, token] for older, newest, token in steps)


def complete_sequences(length):
    """All sequences that end in EOS, or have no EOS and are `length` tokens long."""
    tokens = [t for t in range(7) if t != EOS]
    for n in range(1, length + 1):
        for start in itertools.product(tokens, repeat=n - 1):
            yield (*start, EOS)
    yield from itertools.product(tokens, repeat=length)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0, -1.0])
def test_beam_search_over_a_markov_chain_returns_the_best_of_all_sequences(alpha):
    length, examples = 3, np.array([2, 0, 1])
    variables = {"table": table()}
    decoded = decode(MarkovChain(), variables, examples, length, beams=49, alpha=alpha)
    for row, example in enumerate(examples):
        scores = {
            tokens: log_probability(variables["table"][example], tokens)
            / ((5 + len(tokens)) / 6) ** alpha
            for tokens in complete_sequences(length)
        }
        best = max(scores, key=scores.get)
        assert decoded.ids[row].tolist() == [*best, *[PAD] * (length - len(best))]
        np.testing.assert_allclose(decoded.scores[row], scores[best], rtol=1e-5)


def test_greedy_search_over_a_markov_chain_takes_the_likeliest_next_token():
    variables, examples, length = {"table": table(1)}, np.arange(3), 12
    decoded = decode(MarkovChain(), variables, examples, length, beams=1, alpha=0.0)
    for row in examples:
        tokens, history = [], [START, START]
        while len(tokens) < length and EOS not in tokens:
            tokens.append(int(variables["table"][row, *history[-2:]].argmax()))
            history.append(tokens[-1])
        assert decoded.ids[row].tolist() == [*tokens, *[PAD] * (length - len(tokens))]
        score = log_probability(variables["table"][row], tokens)
        np.testing.assert_allclose(decoded.scores[row], score, rtol=1e-5)


def test_scores_of_few_beams_are_those_of_their_sequences():
    variables, examples, length = {"table": table(2, scale=1.0)}, np.arange(3), 9
    decoded = decode(MarkovChain(), variables, examples, length, alpha=0.0, all_beams=True)
    for row, beam in np.ndindex(3, 4):
        tokens = decoded.ids[row, beam].tolist()
        if EOS in tokens:
            tokens = tokens[: tokens.index(EOS) + 1]
        score = log_probability(variables["table"][row], tokens)
        np.testing.assert_allclose(decoded.scores[row, beam], score, rtol=1e-5)


def test_limits_hold_for_each_example():
    chain = MarkovChain(Vocabulary(7, START, EOS, PAD, banned_ids=(EOS, PAD)))
    decoded = decode(chain, {"table": table()}, np.arange(3), 8, np.array([3, 8, 5], np.int32))
    assert (np.asarray(decoded.ids) != PAD).sum(-1).tolist() == [3, 8, 5]


def test_a_model_that_provides_the_methods_is_a_step_decoder():
    assert isinstance(MarkovChain(), StepDecoder)
    assert not isinstance(object(), StepDecoder)


@pytest.mark.parametrize(
    ("change", "message"),
    [(dict(beams=0), "a whole number from 1 to 256"), (dict(max_tokens=0), "1 or more")],
)
def test_searches_without_a_beam_or_a_token_are_refused(change, message):
    arguments = dict(max_tokens=3) | change
    with pytest.raises(ConfigError, match=f"it takes {message}"):
        decode(MarkovChain(), {"table": table()}, np.arange(3), **arguments)

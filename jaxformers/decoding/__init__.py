"""Greedy and beam search and sampling as compiled loops over a key-value cache, and batching.

May be imported by tasks and above; imports models and the floors below them.
"""

from jaxformers.decoding.batching import Hypothesis, decode_n_best, decode_stream, decode_texts
from jaxformers.decoding.generation import generate_codes, generate_text, score_options
from jaxformers.decoding.protocol import PrefixDecoder, StepDecoder, Vocabulary
from jaxformers.decoding.sampling import Sampling, sample
from jaxformers.decoding.scoring import Scoring
from jaxformers.decoding.search import Decoded, check_search, decode
from jaxformers.decoding.translation import beam_search, greedy

__all__ = [
    "Decoded",
    "Hypothesis",
    "PrefixDecoder",
    "Sampling",
    "Scoring",
    "StepDecoder",
    "Vocabulary",
    "beam_search",
    "check_search",
    "decode",
    "decode_n_best",
    "decode_stream",
    "decode_texts",
    "generate_codes",
    "generate_text",
    "greedy",
    "sample",
    "score_options",
]

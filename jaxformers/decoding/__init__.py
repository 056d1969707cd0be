"""Greedy and beam search as one compiled loop over a key-value cache, and batching for them.

May be imported by tasks and above; imports models and the floors below them.
"""

from jaxformers.decoding.batching import Hypothesis, decode_n_best, decode_stream, decode_texts
from jaxformers.decoding.protocol import StepDecoder, Vocabulary
from jaxformers.decoding.scoring import Scoring
from jaxformers.decoding.search import Decoded, check_search, decode
from jaxformers.decoding.translation import beam_search, greedy

__all__ = [
    "Decoded",
    "Hypothesis",
    "Scoring",
    "StepDecoder",
    "Vocabulary",
    "beam_search",
    "check_search",
    "decode",
    "decode_n_best",
    "decode_stream",
    "decode_texts",
    "greedy",
]

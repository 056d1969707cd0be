"""Greedy and beam search as one compiled loop over a key-value cache, and batching for them."""

from jaxformers.decoding.batching import decode_stream, decode_texts
from jaxformers.decoding.search import Decoded, beam_search, greedy

__all__ = ["Decoded", "beam_search", "decode_stream", "decode_texts", "greedy"]

"""A vocabulary in T5's layout, trained on the texts of a mixture."""

from __future__ import annotations

from jaxformers.data.mixture import OpenMixture
from jaxformers.text import UnifiedIOTokenizer

SAMPLED = 400  # examples of each task whose texts are read


def train_vocabulary(mixture: OpenMixture, vocab_size: int) -> UnifiedIOTokenizer:
    """A tokenizer with as many pieces as an embedding of `vocab_size` rows has room for.

    Raises:
        UserError: the texts are too few, or have too many characters, for so many pieces.
    """
    texts: list[str] = []
    for examples in mixture.examples.values():
        count = min(SAMPLED, len(examples))
        for number in range(count):
            sample = examples.sample(number * len(examples) // count, number << 32)
            texts += [sample.prompt, sample.text or ""]
    pieces = vocab_size - UnifiedIOTokenizer.NUM_EXTRA_IDS - 1  # one is the start of an image
    return UnifiedIOTokenizer.train(filter(None, texts), pieces)

"""Tokenized documents whose ids tell where every token comes from."""

import numpy as np

from jaxformers.data import SpecialPieces, TokenizedDocuments

SPECIAL = SpecialPieces(pad=0, cls=1, sep=2, mask=3)
FIRST = 5  # the lowest id of text


def random_documents(documents, sentences=30, words=12, vocab_size=1000, seed=0):
    """Documents of random sizes and ids; a quarter of the vocabulary continues words."""
    rng = np.random.default_rng(seed)
    texts = [
        [
            rng.integers(FIRST, vocab_size, rng.integers(1, words + 1))
            for _ in range(rng.integers(1, sentences + 1))
        ]
        for _ in range(documents)
    ]
    continues = np.arange(vocab_size) >= vocab_size * 3 // 4
    return TokenizedDocuments.from_ids(texts, SPECIAL, continues)


def numbered_documents(*documents):
    """Documents given as lists of sentence lengths; every token has an id of its own."""
    count = FIRST + sum(map(sum, documents))
    ids = iter(range(FIRST, count))
    texts = [[[next(ids) for _ in range(size)] for size in sizes] for sizes in documents]
    return TokenizedDocuments.from_ids(texts, SPECIAL, np.zeros(count, bool))


def unmasked(batch):
    """The ids of a batch before they were masked."""
    ids = batch["input_ids"].copy()
    rows, slots = np.nonzero(batch["masked_weights"])
    ids[rows, batch["masked_positions"][rows, slots]] = batch["masked_ids"][rows, slots]
    return ids


def texts_of(ids):
    """Text A and text B of an unmasked row."""
    middle, end = np.flatnonzero(ids == SPECIAL.sep)
    assert ids[0] == SPECIAL.cls
    assert (ids[end + 1 :] == SPECIAL.pad).all()
    return ids[1:middle].tolist(), ids[middle + 1 : end].tolist()

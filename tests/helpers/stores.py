"""Tokenized pairs of random lengths whose ids tell every example apart."""

import numpy as np

from jaxformers.data import SpecialIds, TokenizedPairs

SPECIAL = SpecialIds(pad=0, eos=1, start=3)


def random_store(examples, longest=12, seed=0):
    """Example k is the id 10 + k, as often as its length says, on both sides; then eos."""
    rng = np.random.default_rng(seed)
    sides = rng.integers(1, longest, (2, examples))
    rows = [[[10 + k] * length for k, length in enumerate(side)] for side in sides]
    return TokenizedPairs.from_ids(*rows, SPECIAL)


def examples_of(batch):
    """The examples in a batch, told by the ids of their sources."""
    ids = batch["source_ids"][(batch["source_positions"] == 0) & (batch["source_segments"] > 0)]
    return [int(index) - 10 for index in ids]


def check_batch(batch, store):
    """Every segment is one whole example on both sides; all else is padding."""
    for row in range(len(batch["source_ids"])):
        source_segments, target_segments = (
            batch[f"{side}_segments"][row] for side in ("source", "target")
        )
        count = source_segments.max()
        assert set(source_segments[source_segments > 0]) == set(range(1, count + 1))
        assert count == target_segments.max()
        for segment in range(1, count + 1):
            here, there = source_segments == segment, target_segments == segment
            source = batch["source_ids"][row][here]
            target = batch["target_out_ids"][row][there]
            expected = store.gather(int(source[0]) - 10)
            assert np.array_equal(source, expected[0])
            assert np.array_equal(target, expected[1])
            shifted = np.r_[SPECIAL.start, expected[1][:-1]]
            assert np.array_equal(batch["target_in_ids"][row][there], shifted)
            assert np.array_equal(batch["source_positions"][row][here], np.arange(len(source)))
            assert np.array_equal(batch["target_positions"][row][there], np.arange(len(target)))
    for name, values in batch.items():
        padding = batch[f"{name.split('_')[0]}_segments"] == 0
        assert (values[padding] == (SPECIAL.pad if name.endswith("ids") else 0)).all()
        assert values.dtype == np.int32

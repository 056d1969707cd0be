import itertools
import time

import numpy as np
import pytest
from stores import check_batch, examples_of, random_store

from jaxformers.data import BundledPairs, Packing, TokenizedPairs, sentences
from jaxformers.data.pipeline.packing import pack
from jaxformers.errors import ConfigError, DataError
from jaxformers.text import SentencePiece

CONFIG = Packing(source_length=24, target_length=32, rows=8)


def read_epoch(plan, store, seed, epoch):
    """Examples of the rows of one epoch, which may begin inside a batch."""
    batches = -(-plan.row_count // CONFIG.rows)
    first, last = epoch * plan.row_count, (epoch + 1) * plan.row_count
    examples = []
    for step in range(first // CONFIG.rows, first // CONFIG.rows + batches + 1):
        for row in range(CONFIG.rows):
            if first <= step * CONFIG.rows + row < last:
                examples.append(examples_of(plan.batch(store, seed, step, slice(row, row + 1))))
    return examples


def test_rows_hold_whole_examples_and_nothing_else():
    store = random_store(300)
    plan = CONFIG.plan(store)
    for step in range(plan.steps_per_epoch):
        batch = plan.batch(store, 0, step)
        assert {n: (v.shape, v.dtype) for n, v in batch.items()} == plan.shapes[0]
        check_batch(batch, store)


def test_every_epoch_holds_every_example_once_in_another_order():
    store = random_store(300)
    plan = CONFIG.plan(store)
    epochs = [read_epoch(plan, store, 7, epoch) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(itertools.chain.from_iterable(epoch)) == list(range(300))
    assert epochs[0] != epochs[1] != epochs[2]
    assert read_epoch(plan, store, 8, 0) != epochs[0]


def test_a_batch_depends_on_seed_and_step_only():
    store = random_store(300)
    first, second = CONFIG.plan(store), CONFIG.plan(store)
    second.batch(store, 3, 100)
    for step in (0, 5, 123_456):
        first_batch, second_batch = first.batch(store, 3, step), second.batch(store, 3, step)
        assert all(np.array_equal(first_batch[name], second_batch[name]) for name in first_batch)


def test_rows_never_overflow_on_random_lengths():
    rng = np.random.default_rng(0)
    for limits in [(10, 10), (64, 40), (7, 200)]:
        source, target = (rng.integers(1, limit + 1, 2000) for limit in limits)
        row_of = pack(source, target, limits)
        assert np.bincount(row_of, source).max() <= limits[0]
        assert np.bincount(row_of, target).max() <= limits[1]
        assert np.bincount(row_of).min() > 0


@pytest.mark.slow
def test_real_pairs_fill_over_nine_tenths_of_the_target_places(tmp_path):
    pairs = BundledPairs("en-de").open()
    tokenizer = SentencePiece.train(sentences(pairs, 4000), 2000, "bpe")
    store = TokenizedPairs.build(pairs, tokenizer, tmp_path)
    assert Packing(128, 128, 8).plan(store).fill > 0.9
    assert Packing(256, 256, 8).plan(store).fill > 0.9


def test_a_million_lengths_are_packed_in_seconds():
    rng = np.random.default_rng(0)
    source = np.clip(rng.lognormal(3, 0.6, 1_000_000), 1, 200).astype(int)
    target = np.clip(source * rng.lognormal(0, 0.2, len(source)), 1, 256).astype(int)
    start = time.process_time()
    row_of = pack(source, target, (256, 256))
    assert time.process_time() - start < 10
    assert target.sum() / (row_of.max() + 1) / 256 > 0.9


def test_too_long_examples_are_left_out_and_counted():
    store = random_store(300, longest=40)
    plan = CONFIG.plan(store)
    source, target = store.lengths
    fits = (source <= 24) & (target <= 32)
    assert plan.left_out == (~fits).sum() > 0
    examples = sorted(itertools.chain.from_iterable(read_epoch(plan, store, 0, 0)))
    assert examples == np.flatnonzero(fits).tolist()


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(DataError, match="none of the 30 examples fits"):
        Packing(1, 1, 8).plan(random_store(30))
    with pytest.raises(DataError, match="no example"):
        Packing().plan(random_store(0))
    with pytest.raises(ConfigError, match="at least 1"):
        Packing(rows=0).plan(random_store(30))

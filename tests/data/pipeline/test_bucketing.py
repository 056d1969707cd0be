import itertools
from collections import Counter

import numpy as np
import pytest
from stores import check_batch, examples_of, random_store

from jaxformers.data import Bucketing
from jaxformers.errors import ConfigError, DataError

CONFIG = Bucketing(((16, 6, 6), (8, 9, 9), (4, 12, 12)))


def bucket(batch):
    return batch["source_ids"].shape


def test_batches_have_the_planned_shapes_one_example_a_row():
    store = random_store(400)
    plan = CONFIG.plan(store)
    buckets = set()
    for step in range(plan.steps_per_epoch):
        batch = plan.batch(store, 0, step)
        assert {n: (v.shape, v.dtype) for n, v in batch.items()} in plan.shapes
        assert len(batch["source_ids"]) == plan.rows(0, step)
        assert batch["source_segments"].max() == 1
        check_batch(batch, store)
        buckets.add(bucket(batch))
    assert len(buckets) == len(plan.shapes) == 3


def test_every_example_goes_to_the_smallest_bucket_that_holds_it():
    store = random_store(400)
    plan = CONFIG.plan(store)
    source, target = store.lengths
    for step in range(plan.steps_per_epoch):
        batch = plan.batch(store, 0, step)
        for example in examples_of(batch):
            longest = max(source[example], target[example])
            assert batch["source_ids"].shape[1] == next(n for n in (6, 9, 12) if n >= longest)


def test_each_bucket_gives_every_example_once_in_each_of_its_epochs():
    store = random_store(400)
    plan = CONFIG.plan(store)
    streams = {}
    for step in range(4 * plan.steps_per_epoch):
        batch = plan.batch(store, 5, step)
        streams.setdefault(bucket(batch), []).extend(examples_of(batch))
    for stream in streams.values():
        members = set(stream)
        epochs = [stream[k : k + len(members)] for k in range(0, len(stream), len(members))]
        for epoch in epochs[:-1]:
            assert set(epoch) == members
        assert epochs[0] != epochs[1]
    assert sum(len(set(stream)) for stream in streams.values()) == 400


def test_buckets_stay_in_proportion_and_mixed():
    store = random_store(400)
    plan = CONFIG.plan(store)
    batch_rows = [plan.rows(0, step) for step in range(10 * plan.steps_per_epoch)]
    counts = Counter(batch_rows)
    members = Counter()
    source, target = store.lengths
    for longest in np.maximum(source, target):
        members[next(rows for rows, n in ((16, 6), (8, 9), (4, 12)) if n >= longest)] += 1
    for rows in counts:
        assert counts[rows] == pytest.approx(10 * members[rows] / rows, rel=0.1)
    changes = sum(a != b for a, b in itertools.pairwise(batch_rows))
    assert changes > len(batch_rows) / 10


def test_a_bucket_smaller_than_its_batch_comes_seldom_but_comes():
    store = random_store(40)
    plan = Bucketing(((64, 6, 6), (2, 12, 12))).plan(store)
    rows = [plan.rows(0, step) for step in range(1000)]
    assert 64 in rows[: plan.steps_per_epoch]
    assert 0 < rows.count(64) < 60


def test_seeds_and_epochs_are_shuffled_differently():
    store = random_store(400)
    plan = CONFIG.plan(store)
    order = {seed: [examples_of(plan.batch(store, seed, k)) for k in range(20)] for seed in (0, 1)}
    assert order[0] != order[1]


def test_too_long_examples_are_left_out_and_counted():
    store = random_store(400, longest=20)
    plan = CONFIG.plan(store)
    source, target = store.lengths
    fits = np.maximum(source, target) <= 12
    assert plan.left_out == (~fits).sum() > 0
    examples = set()
    for step in range(plan.steps_per_epoch):
        examples |= set(examples_of(plan.batch(store, 0, step)))
    assert examples == set(np.flatnonzero(fits).tolist())


def test_fill_is_the_share_of_target_places_that_hold_a_token():
    store = random_store(400)
    plan = CONFIG.plan(store)
    tokens = positions = 0
    for step in range(5 * plan.steps_per_epoch):
        segments = plan.batch(store, 0, step)["target_segments"]
        tokens, positions = tokens + (segments > 0).sum(), positions + segments.size
    assert plan.fill == pytest.approx(tokens / positions, abs=0.01)


def test_what_cannot_be_bucketed_is_refused():
    store = random_store(30)
    with pytest.raises(DataError, match="none of the 30 examples fits the largest bucket"):
        Bucketing(((8, 1, 1),)).plan(store)
    with pytest.raises(DataError, match="no example"):
        CONFIG.plan(random_store(0))
    with pytest.raises(ConfigError, match="at least one"):
        Bucketing(()).plan(store)
    with pytest.raises(ConfigError, match="at least 1"):
        Bucketing(((8, 0, 4),)).plan(store)

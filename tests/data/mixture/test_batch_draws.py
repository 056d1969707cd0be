"""Batches of one bucket of tasks: exact shares, the same on any hosts and at any start."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from jaxformers.data.mixture import (
    BatchDraws,
    Group,
    Mixture,
    MixtureDraws,
    MixturePlan,
    MixtureTask,
    RateChange,
    open_mixture,
)
from jaxformers.data.pipeline.loader import batches
from jaxformers.fields import PositiveInt

SHARES = np.array([0.3, 0.05, 0.25, 0.4])
BUCKETS = ((0, 3), (1,), (2,))
EVEN = Group(("a", "b", "c", "d"), 1.0, rates="equal")


@dataclass(frozen=True)
class Numbers(MixtureTask):
    """As many examples as stated."""

    size: PositiveInt

    def open(self):
        return range(self.size)


class Store:
    """Rows of tasks of bucket 0 have an array that the others lack."""

    draws = 2

    def gather(self, tasks, indices, words):
        rows = {"tasks": tasks, "indices": indices, "words": words}
        return rows | ({"picture": np.ones((len(tasks), 3))} if tasks[0] in BUCKETS[0] else {})


def mixture(**fields):
    sizes = {"a": 10, "b": 1_000, "c": 100_000, "d": 37}
    return Mixture({name: Numbers(size) for name, size in sizes.items()}, rates="sqrt", **fields)


def plan(rows=16, **fields):
    return MixturePlan(open_mixture(mixture(**fields)), Store(), rows, BUCKETS)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 16])
def test_a_hundred_thousand_draws_keep_the_shares_within_a_percent(rows, seed):
    counts = BatchDraws([(0, SHARES)], BUCKETS, rows).counts(seed, 100_000 // rows)
    assert counts.sum() == 100_000
    np.testing.assert_allclose(counts / 100_000, SHARES, rtol=0.01)


def test_shares_of_a_group_that_spans_buckets_are_kept():
    groups = (Group(("a", "c"), 3.0), Group(("b", "d"), 1.0, rates="equal"))
    opened = open_mixture(mixture(groups=groups))
    expected = opened.mixture.shares(opened.sizes)[0][1]
    counts = opened.draws(16, BUCKETS).counts(7, 6_250)
    np.testing.assert_allclose(counts / 100_000, expected, atol=0.001)
    assert counts.sum() == 100_000


def test_one_bucket_of_all_tasks_draws_as_the_mixture_itself():
    later = np.array([0.1, 0.2, 0.3, 0.4])
    expected = MixtureDraws([(0, SHARES), (5 * 8, later)]).draw(3, 0, 80)
    draws = BatchDraws([(0, SHARES), (5, later)], [range(4)], 8)
    batch_draws = [draws.draw(3, step, range(8)) for step in range(10)]
    np.testing.assert_array_equal(np.concatenate([d.tasks for d in batch_draws]), expected.tasks)
    np.testing.assert_array_equal(np.concatenate([d.ranks for d in batch_draws]), expected.ranks)


def test_a_batch_is_of_one_bucket_and_counts_are_those_of_the_draws():
    # Task 1's bucket has no share at first, and tasks 0 and 3 none in the middle.
    changes = [
        (0, np.array([0.5, 0.0, 0.3, 0.2])),
        (70, np.array([0.0, 0.9, 0.1, 0.0])),
        (120, SHARES),
    ]
    draws = BatchDraws(changes, BUCKETS, 8)
    counter = Counter()
    for step in range(300):
        if step % 25 == 0:
            assert draws.counts(3, step).tolist() == [counter[task] for task in range(4)]
        draw = draws.draw(3, step, range(8))
        bucket, _ = draws.bucket(3, step)
        assert set(draw.tasks.tolist()) <= set(BUCKETS[bucket])
        for task, rank in zip(draw.tasks.tolist(), draw.ranks.tolist(), strict=True):
            assert rank == counter[task]
            counter[task] += 1
        np.testing.assert_array_equal(draws.draw(3, step, range(2, 6)).ranks, draw.ranks[2:6])
        assert not (step < 70 and bucket == 1) and not (70 <= step < 120 and bucket == 0)


def test_batches_of_hosts_and_of_a_late_start_are_those_of_one_host():
    bucketed = plan(groups=(EVEN,), changes=(RateChange(2, {"a": 9.0}),))
    single = batches(Store(), bucketed, seed=1)
    expected = [next(single) for _ in range(8)]
    single.close()
    assert len({frozenset(batch) for batch in expected}) == 2
    for hosts in (2, 4):
        late = [
            batches(Store(), bucketed, seed=1, start=3, host=h, hosts=hosts) for h in range(hosts)
        ]
        for batch in expected[3:]:
            shares = [next(iterator) for iterator in late]
            assert all(set(share) == set(batch) for share in shares)
            for name, array in batch.items():
                np.testing.assert_array_equal(np.concatenate([s[name] for s in shares]), array)
        for iterator in late:
            iterator.close()


def test_a_plan_states_the_shapes_of_each_bucket_and_is_told_apart_by_them():
    bucketed, mixed = plan(), MixturePlan(open_mixture(mixture()), Store(), 16)
    assert ["picture" in shapes for shapes in bucketed.shapes] == [True, False, False]
    assert len(mixed.shapes) == 1
    assert bucketed.fingerprint != mixed.fingerprint


def test_the_table_of_a_run_counts_what_its_batches_hold():
    opened, bucketed = open_mixture(mixture()), plan()
    lines = opened.table(16, 30, seed=4, buckets=BUCKETS).splitlines()[1:]
    tasks = np.concatenate([bucketed.batch(Store(), 4, step)["tasks"] for step in range(30)])
    assert [int(line.split()[3]) for line in lines] == np.bincount(tasks, minlength=4).tolist()

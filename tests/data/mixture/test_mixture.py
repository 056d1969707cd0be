"""A mixture's draws: exact shares, the same on any number of hosts, at any start, after changes."""

import dataclasses
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from jaxformers.data.mixture import (
    PAPER_DATASETS,
    Group,
    Mixture,
    MixtureDraws,
    MixturePlan,
    MixtureTask,
    RateChange,
    missing_datasets,
    open_mixture,
    task_shares,
)
from jaxformers.data.pipeline.loader import batches
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import NonNegativeInt


@dataclass(frozen=True)
class Numbers(MixtureTask):
    """As many examples as stated; 0: none are there."""

    size: NonNegativeInt

    def open(self):
        if not self.size:
            raise DataError("no such folder: data/numbers")
        return range(self.size)


class Store:
    draws = 2

    def gather(self, tasks, indices, words):
        return {"tasks": tasks, "indices": indices, "words": words}


SIZES = {"a": 10, "b": 1_000, "c": 100_000, "d": 37}


def mixture(**fields):
    return Mixture({name: Numbers(size) for name, size in SIZES.items()}, **fields)


def plan(rows=64, **fields):
    return MixturePlan(open_mixture(mixture(**fields)), Store(), rows)


@pytest.mark.parametrize(
    ("rates", "cap", "expected"),
    [
        ("proportional", None, [10, 1_000, 100_000, 37]),
        ("proportional", 500, [10, 500, 500, 37]),
        ("equal", None, [1, 1, 1, 1]),
        ("sqrt", None, [10**0.5, 1_000**0.5, 100_000**0.5, 37**0.5]),
        (4.0, 1_000, [10**0.25, 1_000**0.25, 1_000**0.25, 37**0.25]),
    ],
)
def test_rates_follow_from_the_numbers_of_examples(rates, cap, expected):
    shares = mixture(rates=rates, cap=cap).shares(SIZES)[0][1]
    np.testing.assert_allclose(shares, np.array(expected) / np.sum(expected))


def test_weights_multiply_rates_and_groups_divide_their_own_share():
    entries = {"a": (Numbers(10), 2.0), "b": Numbers(30), "c": Numbers(7), "d": Numbers(9)}
    groups = (Group(("a", "b"), 3.0), Group(("c", "d"), 1.0, rates="equal"))
    shares = Mixture(entries, groups=groups).shares({"a": 10, "b": 30, "c": 7, "d": 9})[0][1]
    np.testing.assert_allclose(shares, [0.3, 0.45, 0.125, 0.125])


@pytest.mark.parametrize("rates", ["equal", "sqrt", 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_hundred_thousand_draws_keep_the_shares_within_a_percent(rates, seed):
    shares = mixture(rates=rates).shares(SIZES)[0][1]
    tasks = MixtureDraws([(0, shares)]).draw(seed, 0, 100_000).tasks
    counts = np.bincount(tasks, minlength=4)
    np.testing.assert_allclose(counts / 100_000, shares, rtol=0.01)


def test_small_shares_among_ninety_tasks_are_kept():
    sizes = np.random.default_rng(0).lognormal(10, 2, 90).astype(int) + 1
    shares = task_shares(sizes, [1.0] * 90, "sqrt")
    counts = MixtureDraws([(0, shares)]).counts(5, 100_000)
    assert np.abs(counts - shares * 100_000).max() < 8
    assert counts.sum() == 100_000


def test_counts_by_arithmetic_are_those_of_the_draws_themselves():
    shares = np.array([0.5, 0.0, 0.3, 0.2])
    later = np.array([0.0, 0.9, 0.1, 0.0])
    draws = MixtureDraws([(0, shares), (777, later), (1500, shares)])
    draw = draws.draw(3, 0, 3000)
    counts = Counter()
    for position, (task, rank) in enumerate(zip(draw.tasks.tolist(), draw.ranks, strict=True)):
        if position % 250 == 0:
            assert draws.counts(3, position).tolist() == [counts[t] for t in range(4)]
        assert rank == counts[task]
        counts[task] += 1
    assert not (draw.tasks[:777] == 1).any()
    assert set(draw.tasks[777:1500].tolist()) == {1, 2}


def test_any_slice_of_rows_at_any_start_is_the_same():
    mixture_plan = plan(changes=(RateChange(2, {"a": 5.0, "c": 0.0}),))
    whole_batches = [mixture_plan.batch(Store(), 9, step) for step in range(4)]
    for step in (3, 1, 2):
        for hosts in (1, 2, 4):
            share = 64 // hosts
            rows = [
                mixture_plan.batch(Store(), 9, step, slice(h * share, (h + 1) * share))
                for h in range(hosts)
            ]
            for name, array in whole_batches[step].items():
                np.testing.assert_array_equal(np.concatenate([r[name] for r in rows]), array)


def test_batches_of_hosts_and_of_a_late_start_are_those_of_one_host():
    mixture_plan = plan(rates="sqrt")
    single = batches(Store(), mixture_plan, seed=1)
    expected = [next(single) for _ in range(5)]
    late = [batches(Store(), mixture_plan, seed=1, start=3, host=h, hosts=2) for h in range(2)]
    for step in (3, 4):
        halves = [next(iterator) for iterator in late]
        for name, array in expected[step].items():
            np.testing.assert_array_equal(np.concatenate([h[name] for h in halves]), array)
    for iterator in (single, *late):
        iterator.close()


def test_a_task_shows_each_example_once_an_epoch():
    mixture_plan = plan(rates="equal")
    drawn = [mixture_plan.batch(Store(), 0, step) for step in range(40)]
    tasks, indices = (np.concatenate([b[n] for b in drawn]) for n in ("tasks", "indices"))
    for task, size in enumerate(SIZES.values()):
        stream = indices[tasks == task]
        for start in range(0, len(stream) - size + 1, size):
            assert len(set(stream[start : start + size].tolist())) == size


def test_the_table_states_shares_examples_and_epochs():
    opened = open_mixture(mixture(rates="equal", changes=(RateChange(5, {"a": 0.0}),)))
    lines = opened.table(rows=100, steps=10).splitlines()
    assert lines[0].split() == ["task", "examples", "share", "drawn", "epochs"]
    name, examples, share, drawn, epochs = lines[1].split()
    assert (name, examples, share) == ("a", "10", "25.00%")
    assert abs(int(drawn) - 125) <= 3
    assert float(epochs) == pytest.approx(int(drawn) / 10)
    assert lines[-1] == "from step 5 on: weights a 0"


def test_missing_data_are_all_listed_and_left_out_on_demand():
    entries = {"x": Numbers(0), "y": Numbers(5), "z": Numbers(0)}
    with pytest.raises(DataError, match=r"2 of 3 tasks lack data: x: no such .*; z: .*without"):
        open_mixture(Mixture(entries))
    opened = open_mixture(Mixture(entries, without_missing=True))
    assert opened.names == ("y",)
    assert "left out: z: no such folder" in opened.table(4, 4)
    with pytest.raises(DataError, match="1 of 1 tasks"):
        open_mixture(Mixture({"x": Numbers(0)}, without_missing=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": (Group(("a", "b"), 1.0),)}, "the task c is in no group"),
        ({"groups": (Group(("a", "vqa"), 1.0),)}, "there is no task 'vqa', only a, b, c, d"),
        ({"groups": (Group(("a", "b", "c", "d", "a"), 1.0),)}, "name the task a 2 times"),
        ({"changes": (RateChange(3, {"e": 1.0}),)}, "changes: there is no task 'e'"),
        ({"changes": (RateChange(3, {}), RateChange(3, {}))}, "order them"),
        ({"groups": (("a", "b"),)}, r"groups hold \('a', 'b'\), not a Group"),
        ({"changes": ({"a": 1.0},)}, "changes hold .*, not a RateChange"),
        ({"rates": "linear"}, "rates"),
        ({"rates": -1.0}, "rates"),
        ({"cap": 0}, "cap"),
    ],
)
def test_what_cannot_be_a_mixture_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        mixture(**fields)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("vqa", "the task a is 'vqa': give a task"),
        (Numbers, "the task a is <class .*: give a task"),
        (None, "the task a is None: give a task"),
        ([Numbers(3), 2.0], "the task a is .*: give a task"),
        ((Numbers(3), 1.0, 2), "the task a is .*: give a task"),
        ((), r"the task a is \(\): give a task"),
        ((Numbers(3), "2"), "weight is '2'"),
    ],
)
def test_what_is_no_task_of_a_mixture_is_refused(value, message):
    with pytest.raises(ConfigError, match=message):
        Mixture({"a": value})


def test_groups_entries_and_changes_of_another_form_are_refused():
    with pytest.raises(ConfigError, match="a group has at least one task"):
        Group((), 1.0)
    with pytest.raises(ConfigError, match=r"entries hold \('a', .*, not a MixtureEntry"):
        Mixture([("a", Numbers(3))])
    for weights in (("a", 1.0), (("a", 1.0, 2.0),), ((1.0, 2.0),)):
        with pytest.raises(ConfigError, match="not a pair of a name and a weight"):
            RateChange(5, weights)


def test_no_temperature_and_no_weight_overflows():
    np.testing.assert_allclose(task_shares([10_000, 20_000], [1, 1], 0.01), [0, 1], atol=1e-9)
    np.testing.assert_allclose(task_shares([10, 30], [1e308, 1e308], "proportional"), [0.25, 0.75])
    np.testing.assert_allclose(task_shares([10, 10**6], [1, 0], 0.001), [1, 0])


def test_a_mixture_without_weight_is_refused():
    with pytest.raises(ConfigError, match="weight 0"):
        Mixture({"a": (Numbers(3), 0.0)}).shares({"a": 3})
    with pytest.raises(ConfigError, match="there is no task 'b'"):
        Mixture({"a": Numbers(3)}).entry("b")


def test_entries_are_plain_dataclasses():
    entry = mixture().entries[2]
    assert (entry.name, entry.task, entry.weight) == ("c", Numbers(100_000), 1.0)
    assert dataclasses.replace(mixture(), rates="equal").entries == mixture().entries


def test_the_papers_data_sets_are_listed_and_missing_ones_refused(tmp_path):
    assert 80 <= len(PAPER_DATASETS) <= 95
    assert all(d.tfds if d.layout == "tfds" else not d.tfds for d in PAPER_DATASETS.values())
    (tmp_path / "coco").mkdir()
    with pytest.raises(DataError, match=r"lacks 1 data sets: vqa_v2 \(visualqa.org\); go on with"):
        missing_datasets(["coco", "vqa_v2"], tmp_path)
    missing = missing_datasets(["coco", "vqa_v2"], tmp_path, without_missing=True)
    assert [dataset.name for dataset in missing] == ["vqa_v2"]
    with pytest.raises(DataError, match="did you mean coco"):
        missing_datasets(["cocoo"], tmp_path)

"""Every second of a run is counted once, over all its starts, as one kind of work."""

from __future__ import annotations

import pytest

from jaxformers.training.reports import goodput
from jaxformers.training.reports.goodput import Goodput


@pytest.fixture
def clock(monkeypatch):
    """Sets the time."""
    now = [1000.0]
    monkeypatch.setattr(goodput.time, "time", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def spend(run, clock, *periods):
    for kind, until in periods:
        clock(until)
        run.record_time(kind)


def test_every_second_since_the_start_has_a_kind(clock):
    run = Goodput(began=990.0)
    spend(run, clock, ("restart", 1000), ("compile", 1020), ("data wait", 1021), ("steps", 1080))
    assert run.seconds["restart"] == 10 and run.seconds["steps"] == 59
    assert sum(run.seconds.values()) == 90
    assert run.fraction == pytest.approx(59 / 90)
    expected = "1:30: steps 65.6 %, compile 22.2 %, restart 11.1 %, data wait 1.1 %"
    assert run.summary() == expected


def test_what_was_done_after_the_checkpoint_counts_as_restart(clock):
    first = Goodput(began=1000.0)
    spend(first, clock, ("steps", 1050))
    record = first.record()
    spend(first, clock, ("checkpoint", 1051), ("steps", 1080))  # lost with a host
    clock(1100)
    second = Goodput(record)
    spend(second, clock, ("restart", 1120), ("steps", 1150))
    assert second.seconds["restart"] == 70  # 30 of work lost, 20 between, 20 until the first step
    assert second.seconds["steps"] == 80
    assert sum(second.seconds.values()) == 150


def test_a_clock_that_is_set_back_takes_nothing_away(clock):
    run = Goodput(began=1000.0)
    spend(run, clock, ("steps", 990), ("steps", 1000))
    assert run.seconds["steps"] == 10
    assert Goodput().fraction == 0.0

"""`status.json` tells a watcher where a run stands."""

from __future__ import annotations

import json

import pytest
from etils import epath

from jaxformers.pod.host_environment import Pod
from jaxformers.pod.peer_monitor import Link
from jaxformers.training.reports import heartbeat
from jaxformers.training.reports.goodput import Goodput
from jaxformers.training.reports.heartbeat import STATUS, Heartbeat, read_lost_time


def status(folder):
    return json.loads((folder / STATUS).read_text())


@pytest.fixture
def goodput():
    return Goodput({"steps": 30.0, "restart": 10.0, "time": 5.0})


def test_it_tells_step_loss_goodput_and_every_hosts_last_step(tmp_path, goodput):
    beat = Heartbeat(epath.Path(tmp_path), Link(), goodput, 100)
    assert beat.step(1, 2.5) is None
    beat.step(2, 2.25)  # too soon to be written
    beat._thread.join()
    fields = status(tmp_path)
    expected = {"step": 1, "steps": 100, "loss": 2.5, "goodput": 0.75, "state": "running"}
    assert expected.items() <= fields.items()
    assert [(host["process"], host["step"]) for host in fields["hosts"]] == [(0, 1)]
    beat.close("finished")
    assert (status(tmp_path)["state"], status(tmp_path)["step"]) == ("finished", 2)


def test_in_a_pod_a_line_for_the_log_tells_the_steps_now_and_then(tmp_path, goodput, monkeypatch):
    monkeypatch.setattr(heartbeat, "TOLD", 0.0)
    link = Link(Pod(0, 2, "a:1"), ["first", "second"])
    assert Heartbeat(epath.Path(tmp_path), link, goodput, 9).step(3, 1.0) == (
        "last steps: first 3, second 0"
    )


def test_the_other_hosts_write_nothing(tmp_path, goodput):
    link = Link(Pod(1, 2, "a:1"), ["first", "second"])
    beat = Heartbeat(epath.Path(tmp_path), link, goodput, 9, main=False)
    beat.step(3, 1.0)
    beat.close("finished")
    assert not (tmp_path / STATUS).exists()


def test_a_start_that_left_no_checkpoint_is_all_to_be_done_again(tmp_path, goodput):
    assert read_lost_time(tmp_path) is None
    beat = Heartbeat(epath.Path(tmp_path), Link(), goodput, 100)
    beat.step(1, 2.5)
    beat.close("stopped")
    assert read_lost_time(tmp_path) == {"restart": 40.0, "time": 5.0}
    (tmp_path / STATUS).write_text("{}")
    assert read_lost_time(tmp_path) is None

"""The same bookkeeping on a `gs://` address, with fsspec's store in memory behind it."""

import json

import fsspec
import pytest
from etils import epath
from etils.epath import backend

from jaxformers.errors import CheckpointError
from jaxformers.pod.peer_monitor import Link
from jaxformers.training import run_lock
from jaxformers.training.checkpoints.directory import CheckpointFolder, Checkpointing
from jaxformers.training.reports.goodput import Goodput
from jaxformers.training.reports.heartbeat import STATUS, Heartbeat, read_lost_time
from jaxformers.training.run_lock import RunLock


@pytest.fixture
def bucket(monkeypatch):
    store = fsspec.filesystem("memory")
    store.store.clear()
    monkeypatch.setattr(type(backend.fsspec_backend), "fs", lambda self, path: store)
    yield epath.Path("gs://bucket/run")
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def save(checkpoints, step):
    checkpoints.begin(step)
    state = checkpoints.path_of(step) / "state" / "d"
    state.mkdir(parents=True)
    (state / "data").write_bytes(bytes([step]) * 100)
    checkpoints.finish(step, {"checkpoint.json": b"{}", "files/text.model": b"tokens"})
    checkpoints.prune(step)


def test_checkpoints_in_a_bucket_are_kept_verified_and_fallen_back_from(bucket):
    lines = []
    checkpoints = CheckpointFolder(bucket, Checkpointing(keep_last=2), lines.append)
    assert checkpoints.steps() == []
    for step in (10, 20, 30):
        save(checkpoints, step)
        checkpoints.set_metrics(step, {"bleu": step})
    assert checkpoints.steps() == [20, 30]
    assert checkpoints.metrics()[30] == {"bleu": 30.0}
    (bucket / "30/state/d/data").write_bytes(b"x" * 97)
    assert checkpoints.newest_good(1) == [20]
    assert lines == ["checkpoint 30 is damaged (state/d/data: 3 bytes short); using 20"]
    checkpoints.begin(40)
    assert checkpoints.steps() == [20, 30]
    save(checkpoints, 30)
    assert checkpoints.newest_good(2) == [30, 20]
    assert checkpoints.all_steps() == [20, 30]


def test_a_bucket_is_locked_by_one_run_at_a_time(bucket, monkeypatch):
    monkeypatch.setattr(run_lock, "_REFRESH", 0.1)
    monkeypatch.setattr(run_lock, "_POLL", 0.05)
    with RunLock(bucket), pytest.raises(CheckpointError, match="in use by process"):
        RunLock(bucket).__enter__()
    with RunLock(bucket):
        pass


def test_a_watcher_finds_the_status_of_a_run_in_the_bucket(bucket):
    bucket.mkdir(parents=True)
    beat = Heartbeat(bucket, Link(), Goodput(), 9)
    for step in (1, 2):
        beat.step(step, 0.5)
    beat.close("stopped")
    status = json.loads((bucket / STATUS).read_text())
    assert (status["step"], status["state"]) == (2, "stopped")
    assert read_lost_time(bucket) is not None

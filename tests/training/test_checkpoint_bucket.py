"""The same bookkeeping on a `gs://` address, with fsspec's store in memory behind it."""

import fsspec
import pytest
from etils import epath
from etils.epath import backend

from jaxformers.errors import CheckpointError
from jaxformers.training.checkpoint_folder import CheckpointFolder, Checkpointing
from jaxformers.training.folder import RunLock


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
    state = checkpoints.of(step) / "state" / "d"
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


def test_a_bucket_is_locked_by_one_run_at_a_time(bucket):
    with RunLock(bucket), pytest.raises(CheckpointError, match="in use by process"):
        RunLock(bucket).__enter__()
    with RunLock(bucket):
        pass

"""One run at a time in a folder, and no lock that outlives its owner."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from etils import epath

from jaxformers.errors import CheckpointError
from jaxformers.training import run_lock
from jaxformers.training.run_lock import RunLock
from jaxformers.training.stored_files import reason

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import os, sys, time
from jaxformers.training.run_lock import RunLock
with RunLock(sys.argv[1]):
    if sys.argv[2] == "fork" and os.fork() == 0:
        time.sleep(60)
    print("locked", flush=True)
    time.sleep(60)
"""


def holder(folder, kind="plain"):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), kind],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout.readline() == "locked\n"
    return child


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("kind", ["plain", "fork"])
def test_a_folder_in_use_is_refused_and_free_once_its_owner_is_killed(tmp_path, kind):
    child = holder(tmp_path, kind)
    try:
        with pytest.raises(CheckpointError) as error, RunLock(tmp_path):
            pass
        who = f"process {child.pid} on host {socket.gethostname()}"
        assert str(error.value).startswith(f"{tmp_path} is in use by {who}; ")
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        with RunLock(tmp_path):
            pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def test_a_lock_is_free_after_its_block_even_after_an_error(tmp_path):
    with pytest.raises(KeyError), RunLock(tmp_path / "new"):
        raise KeyError
    with (
        RunLock(tmp_path / "new"),
        pytest.raises(CheckpointError, match=str(os.getpid())),
        RunLock(tmp_path / "new"),
    ):
        pass
    with RunLock(tmp_path / "new"):
        pass


def test_only_the_first_process_of_a_run_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock.jax, "process_index", lambda: 1)
    with RunLock(tmp_path), RunLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(run_lock.os, "open", refuse)
    with pytest.raises(CheckpointError, match=r"cannot write .*run.lock: Read-only file system"):
        RunLock(tmp_path).__enter__()


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder on the disk in its place: only the address tells them apart."""
    monkeypatch.setattr(run_lock, "_is_object_store", lambda path: True)
    monkeypatch.setattr(run_lock, "_POLL", 0.05)
    return epath.Path(tmp_path)


def owned(bucket, age=0.0, pid=1, host="elsewhere"):
    owner = {"pid": pid, "host": host, "time": time.time() - age}
    (bucket / "run.lock").write_text(json.dumps(owner))


@pytest.mark.parametrize(
    "owner",
    [{"age": 1000}, {"age": 59.5}, {"pid": 2**22 + 1, "host": socket.gethostname()}, None],
)
def test_in_a_bucket_an_owner_that_is_gone_is_waited_out_and_replaced(bucket, owner):
    owned(bucket, **owner) if owner else (bucket / "run.lock").write_text("not json")
    with RunLock(bucket):
        assert json.loads((bucket / "run.lock").read_text())["pid"] == os.getpid()
    assert not (bucket / "run.lock").exists()


def test_in_a_bucket_an_owner_that_renews_its_name_is_left_alone(bucket):
    owned(bucket)
    renewal = threading.Timer(0.2, owned, [bucket])
    renewal.start()
    with pytest.raises(CheckpointError, match="in use by process 1 on host elsewhere"):
        RunLock(bucket).__enter__()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device"),
        (ValueError("RESOURCE: [OS error 28: ENOSPC No space left on device]"), "No space left"),
        (RuntimeError("first line\nsecond"), "RuntimeError: first line"),
        (RuntimeError(), "RuntimeError: no message"),
    ],
)
def test_the_reason_of_a_failed_write_is_in_plain_words(error, expected):
    assert reason(error).startswith(expected)
    assert "\n" not in reason(error)

"""One run at a time in a folder, and no lock that outlives its owner."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath

from jaxformers.errors import CheckpointError
from jaxformers.training import folder as folder_module
from jaxformers.training.folder import RunLock, reason

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import os, sys, time
from jaxformers.training.folder import RunLock
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
    monkeypatch.setattr(folder_module.jax, "process_index", lambda: 1)
    with RunLock(tmp_path), RunLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(folder_module.os, "open", refuse)
    with pytest.raises(CheckpointError, match=r"cannot write .*run.lock: Read-only file system"):
        RunLock(tmp_path).__enter__()


@pytest.mark.parametrize(
    ("owner", "refused"),
    [
        ({"pid": 1, "host": "elsewhere", "time": 0}, True),
        ({"pid": 1, "host": "elsewhere", "time": -1000}, False),
        ({"pid": 2**22 + 1, "host": socket.gethostname(), "time": 0}, False),
        ("not json", False),
    ],
)
def test_a_bucket_is_locked_by_an_owner_file_that_goes_stale(tmp_path, monkeypatch, owner, refused):
    # A folder on the disk stands in for the bucket: only the address tells them apart.
    monkeypatch.setattr(folder_module, "_is_object_store", lambda path: True)
    path = epath.Path(tmp_path) / "run.lock"
    if isinstance(owner, dict):
        owner = json.dumps(owner | {"time": time.time() + owner["time"]})
    path.write_text(owner)
    if refused:
        with pytest.raises(CheckpointError, match="in use by process 1 on host elsewhere"):
            RunLock(tmp_path).__enter__()
        return
    with RunLock(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


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

"""`RunLock`: one run at a time in a folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from typing import Any

import jax
from etils import epath

from jaxformers.errors import CheckpointError
from jaxformers.training.stored_files import DamagedFile, read_json, reason

_LOCK = "run.lock"
_REFRESH, _STALE, _POLL = 20.0, 60.0, 1.0  # seconds
_held: set[int] = set()


class RunLock:
    """`with RunLock(folder):` lets one run at a time use `folder`.

    On a local disk the operating system holds the lock and frees it when the process ends in any
    way. A bucket has no locks: there the owner writes its name into a file and renews it every 20
    seconds. A file that was not renewed for 60 seconds, or whose process on this host is gone, is
    taken over, so entering may take a minute. This is best effort: two runs that start in the same
    second may both enter. Only process 0 of a run takes the lock.

    Raises:
        CheckpointError: another run is using the folder, or it cannot be written.
    """

    def __init__(self, folder: epath.PathLike):
        self.path = epath.Path(folder) / _LOCK
        self._descriptor: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RunLock:
        if jax.process_index() != 0:
            return self
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if _is_object_store(self.path):
                self._lock_object()
            else:
                self._lock_file()
        except OSError as error:
            raise CheckpointError(f"cannot write {self.path}: {reason(error)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            self.path.unlink(missing_ok=True)
        if self._descriptor is not None:
            # The file stays: removing it would let a third run lock a file of the same name
            # while a second one waits on the removed one.
            os.ftruncate(self._descriptor, 0)
            _held.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _lock_file(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise self._in_use(self._owner()) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _own_name(), 0)
        self._descriptor = descriptor
        _held.add(descriptor)

    def _lock_object(self) -> None:
        owner = self._owner()
        # The owner may have been killed just now, as when a host of a pod restarts: only a file
        # that is renewed while we wait belongs to a live run.
        while owner and _alive(owner):
            time.sleep(_POLL)
            before, owner = owner, self._owner()
            if owner and owner["time"] != before["time"]:
                raise self._in_use(owner)
        self.path.write_bytes(_own_name())
        self._thread = threading.Thread(target=self._renew, daemon=True, name="run lock")
        self._thread.start()

    def _renew(self) -> None:
        while not self._stop.wait(_REFRESH):
            try:
                self.path.write_bytes(_own_name())
            except OSError:
                continue  # the next checkpoint reports that the bucket cannot be written

    def _owner(self) -> dict[str, Any]:
        try:
            owner = read_json(self.path)
            return {"pid": int(owner["pid"]), "host": owner["host"], "time": float(owner["time"])}
        except (OSError, DamagedFile, ValueError, KeyError, TypeError, OverflowError):
            return {}

    def _in_use(self, owner: dict[str, Any]) -> CheckpointError:
        who = f"process {owner['pid']} on host {owner['host']}" if owner else "another process"
        return CheckpointError(
            f"{self.path.parent} is in use by {who}; wait for it, stop it, or use another folder"
        )


def _is_object_store(path: epath.Path) -> bool:
    return "://" in os.fspath(path)


def _own_name() -> bytes:
    name = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time()}
    return json.dumps(name).encode()


def _alive(owner: dict[str, Any]) -> bool:
    if time.time() - owner["time"] > _STALE:
        return False
    if owner["host"] != socket.gethostname():
        return True
    try:
        os.kill(owner["pid"], 0)
    except (ProcessLookupError, OverflowError):  # no process has such a number
        return False
    except PermissionError:
        pass
    return True


def _release_in_child() -> None:
    # A forked child must not keep the folder locked after the run itself is gone.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)

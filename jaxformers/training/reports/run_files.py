"""The files that a run writes while it trains: metrics.jsonl, log.txt, TensorBoard events.

A remote folder (gs://...) cannot be appended to, so the files live in a local stage that is
copied there now and then, and at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from etils import epath

from jaxformers.errors import CheckpointError
from jaxformers.training.stored_files import (
    DamagedFile,
    parse_json,
    read_bytes,
    reason,
    regular_size,
)

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

METRICS = "metrics.jsonl"
LOG = "log.txt"
METRICS_DIGEST = f"{METRICS}.sha256"  # of a finished run, as `sha256sum` writes it
EVENTS = "tensorboard"
EVALUATION = "eval/"
"""What the names of evaluation metrics begin with in metrics.jsonl."""
LARGEST_METRICS = 2**32  # bytes
LARGEST_FLOAT = sys.float_info.max
UPLOAD_SECONDS = 60.0
FLUSH_SECONDS = 2.0


class RunFiles:
    """Appends to a run's log files; on a resumed run drops what lies past the restored step.

    Args:
        folder: the run's folder, local or remote; made if it is not there.
        start_step: steps done before this start; later lines of an earlier start are dropped.
        tensorboard: whether to write event files.
        evaluate_again: whether this start evaluates at `start_step`: results that an earlier start
            logged for it are dropped.

    Attributes:
        num_damaged: lines dropped because they are no records, a last one that a kill cut short
            not counted.
        resumed_digest: what `digest` returned when the checkpoint of `start_step` was saved, unless
            metrics.jsonl was changed since.

    Raises:
        CheckpointError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: epath.Path,
        start_step: int = 0,
        tensorboard: bool = True,
        evaluate_again: bool = False,
    ):
        self.folder = epath.Path(folder)
        self.stage = _stage(self.folder)
        self._events = None
        self._flushed = 0.0
        with writing(self.stage):
            self.stage.mkdir(parents=True, exist_ok=True)
            for path in (self.stage / METRICS, self.stage / LOG):
                _check_regular(path)
            for folder in (self.stage, self.folder):
                (folder / METRICS_DIGEST).unlink(missing_ok=True)
            path = self.stage / METRICS
            self.num_damaged, self.resumed_digest = _truncate(path, start_step, evaluate_again)
            if tensorboard:
                self._events = _open_events(self.stage / EVENTS, start_step)
        remote = self.stage != self.folder
        self._upload = _Upload(self.stage, self.folder) if remote else None

    def metrics(self, record: dict[str, Any]) -> None:
        """Append one record as a line of JSON; what is not finite becomes null."""
        self._append(METRICS, json.dumps({key: _plain(value) for key, value in record.items()}))

    def digest(self) -> str:
        """SHA-256 of metrics.jsonl."""
        try:
            return hashlib.sha256(read_bytes(self.stage / METRICS, LARGEST_METRICS)).hexdigest()
        except (FileNotFoundError, DamagedFile):
            return ""

    def seal(self) -> None:
        """Writes the digest of the complete metrics.jsonl, which `read_metrics` compares."""
        line = f"{self.digest()}  {METRICS}\n"
        replace_file(self.stage / METRICS_DIGEST, line.encode())

    def text(self, line: str) -> None:
        """Append a line to log.txt, with the time before it."""
        self._append(LOG, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Append the values to the TensorBoard event file under their tags."""
        if self._events is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        with writing(self.stage / EVENTS):
            points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            event = Event(wall_time=time.time(), step=step, summary=Summary(value=points))
            self._events.write_event(event)
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()

    def upload(self) -> None:
        """Begin to copy everything to a remote folder, that a checkpoint's lines be there too."""
        if self._upload is not None:
            self._upload.begin()

    def close(self) -> None:
        """Finish the event file and, for a remote folder, copy everything there."""
        with writing(self.stage / EVENTS):
            events, self._events = self._events, None
            if events is not None:
                events.close()
        if self._upload is not None:
            self._upload.close()
            self._upload = None

    def _append(self, name: str, line: str) -> None:
        with writing(self.stage / name), open(self.stage / name, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._upload is not None:
            self._upload.tick()


def read_metrics(folder: epath.Path | str) -> list[dict[str, Any]]:
    """Read the records of a run's metrics.jsonl in order; a line cut short by a kill is left out.

    Raises:
        CheckpointError: the folder holds no metrics.jsonl, it is no regular file, or it has changed
            since the run finished.
    """
    path = epath.Path(folder) / METRICS
    try:
        content = read_bytes(path, LARGEST_METRICS)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is not there; name the folder of a run that has trained"
        ) from None
    except DamagedFile as damage:
        raise CheckpointError(f"{path} cannot be read ({damage}); remove it") from None
    _check_digest(content, epath.Path(folder) / METRICS_DIGEST)
    return [record for line in content.split(b"\n") if (record := _parsed(line))]


def _check_digest(content: bytes, path: epath.Path) -> None:
    try:
        expected = read_bytes(path).split(b" ")[0]
    except FileNotFoundError:
        return
    except DamagedFile:
        expected = b""
    if hashlib.sha256(content).hexdigest().encode() != expected:
        raise CheckpointError(
            f"{path.parent / METRICS} or {path.name} has changed since the run finished; put back "
            f"what was there, or remove {path.name} to read the metrics as they are"
        )


def replace_file(path: epath.Path, content: bytes) -> None:
    """Write a file beside its place, then move it there: a reader never sees half of it.

    Raises:
        CheckpointError: it cannot be written.
    """
    with writing(path):
        partial = path.parent / f"{path.name}.part"
        partial.write_bytes(content)
        partial.replace(path)


class _Upload:
    """Copies the stage to the remote folder in a thread, so that training does not wait."""

    def __init__(self, stage: epath.Path, folder: epath.Path):
        self.stage, self.folder = stage, folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="run-files")
        self._last = time.monotonic()
        self._job: Future[None] | None = None
        self._sent: dict[str, tuple[int, int]] = {}

    def tick(self) -> None:
        """Start a copy when one is due and none is under way; a failed one is tried again."""
        idle = self._job is None or self._job.done()
        if idle and time.monotonic() - self._last >= UPLOAD_SECONDS:
            self.begin()

    def begin(self) -> None:
        """Start a copy, after the one that is under way."""
        self._last = time.monotonic()
        self._job = self._pool.submit(self._copy)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        with writing(self.folder):
            self._copy()
        shutil.rmtree(self.stage, ignore_errors=True)

    def _copy(self) -> None:
        for root, _, names in os.walk(self.stage):
            for name in names:
                self._copy_file(os.path.join(root, name))

    def _copy_file(self, source: str) -> None:
        state = os.stat(source)
        version = (state.st_size, state.st_mtime_ns)
        if self._sent.get(source) == version:
            return
        target = self.folder / os.path.relpath(source, self.stage)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(source, "rb") as file:
            target.write_bytes(file.read())
        self._sent[source] = version


class writing:
    """Turns an operating system's error into one line that names the path and the mend."""

    def __init__(self, path: epath.Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise CheckpointError(
                f"cannot write {self.path}: {reason(error)}; make room or permit writing there, "
                "or give another run folder"
            ) from error


def _stage(folder: epath.Path) -> epath.Path:
    """The folder itself when local, else a local one that starts with the remote one's logs."""
    if "://" not in os.fspath(folder):
        return folder
    stage = epath.Path(tempfile.mkdtemp(prefix="jaxformers-run-"))
    for name in (METRICS, LOG):
        if (folder / name).exists():
            (stage / name).write_bytes((folder / name).read_bytes())
    return stage


def _check_regular(path: epath.Path) -> None:
    """Raises CheckpointError where lines would be appended to a folder, a pipe or a device."""
    try:
        regular_size(path)
    except FileNotFoundError:
        return
    except DamagedFile as damage:
        raise CheckpointError(f"{path} cannot be written ({damage}); remove it") from None


def _truncate(path: epath.Path, last_step: int, evaluate_again: bool) -> tuple[int, str]:
    """Drops the lines past `last_step`, and the evaluation of `last_step` itself if made again.

    The file is replaced in one move, so a kill loses nothing.

    Returns:
        The number of damaged lines dropped, a torn last line not counted; and the SHA-256 of the
        lines up to `last_step` but for its evaluation, which comes after its checkpoint.
    """
    digest = hashlib.sha256()
    try:
        content = read_bytes(path, LARGEST_METRICS)
    except FileNotFoundError:
        return 0, digest.hexdigest()
    except DamagedFile as damage:
        raise CheckpointError(f"{path} cannot be read ({damage}); remove it") from None
    retained, num_damaged = [], 0
    for line in content.split(b"\n")[:-1]:  # behind the last line end: nothing, or a torn line
        record = _parsed(line)
        if record is None:
            num_damaged += 1
        elif record["step"] < last_step or (
            record["step"] == last_step and not _is_evaluation(record)
        ):
            retained.append(line + b"\n")
            digest.update(line + b"\n")
        elif record["step"] == last_step and not evaluate_again:
            retained.append(line + b"\n")
    partial = path.parent / f"{path.name}.part"
    partial.write_bytes(b"".join(retained))
    os.replace(partial, path)
    return num_damaged, digest.hexdigest()


def _is_evaluation(record: dict[str, Any]) -> bool:
    return any(key.startswith(EVALUATION) for key in record)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The record on a line; None where it is damaged, or a kill or a full disk cut it short."""
    try:
        record = parse_json(line)
    except DamagedFile:
        return None
    step = record.get("step")
    valid = type(step) is int and all(map(_is_plain, record.values()))
    return record if valid and step >= 0 else None


def _is_plain(value: Any) -> bool:
    """Whether it is what `_plain` returns: null or a finite number."""
    return value is None or (isinstance(value, (int, float)) and abs(value) <= LARGEST_FLOAT)


def _open_events(folder: epath.Path, start_step: int) -> EventsWriter:
    """A fresh event file; its start mark makes TensorBoard hide what lies past `start_step`."""
    # Where PyTorch is installed tensorboardX imports it, which takes seconds.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    folder.mkdir(parents=True, exist_ok=True)
    suffix = f".{os.getpid()}.{threading.get_ident()}.{time.time_ns()}"
    writer = EventsWriter(os.fspath(folder / "events"), suffix)
    start = SessionLog(status=SessionLog.START)
    writer.write_event(Event(wall_time=time.time(), step=start_step + 1, session_log=start))
    return writer


def _plain(value: Any) -> int | float | None:
    """A JSON value: JSON has no NaN and no infinity, so they are null."""
    if value is None or isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None

"""Logging a run: files that are continued exactly, rates without compilation, bars and lines."""

import io
import json
import math
import os
import struct
import time

import jax
import jax.numpy as jnp
import pytest
from etils import epath
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from jaxformers.errors import CheckpointError
from jaxformers.training.reports import run_files
from jaxformers.training.reports.run_files import read_metrics
from jaxformers.training.reports.training_log import Logging, MetricsLog


def make(folder, every=1, total_steps=100, terminal=False, tensorboard=False, **kwargs):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)
    config = Logging(
        every=every, tensorboard=tensorboard, profile_at=kwargs.pop("profile_at", None)
    )
    return MetricsLog(
        epath.Path(folder), config, total_steps=total_steps, console=console, **kwargs
    )


def run(folder, first, last, **kwargs):
    with make(folder, start_step=first - 1, **kwargs) as log:
        for step in range(first, last + 1):
            log.step(step, {"loss": 1.0 / step}, units=100)
    return log.console.file.getvalue()


def test_a_notebook_gets_plain_lines_on_standard_output(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with MetricsLog(epath.Path(tmp_path), Logging(every=1), total_steps=1) as log:
        log.message("2 x [B, L]")
    assert "2 x [B, L]" in capsys.readouterr().out


def test_each_due_step_is_a_line_of_json(tmp_path):
    run(tmp_path, 1, 10, every=4, total_steps=10)
    records = read_metrics(tmp_path)
    assert [record["step"] for record in records] == [1, 4, 8, 10]
    assert records[1]["loss"] == 0.25
    assert all(isinstance(record["time"], float) for record in records)


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("jaxformers.training.reports.training_log.perf_counter", clock)
    return clock


def test_rates_leave_the_first_step_out_and_its_time_is_told(tmp_path, clock):
    with make(tmp_path, every=5, chips=4, flops_per_step=1e6, peak=1e9) as log:
        clock.wait(30.0)
        for step in range(1, 6):
            log.step(step, {"loss": 1.0}, units=100, waited=0.01)
            clock.wait(0.05)
    first, last = read_metrics(tmp_path)
    assert first["compile_seconds"] == pytest.approx(30)
    assert "steps/s" not in first
    assert "compile_seconds" not in last
    assert last["steps/s"] == pytest.approx(20)
    assert last["tokens/s"] == pytest.approx(2000)
    assert last["tokens/s/chip"] == pytest.approx(500)
    assert last["flops/s"] == pytest.approx(2e7)
    assert last["mfu"] == pytest.approx(0.02)
    assert last["data_wait"] == pytest.approx(0.2)


def test_rates_are_of_the_steps_since_the_last_line(tmp_path, clock):
    with make(tmp_path, every=4) as log:
        for step in range(1, 9):
            clock.wait(0.1 if step <= 4 else 0.5)
            log.step(step, {"loss": 1.0}, units=10)
    _, fast, slow = read_metrics(tmp_path)
    assert (fast["steps/s"], slow["steps/s"]) == (pytest.approx(10), pytest.approx(2))


def test_a_later_step_that_compiles_is_left_out_too(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("jaxformers.training.reports.training_log.COMPILE_SECONDS", 0.0)
    with make(tmp_path, every=3) as log:
        for step in range(1, 4):
            clock.wait(0.1)
            if step == 2:
                clock.wait(5.0)
                jax.jit(lambda x: x * 3.1415 + os.getpid())(jnp.ones(3)).block_until_ready()
            log.step(step, {"loss": 1.0}, units=1)
    last = read_metrics(tmp_path)[-1]
    assert last["compile_seconds"] == pytest.approx(5.1)
    assert last["steps/s"] == pytest.approx(10)


def test_a_pause_is_not_counted_nor_what_compiles_in_it(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("jaxformers.training.reports.training_log.COMPILE_SECONDS", 0.0)
    with make(tmp_path, every=10) as log:
        for step in range(1, 11):
            clock.wait(0.1)
            if step == 5:
                with log.paused():
                    clock.wait(60.0)
                    jax.jit(lambda x: x * 2.7183 + os.getpid())(jnp.ones(3))
            log.step(step, {"loss": 1.0}, units=1)
    last = read_metrics(tmp_path)[-1]
    assert last["steps/s"] == pytest.approx(10)
    assert "compile_seconds" not in last


def test_a_resumed_run_continues_without_gap_or_double(tmp_path):
    run(tmp_path, 1, 20)
    run(tmp_path, 13, 30)
    assert [record["step"] for record in read_metrics(tmp_path)] == list(range(1, 31))


def test_a_resumed_run_drops_evaluations_past_the_restored_step(tmp_path):
    with make(tmp_path) as log:
        for step in (1, 2, 3):
            log.step(step, {"loss": 1.0}, units=1)
            log.evaluation(step, {"bleu": step})
    make(tmp_path, start_step=2).close()
    records = read_metrics(tmp_path)
    assert [record.get("eval/bleu") for record in records] == [None, 1, None, 2]


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    run(tmp_path, 1, 3)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert len(read_metrics(tmp_path)) == 3
    run(tmp_path, 4, 4)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_valid_json(tmp_path, value):
    with make(tmp_path) as log:
        log.step(1, {"loss": value}, units=1)

    def reject(constant):
        raise ValueError(constant)

    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=reject)["loss"] is None


def test_arrays_of_one_number_are_taken(tmp_path):
    with make(tmp_path) as log:
        log.step(1, {"loss": jnp.float32(0.5)}, units=1)
    assert read_metrics(tmp_path)[0]["loss"] == 0.5


def test_only_the_first_process_writes(tmp_path):
    with make(tmp_path / "none", main=False) as log:
        log.step(1, {"loss": 1.0}, units=1)
        log.evaluation(1, {"bleu": 1.0})
        log.message("hello")
        with log.paused():
            pass
    assert not (tmp_path / "none").exists()
    assert log.console.file.getvalue() == ""


def test_plain_lines_tell_step_loss_rate_and_time_left(tmp_path, clock):
    with make(tmp_path, every=10, total_steps=140, name="demo") as log:
        for step in range(1, 21):
            clock.wait(0.5)
            log.step(step, {"loss": 1 / step, "learning_rate": 1e-3}, units=2000)
    lines = log.console.file.getvalue().splitlines()
    assert len(lines) == 3
    expected = "demo: step 20/140  loss 0.05  learning rate 0.001  4,000 tokens/s  1:00 left"
    assert lines[-1] == expected


def test_a_terminal_shows_a_bar_with_messages_above(tmp_path, clock):
    with make(tmp_path, terminal=True, total_steps=124) as log:
        for step in range(1, 5):
            clock.wait(0.5)
            log.step(step, {"loss": 2.5}, units=100)
        log.message("saved [step 4] /path")
    text = log.console.file.getvalue()
    for expected in ("4/124", "loss 2.5000", "200 tokens/s", "1:00 left", "saved [step 4] /path"):
        assert expected in text
    assert "saved [step 4] /path" in (tmp_path / "log.txt").read_text()


def test_evaluations_are_logged_under_eval(tmp_path):
    with make(tmp_path) as log:
        log.evaluation(7, {"bleu": 27.31})
    assert read_metrics(tmp_path) == [
        {"step": 7, "time": pytest.approx(time.time(), abs=60), "eval/bleu": 27.31}
    ]
    assert "step 7: eval/bleu 27.31" in log.console.file.getvalue()


def events(folder):
    """The records of all event files, by the documented framing: length, its CRC, data, CRC."""
    records = []
    for path in sorted(folder.glob("events*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            records.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return records


def test_tensorboard_gets_the_scalars(tmp_path):
    run(tmp_path, 1, 3, tensorboard=True)
    values = {
        (event.step, value.tag): value.simple_value
        for event in events(tmp_path / "tensorboard")
        for value in event.summary.value
    }
    assert values[2, "train/loss"] == 0.5
    assert {step for step, tag in values if tag == "train/loss"} == {1, 2, 3}


def test_a_resumed_run_tells_tensorboard_where_it_starts(tmp_path):
    run(tmp_path, 1, 3, tensorboard=True)
    run(tmp_path, 3, 4, tensorboard=True)
    files = list((tmp_path / "tensorboard").glob("events*"))
    starts = [event.step for event in events(tmp_path / "tensorboard") if event.session_log.status]
    assert len(files) == 2
    assert sorted(starts) == [1, 3]


def test_a_profile_is_recorded_on_request(tmp_path):
    text = run(tmp_path, 1, 4, profile_at=1)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert "profile of 3 steps" in text


def test_closing_ends_an_open_profile_and_twice_is_once(tmp_path):
    log = make(tmp_path, profile_at=1)
    log.step(1, {"loss": 1.0}, units=1)
    log.close()
    log.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    log.step(2, {"loss": 1.0}, units=1)
    assert len(read_metrics(tmp_path)) == 1


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    log = make(tmp_path)
    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*metrics.jsonl: No space left"):
        log.step(1, {"loss": 1.0}, units=1)
    monkeypatch.undo()
    log.close()


def full(*_, **__):
    raise OSError(28, "No space left on device")


class Bucket(type(epath.Path("/"))):
    """A folder that says it is remote and cannot be appended to."""

    def __fspath__(self):
        return "mem://" + super().__fspath__()

    def open(self, mode="r", **kwargs):
        assert "a" not in mode
        return open(super().__fspath__(), mode, **kwargs)

    def exists(self):
        return os.path.exists(super().__fspath__())

    def mkdir(self, **_):
        os.makedirs(super().__fspath__(), exist_ok=True)


def test_a_remote_folder_has_the_lines_of_a_checkpoint_soon_after_it(tmp_path):
    console = Console(file=io.StringIO())
    folder = Bucket(tmp_path / "bucket")
    log = MetricsLog(folder, Logging(every=1, tensorboard=False), total_steps=5, console=console)
    log.step(1, {"loss": 1.0}, units=1)
    assert not (tmp_path / "bucket" / "metrics.jsonl").exists()
    log.upload()
    log._files._upload._job.result(10)
    assert [record["step"] for record in read_metrics(tmp_path / "bucket")] == [1]
    log.close()


def test_a_remote_folder_gets_the_files_by_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(run_files, "UPLOAD_SECONDS", 0.0)
    for first, last in ((1, 3), (3, 5)):
        config = Logging(every=1)
        console = Console(file=io.StringIO())
        folder = Bucket(tmp_path / "bucket")
        log = MetricsLog(folder, config, total_steps=5, start_step=first - 1, console=console)
        for step in range(first, last + 1):
            log.step(step, {"loss": 1.0}, units=1)
        log.message("done")
        log.close()
        assert not os.path.exists(log._files.stage)
    assert [record["step"] for record in read_metrics(tmp_path / "bucket")] == [1, 2, 3, 4, 5]
    assert len((tmp_path / "bucket" / "log.txt").read_text().splitlines()) == 2
    assert len(list((tmp_path / "bucket" / "tensorboard").iterdir())) == 2

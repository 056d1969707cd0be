"""The files of a run's folder, damaged: named in one line with the way on."""

import json
import os

import pytest

from jaxformers.errors import CheckpointError, ConfigError
from jaxformers.training import Adam, run_directory
from jaxformers.training.config.experiment_files import to_json
from jaxformers.training.reports.heartbeat import read_lost_time
from jaxformers.training.reports.run_files import RunFiles, read_metrics

NESTED = b"[" * 100_000
DEEP = b'{"a": ' * 400 + b"1" + b"}" * 400  # JSON takes it, a recursive reader may not


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[]", "list in place of dict"),
        (NESTED, "nested too deeply"),
        (json.dumps(to_json(Adam())).encode(), "it holds Adam"),
        (None, "not a regular file"),
    ],
    ids=["empty", "truncated", "binary", "list", "nested", "another class", "folder"],
)
def test_a_damaged_experiment_is_named_with_the_way_on(tmp_path, content, message):
    path = tmp_path / "experiment.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        run_directory.read_experiment(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "remove it and train with the experiment's file" in str(caught.value)


@pytest.mark.parametrize("content", [DEEP, b'{"$type": 3}', b'{"$type": "os:path"}', b'{"a": 1}'])
def test_json_that_is_no_experiment_is_named_with_its_file(tmp_path, content):
    (tmp_path / "experiment.json").write_bytes(content)
    with pytest.raises((CheckpointError, ConfigError), match=r"experiment\.json"):
        run_directory.read_experiment(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[3]", b"{}", b'{"step": "3"}', NESTED])
def test_a_damaged_step_of_an_export_is_named_with_the_way_on(tmp_path, content):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "step.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step\.json is damaged .*; remove .*model, and"):
        run_directory.exported_step(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        NESTED,
        b"[]",
        b'{"seconds": {"time": NaN}}',
        b'{"seconds": {"time": 3, "steps": NaN}}',
        b'{"seconds": {"time": 3, "steps": "x"}}',
        b'{"seconds": 3}',
        b'{"seconds": {"time": 1' + b"0" * 400 + b"}}",
    ],
)
def test_a_damaged_status_counts_as_none(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    assert read_lost_time(tmp_path) is None


RECORDS = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval/x": 1.0}]
DAMAGED = [
    b"\xff\xfe",
    NESTED,
    b'{"step": "2", "loss": 1}',
    b'{"step": null}',
    b'{"step": 2, "loss": "x"}',
    b'{"step": 2, "loss": 1' + b"0" * 400 + b"}",
    b"[1]",
    b"3",
]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_of_the_metrics_is_dropped_and_counted(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = [json.dumps(record).encode() for record in RECORDS]
    path.write_bytes(b"\n".join([good[0], line, *good[1:], b'{"step": 3, "lo']))
    assert read_metrics(tmp_path) == RECORDS
    files = RunFiles(tmp_path, 2, tensorboard=False)
    assert files.num_damaged == 1
    assert path.read_bytes() == b"".join(line + b"\n" for line in good)


def test_an_evaluation_that_is_made_again_stands_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS))
    RunFiles(tmp_path, 2, tensorboard=False, evaluate_again=True)
    assert read_metrics(tmp_path) == RECORDS[:2]


def test_a_pipe_in_place_of_a_log_is_refused(tmp_path):
    for name in ("metrics.jsonl", "log.txt"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(CheckpointError, match=rf"{name} cannot be .*; remove it"):
            RunFiles(tmp_path, 0, tensorboard=False)
        (tmp_path / name).unlink()

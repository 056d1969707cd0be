"""Runs side by side."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxformers.errors import ConfigError
from jaxformers.runs import compare

RECORDS = [
    {"step": 10, "steps/s": 1.0, "flops/s": 5.0, "loss": 1.0},
    {"step": 10, "eval/dev_top1": 50.0},
    {"step": 30, "steps/s": 2.0, "flops/s": 10.0, "loss": 0.5},
    {"step": 30, "eval/dev_top1": 70.0, "eval/test_top1": 69.0},
]


@pytest.fixture
def run(tmp_path):
    from etils import epath
    from tiny import EXPERIMENT

    from jaxformers.training import run_directory

    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    run_directory.write_experiment(epath.Path(folder), EXPERIMENT, main=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    tensors = {"params/a": np.zeros((3, 4), np.float32), "batch_stats/b": np.zeros(7, np.float32)}
    save_file(tensors, folder / "model" / "model.safetensors")
    return folder


def test_a_curve_has_time_flops_and_parameters_of_each_evaluation(run):
    (curve,) = compare.compare(run, "dev_top1")
    np.testing.assert_allclose(curve.minutes, [10 / 60, 20 / 60])
    np.testing.assert_allclose(curve.flops, [50.0, 150.0])
    assert curve.values.tolist() == [50.0, 70.0] and curve.parameters == 12


def test_the_table_and_the_picture_show_every_run(run):
    curves = compare.compare([run, run], "dev_top1")
    lines = compare.table(curves, "dev_top1").splitlines()
    assert len(lines) == 4 and "70.00" in lines[2] and "12" in lines[3]
    axes = compare.figure(curves, "dev_top1").axes
    assert [len(panel.lines) for panel in axes] == [2, 2, 2]


def test_a_metric_that_a_run_lacks_is_answered_with_those_it_has(run, tmp_path):
    with pytest.raises(ConfigError, match="did you mean dev_top1"):
        compare.compare([run], "dev_top")
    with pytest.raises(ConfigError, match="not a run's folder"):
        compare.compare([tmp_path], "dev_top1")

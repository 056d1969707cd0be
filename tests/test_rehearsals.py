"""Every file in `experiments/` rehearses, by the command that a person gives."""

import math
from pathlib import Path

import jax
import pytest

from jaxformers.cli import command
from jaxformers.training.reports.run_files import read_metrics

ROOT = Path(__file__).resolve().parents[1] / "experiments"
# One of each kind of task that no other test rehearses; training/test_loop.py,
# test_follow_up_runs.py and tasks/test_span_extraction.py do that for translation, masked words,
# classes and answers.
QUICK = {"clip/flowers102_zero_shot", "mae/pretrain_base", "resnet/imagenet_r50"}


UNTRAINED = {"flowers102_knn", "flowers102_linear_probe", "flowers102_zero_shot"}


def named(path):
    name = f"{path.parent.name}/{path.stem}"
    return pytest.param(path, id=name, marks=() if name in QUICK else pytest.mark.slow)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("file", [named(path) for path in sorted(ROOT.glob("*/*.py"))])
def test_it_rehearses(file, tmp_path):
    assert jax.device_count() == 8  # in use from here on, so that other tests keep their compiler
    assert command.main(["train", str(file), "--rehearse", "--folder", str(tmp_path)]) == 0
    runs = [path.parent for path in tmp_path.rglob("metrics.jsonl")]
    assert tmp_path in runs
    for run in runs:
        losses = [record["loss"] for record in read_metrics(run) if "loss" in record]
        trained = 0 if file.stem in UNTRAINED else 4
        assert len(losses) == trained and all(map(math.isfinite, losses))
        assert (run / "report.md").exists()

"""What a command sets holds for all runs of an experiment to which it applies."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxformers.data.images import BundledFashionMnist, ImageFolder
from jaxformers.errors import ConfigError
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.config.overrides import override
from jaxformers.training.follow_up_runs import plan_lines
from jaxformers.training.optim.schedules import Cosine, InverseSquareRoot, warmup_warning

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
MINE = ("--task.data", "image-folder", "--task.data.path", "MINE")


def overridden(name, *words):
    return override(load_experiment(EXPERIMENTS / f"{name}.py"), words, "train")


def test_the_data_and_the_steps_of_a_command_hold_for_the_run_that_follows():
    experiment = overridden("vit/demo", *MINE, "--steps", "150")
    (follow_up,) = experiment.after
    for run in (experiment, follow_up):
        assert run.task.data == ImageFolder("MINE")
        assert (run.steps, run.epochs) == (150, None)
    assert follow_up.name == "without_positions" and follow_up.task.model.positions == "none"


def test_an_mae_is_probed_and_fine_tuned_on_the_pictures_it_was_pre_trained_on():
    words = [*MINE, "--task.model.encoder.width", "64", "--task.model.classes=3", "--seed", "7"]
    experiment = overridden("mae/demo", *words, "--task.rows", "16", "--steps=9")
    names = [run.name for run in experiment.after]
    assert names == ["linear_probe", "random_probe", "fine_tuned"]
    assert experiment.task.model.encoder.width == 64 and experiment.task.model.classes == 0
    for run in (experiment, *experiment.after):
        assert run.task.data == ImageFolder("MINE")
        assert (run.steps, run.seed, run.task.rows) == (9, 7, 16)
    for run in experiment.after:
        # The encoder's fields are those of the classifiers that start from it.
        assert (run.task.model.width, run.task.model.classes) == (64, 3)
    assert [run.task.weights for run in experiment.after] == ["previous", None, "previous"]


@pytest.mark.slow
def test_what_a_follow_up_run_has_of_its_own_by_design_stays():
    words = ["--task.model.positions", "learned", "--task.model.layers", "2"]
    experiment = overridden("vit/demo", *words)
    (follow_up,) = experiment.after
    assert (experiment.task.model.positions, follow_up.task.model.positions) == ("learned", "none")
    assert (experiment.task.model.layers, follow_up.task.model.layers) == (2, 2)
    experiment = overridden("mae/demo", "--task.weights", "runs/mae", "--name", "mine")
    assert [run.task.weights for run in experiment.after] == ["previous", None, "previous"]
    assert [run.name for run in (experiment, *experiment.after)][:2] == ["mine", "linear_probe"]
    experiment = overridden("vit/vtab", "--task.weights", "w.npz", "--task.data.data-dir", "D")
    runs = (experiment, *experiment.after)
    assert {run.task.weights for run in runs} == {"w.npz"}
    assert {run.task.data.data_dir for run in runs} == {"D"}
    assert len({run.task.data.task for run in runs}) == 19


def test_a_single_follow_up_run_can_be_addressed():
    words = ["--schedule.peak", "0.01", "--after.fine_tuned.schedule.peak", "0.003"]
    experiment = overridden("mae/demo", *words)
    peaks = [run.schedule.peak for run in (experiment, *experiment.after)]
    assert peaks == [0.01, 0.01, 0.01, 0.003]
    experiment = overridden("vit/demo", "--after.without-positions.steps=3")
    assert (experiment.steps, experiment.after[0].steps) == (8437, 3)


def test_kinds_that_a_follow_up_run_does_not_know_are_left_out():
    """Texts to pre-train on are no data of a classifier."""
    words = ["--task.data", "text-folder", "--task.data.path", "X", "--task.rows", "4"]
    experiment = overridden("bert/demo", *words)
    assert type(experiment.after[0].task.data).__name__ == "BundledHelp"
    assert {run.task.rows for run in experiment.after} == {4}  # no field of the first run


@pytest.mark.default_cases(3)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stpes", "3"], "unknown option --stpes; did you mean --steps"),
        (["--steps", "ten"], "^--steps: 'ten' is not an int"),
        (["--task.model.clases", "3"], "did you mean --task.model.classes"),
        (["--after.fine.steps", "3"], "no follow-up run 'fine'; there are linear_probe"),
        (["--after.fine_tuned.stpes", "3"], "follow-up run fine_tuned: unknown option --stpes"),
        (["--task.model.classes", "-1"], "follow-up run linear_probe: .*classes is -1"),
        (["9"], "unexpected argument '9'"),
    ],
)
def test_a_mistake_is_named_once(words, message):
    with pytest.raises(ConfigError, match=message):
        overridden("mae/demo", *words)


def test_the_plan_names_every_run_with_its_data_and_length():
    lines = list(plan_lines(overridden("vit/demo", *MINE, "--steps", "150")))
    assert lines == [
        "2 runs, one after another:",
        "1. vit_demo: ImageClassification on ImageFolder(path='MINE'), 150 steps, "
        "Cosine(peak=0.002, warmup=200)",
        "2. without_positions: ImageClassification on ImageFolder(path='MINE'), 150 steps, "
        "Cosine(peak=0.002, warmup=200), model.positions 'none'",
    ]
    lines = list(plan_lines(load_experiment(EXPERIMENTS / "mae" / "demo.py")))
    assert "BundledFashionMnist()" in lines[2] and "15 epochs" in lines[2]
    assert lines[2].endswith("from the weights of mae_demo")
    assert not lines[3].endswith("from the weights of mae_demo")
    assert BundledFashionMnist().limit is None


@pytest.mark.parametrize(
    ("schedule", "steps", "warns"),
    [
        (Cosine(warmup=200), 150, True),
        (Cosine(warmup=200), 200, True),
        (Cosine(warmup=200), 201, False),
        (InverseSquareRoot(), 300, True),
    ],
)
def test_a_warm_up_that_outlasts_the_run_is_warned_of(schedule, steps, warns):
    assert ("warning: the warm-up" in warmup_warning(schedule, steps)) == warns

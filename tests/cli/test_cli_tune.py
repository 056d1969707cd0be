"""`jaxformers tune` and the ensembles of `jaxformers evaluate`, as a person meets them."""

from __future__ import annotations

import math

import pytest
from etils import epath
from test_cli import TINY, mistake, run

from jaxformers.runs import tune
from jaxformers.runs.tune_results import TunedRun, TuneResult

WITH_DEV = TINY.replace("BundledPairs()), steps", "BundledPairs(), dev=BundledPairs()), steps")
GRID = '\ndef grid():\n    return {"schedule.warmup": (5, 7)}\n'


@pytest.fixture
def file(tmp_path, monkeypatch) -> str:
    """An experiment with a development set, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(WITH_DEV)
    return "tiny.py"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--try", "schedule.wramup", "5"], "unknown option --schedule.wramup; did you mean"),
        (["--try", "schedule.warmup", "5", "many"], "--schedule.warmup: 'many' is not an int"),
        (["--try", "schedule.warmup"], "--try schedule.warmup: give the values to try behind it"),
        (["--try"], "--try: expected at least one argument"),
        ([], "nothing to try: give --try FIELD VALUE VALUE ..., or --seeds"),
        (["--try", "steps", "5", "--seeds", "0", "one"], "--seeds: 'one' is not an int"),
        (["--sedes", "0"], "nothing to try"),
        (["--try", "steps", "5", "--sedes", "0"], "unknown option --sedes; did you mean --seeds?"),
        (["--try", "steps", "-1"], "steps is -1; it is a whole number, at least 0"),
        (["--try", "seed", "1"], "seed cannot be tried"),
        (["--try", "steps", "5", "--task.dev", "None"], "tiny has no development metric"),
    ],
)
def test_a_mistaken_tune_is_one_line_and_status_2(capfd, file, words, message):
    assert message in mistake(capfd, "tune", file, *words)
    assert not epath.Path("runs").exists()


def test_a_tune_without_a_file_is_one_line(capfd):
    assert "FILE is missing" in mistake(capfd, "tune", "--try", "steps", "5")


@pytest.fixture
def tune_calls(monkeypatch):
    """What `tune` was called with, its runs not trained."""
    calls = []

    def called(experiment, grid, seeds, folder, *, keep_all):
        calls.append((experiment, grid, seeds, folder, keep_all))
        runs = [
            TunedRun(
                f"warmup={n},seed=0", {"schedule.warmup": str(n)}, 0, {"dev_perplexity": v}, 0.1
            )
            for n, v in ((5, 8.25), (7, math.nan))
        ]
        return TuneResult(epath.Path(folder), "dev_perplexity", True, runs, finished=True)

    monkeypatch.setattr(tune, "tune", called)
    return calls


def test_a_tune_prints_all_results_and_how_to_use_the_best(capfd, file, tune_calls):
    words = ["--try", "schedule.warmup", "5", "7", "--seeds", "0", "1", "--steps", "3"]
    status, out, err = run(capfd, "tune", file, *words, "--keep-all")
    assert (status, err) == (0, "")
    ((experiment, grid, seeds, folder, keep_all),) = tune_calls
    assert experiment.steps == 3 and grid == {"schedule.warmup": ("5", "7")}
    assert (seeds, folder, keep_all) == ([0, 1], "runs/tiny-tune", True)
    assert "| 5               | 0    | 8.25           | 6:00 | **best** |" in out
    assert "evaluate runs/tiny-tune/warmup=5,seed=0\n" in out
    assert "| jaxformers translate" in out or " translate runs/tiny-tune/warmup=5,seed=0" in out


def test_the_files_own_grid_is_tried_where_none_is_given(capfd, file, tune_calls, tmp_path):
    (tmp_path / file).write_text(WITH_DEV + GRID)
    assert run(capfd, "tune", file, "--folder", "here")[0] == 0
    assert run(capfd, "tune", file, "--try", "steps", "4", "--try", "steps", "6")[0] == 0
    assert [call[1] for call in tune_calls] == [{"schedule.warmup": (5, 7)}, {"steps": ("4", "6")}]
    assert tune_calls[0][3] == "here"


def test_a_grid_that_is_none_is_named_with_its_file(capfd, file, tmp_path):
    (tmp_path / file).write_text(WITH_DEV + "\ndef grid():\n    return 3\n")
    assert mistake(capfd, "tune", file).startswith("tiny.py: TypeError: 'int' object")


def test_several_seeds_alone_are_a_tune(capfd, file, tune_calls):
    assert run(capfd, "tune", file, "--seeds", "3", "4")[0] == 0
    assert tune_calls[0][1:3] == ({}, [3, 4])


def test_a_rehearsed_tune_leaves_nothing(capfd, file, tune_calls, tmp_path):
    assert run(capfd, "tune", file, "--rehearse", "--seeds", "0")[0] == 0
    assert tune_calls[0][0].name == "tiny-rehearsal"
    assert not epath.Path(tune_calls[0][3]).exists() and not (tmp_path / "runs").exists()


def test_a_stopped_tune_says_how_it_goes_on(capfd, file, monkeypatch):
    stopped = TuneResult(epath.Path("x"), "dev_perplexity", True, [], finished=False)
    monkeypatch.setattr(tune, "tune", lambda *_, **__: stopped)
    status, out, _ = run(capfd, "tune", file, "--seeds", "0")
    assert status == 75 and "Stopped, 0 done; the same command goes on from there." in out


def test_the_paper_s_grid_is_that_of_the_glue_experiment():
    from test_cli import ROOT

    from jaxformers.training.config.experiment_files import load_grid

    assert load_grid(ROOT / "experiments/bert/glue.py") == {
        "schedule.peak": (5e-5, 4e-5, 3e-5, 2e-5)
    }

"""A grid of runs: what is tried, what is kept, how a tune goes on, what it says."""

import json
import math
from dataclasses import replace

import pytest
import tiny
from etils import epath

from jaxformers.data import (
    BundledDocuments,
    BundledMovies,
    BundledPairs,
    BundledQuestions,
    TsvTexts,
)
from jaxformers.errors import CheckpointError, ConfigError
from jaxformers.models import BertConfig
from jaxformers.runs import tune as tuning
from jaxformers.runs.grid import settings
from jaxformers.runs.tune import tune
from jaxformers.runs.tune_report import closing, settings_table
from jaxformers.tasks import Evaluation, MaskedLanguage, SequenceClassification, SpanExtraction
from jaxformers.training import Cosine, run_directory
from jaxformers.training.run_result import Diverged, RunResult

PAIRS = BundledPairs()
EXPERIMENT = replace(tiny.EXPERIMENT, task=replace(tiny.EXPERIMENT.task, dev=PAIRS))
PEAKS = {"schedule.peak": (0.1, 0.3, 0.2)}


def names(experiment, grid, seeds=(0,)):
    return [setting.name for setting in settings(experiment, grid, seeds)]


# ---------------------------------------------------------------------- the grid


def test_every_combination_is_one_run_named_by_its_values():
    combinations = settings(
        EXPERIMENT, {"schedule.peak": (1e-3, 5e-5), "clip_norm": ("None", 1)}, (0, 7)
    )
    assert [setting.name for setting in combinations] == [
        f"peak={peak},clip_norm={norm},seed={seed}"
        for peak in ("0.001", "5e-05")
        for norm in ("None", "1.0")
        for seed in (0, 7)
    ]
    last = combinations[-1].experiment
    assert (last.schedule.peak, last.clip_norm, last.seed) == (5e-5, 1.0, 7)
    assert combinations[0].experiment.clip_norm is None
    assert replace(last, schedule=EXPERIMENT.schedule, clip_norm=None, seed=0, name="tiny") == (
        EXPERIMENT
    )


def test_a_value_may_be_a_kind_a_switch_or_several_numbers():
    (kind,) = settings(EXPERIMENT, {"--schedule": ("cosine",)}, (0,))
    assert isinstance(kind.experiment.schedule, Cosine) and kind.name == "schedule=cosine,seed=0"
    switched = settings(EXPERIMENT, {"task.model.attention-bias": ("true", False)}, (0,))
    assert [setting.experiment.task.model.attention_bias for setting in switched] == [True, False]
    (several,) = settings(EXPERIMENT, {"task.languages": ("en fr",)}, (0,))
    assert several.experiment.task.languages == ("en", "fr")
    assert several.name == "languages=en_fr,seed=0"


def test_the_same_value_written_twice_is_tried_once():
    assert names(EXPERIMENT, {"schedule.peak": ("5e-5", "0.00005", 5e-5)}, (1, 1)) == [
        "peak=5e-05,seed=1"
    ]


def test_fields_that_end_alike_are_named_whole():
    grid = {"task.model.dropout": (0.1,), "task.model.max_length": (16,)}
    assert names(EXPERIMENT, grid) == ["dropout=0.1,max_length=16,seed=0"]
    grid = {"task.batching.rows": (10,), "task.search.rows": (4,)}
    assert names(EXPERIMENT, grid) == ["task.batching.rows=10,task.search.rows=4,seed=0"]


def test_a_long_value_gives_a_short_name_of_its_own():
    paths = tuple(f"/{'x' * 300}/{end}" for end in "ab")
    run_names = names(EXPERIMENT, {"checkpoint.best": paths})
    assert len(set(run_names)) == 2 and max(map(len, run_names)) < 80
    assert not any("/" in name for name in run_names)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"schedule.peek": (1,)}, "unknown option --schedule.peek; did you mean --schedule.peak"),
        ({"schedule.peak": (0.1, "high")}, "--schedule.peak: 'high' is not a float"),
        ({"schedule.peak": ()}, "--try schedule.peak: give the values to try behind it"),
        ({"task.model.heads": (3,)}, "3 heads do not divide"),
        ({"seed": (1, 2)}, "seed cannot be tried: seeds are given by --seeds"),
        ({"task.model.attention_bias": ("maybe",)}, "'maybe' is neither true nor false"),
    ],
)
def test_a_mistake_in_the_grid_is_told_before_any_run(grid, message, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "train", lambda *_: pytest.fail("it trained"))
    with pytest.raises(ConfigError, match=message):
        tune(EXPERIMENT, grid, folder=tmp_path / "tune")


def test_a_task_without_development_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="tiny has no development metric to choose by"):
        tune(tiny.EXPERIMENT, PEAKS, folder=tmp_path)


def test_each_task_names_what_is_best_where_it_has_development_data():
    bert = BertConfig.tiny()
    spans = SpanExtraction(bert, BundledQuestions(), dev=BundledQuestions("held_out"))
    masked = MaskedLanguage(bert, BundledDocuments(), dev=BundledDocuments())
    movies = SequenceClassification(bert, BundledMovies())
    tasks = (EXPERIMENT.task, spans, masked, movies)
    assert [(task.best, task.lowest_is_best) for task in tasks] == [
        ("dev_perplexity", True),
        ("f1", False),
        ("dev_mlm_perplexity", True),
        ("dev_accuracy", False),
    ]
    assert not any(replace(task, dev=None).best for task in tasks[:3])
    assert not replace(movies, data=TsvTexts("own.tsv")).best


# ---------------------------------------------------------------------- the runs


class Trainer:
    """Stands for `train`: leaves what a run leaves; the perplexity is 10 x the peak."""

    def __init__(self):
        self.trained, self.stop_at, self.diverge_at = [], None, None
        self.with_weights = []  # the runs that had their weights when each run began

    def __call__(self, experiment, folder):
        self.with_weights.append(
            {path.name for path in folder.parent.iterdir() if has_weights(path)}
        )
        self.trained.append(folder.name)
        run_directory.write_experiment(folder, experiment, main=True)
        for name in ("checkpoints", "model"):
            (folder / name / "x").mkdir(parents=True, exist_ok=True)
        if experiment.schedule.peak == self.stop_at:
            return RunResult(folder, 1, finished=False)
        if experiment.schedule.peak == self.diverge_at:
            raise Diverged("step 3: the loss is nan")
        metrics = {"dev_perplexity": 10 * experiment.schedule.peak + experiment.seed, "bleu": 1.0}
        records = [{"step": 2, "compile_seconds": 9.0}, {"step": 2, "eval/bleu": 1.0}]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))
        return RunResult(folder, 2, finished=True, evaluation=Evaluation(metrics))


def has_weights(folder):
    return (folder / "checkpoints").exists() and (folder / "model").exists()


@pytest.fixture
def trainer(monkeypatch):
    trainer = Trainer()
    monkeypatch.setattr(tuning, "train", trainer)
    return trainer


def test_the_best_run_is_kept_whole_and_the_others_lose_their_weights(trainer, tmp_path):
    tuned = tune(EXPERIMENT, {"schedule.peak": (0.2, 0.1, 0.3)}, folder=tmp_path)
    assert tuned.finished and tuned.best.name == "peak=0.1,seed=0"
    left = {
        path.name: has_weights(path) for path in epath.Path(tmp_path).iterdir() if path.is_dir()
    }
    assert left == {f"peak={p},seed=0": p == 0.1 for p in (0.1, 0.2, 0.3)}
    for name in left:
        assert (tmp_path / name / "experiment.json").exists()
        assert (tmp_path / name / "metrics.jsonl").exists()
    # What is beaten goes before the next run begins: the disk never holds more than two.
    assert trainer.with_weights[2] == {"peak=0.1,seed=0"}


def test_all_runs_stay_whole_where_that_is_asked_for(trainer, tmp_path):
    tune(EXPERIMENT, PEAKS, folder=tmp_path, keep_all=True)
    assert all(has_weights(tmp_path / f"peak={p},seed=0") for p in (0.1, 0.2, 0.3))


def test_the_highest_is_best_where_the_task_says_so(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(type(EXPERIMENT.task), "lowest_is_best", False)
    assert tune(EXPERIMENT, PEAKS, folder=tmp_path).best.name == "peak=0.3,seed=0"
    assert "highest dev perplexity" in (tmp_path / "tune.md").read_text()


def test_an_interrupted_tune_goes_on_and_trains_nothing_twice(trainer, tmp_path):
    trainer.stop_at = 0.3
    stopped = tune(EXPERIMENT, PEAKS, folder=tmp_path)
    assert not stopped.finished and [run.values for run in stopped.runs] == [
        {"schedule.peak": "0.1"}
    ]
    trainer.stop_at, trainer.trained = None, []
    assert tune(EXPERIMENT, PEAKS, folder=tmp_path).finished
    assert trainer.trained == ["peak=0.3,seed=0", "peak=0.2,seed=0"]
    trainer.trained = []
    more = tune(EXPERIMENT, PEAKS, (0, 1), tmp_path)
    assert trainer.trained == [f"peak={p},seed=1" for p in (0.1, 0.3, 0.2)]
    assert len(more.runs) == 6 and more.best.name == "peak=0.1,seed=0"


def test_a_run_whose_folder_was_removed_is_trained_anew(trainer, tmp_path):
    tune(EXPERIMENT, PEAKS, folder=tmp_path)
    epath.Path(tmp_path / "peak=0.1,seed=0").rmtree()
    trainer.trained = []
    assert tune(EXPERIMENT, PEAKS, folder=tmp_path).best.name == "peak=0.1,seed=0"
    assert trainer.trained == ["peak=0.1,seed=0"] and has_weights(tmp_path / "peak=0.1,seed=0")


def test_results_of_another_experiment_are_refused(trainer, tmp_path):
    tune(EXPERIMENT, PEAKS, folder=tmp_path)
    with pytest.raises(
        CheckpointError, match=r"peak=0.1,seed=0 was trained with other steps, clip"
    ):
        tune(replace(EXPERIMENT, steps=30, clip_norm=2.0), PEAKS, folder=tmp_path)
    # Where a run lies and what it logs is nothing to its result.
    tune(replace(EXPERIMENT, name="y", remat="full"), PEAKS, folder=tmp_path)
    assert len(trainer.trained) == 3


@pytest.mark.parametrize("content", ['{"runs": [{"name": 1}]}', "[1]", "[" * 100_000, None])
def test_a_damaged_record_is_refused_with_the_mend(trainer, tmp_path, content):
    path = tmp_path / "tune.json"
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(CheckpointError, match=r"tune.json is damaged \(.*\); remove it"):
        tune(EXPERIMENT, PEAKS, folder=tmp_path)


def test_a_run_that_diverges_is_recorded_and_the_tune_goes_on(trainer, tmp_path):
    trainer.diverge_at = 0.1
    tuned = tune(EXPERIMENT, PEAKS, folder=tmp_path)
    assert tuned.finished and tuned.best.name == "peak=0.2,seed=0"
    assert "step 3: the loss is nan" in (tmp_path / "tune.md").read_text()
    trainer.trained = []
    assert tune(EXPERIMENT, PEAKS, folder=tmp_path).runs == tuned.runs
    assert trainer.trained == []


def test_a_number_that_is_not_finite_is_never_the_best(trainer, tmp_path, monkeypatch):
    tune(EXPERIMENT, PEAKS, folder=tmp_path)
    record = json.loads((tmp_path / "tune.json").read_text())
    assert record["best"] == "peak=0.1,seed=0"
    record["runs"][0]["metrics"]["dev_perplexity"] = None
    (tmp_path / "tune.json").write_text(json.dumps(record))
    again = tune(EXPERIMENT, PEAKS, folder=tmp_path)
    assert math.isnan(again.runs[0].metrics["dev_perplexity"])
    assert again.best.name == "peak=0.2,seed=0"


def test_a_run_that_had_finished_before_is_read_from_its_log(trainer, tmp_path, monkeypatch):
    def finished(experiment, folder):
        result = trainer(experiment, folder)
        line = json.dumps({"step": 2, "eval/dev_perplexity": 4.5})
        (folder / "metrics.jsonl").write_text(f"{line}\n")
        return replace(result, evaluation=None)

    monkeypatch.setattr(tuning, "train", finished)
    tuned = tune(EXPERIMENT, {"schedule.peak": (0.1,)}, folder=tmp_path)
    assert tuned.best.metrics == {"dev_perplexity": 4.5}


# ---------------------------------------------------------------------- what it says


def test_the_tables_have_a_row_a_run_and_a_row_a_setting(trainer, tmp_path):
    tuned = tune(EXPERIMENT, {"schedule.peak": (0.1, 0.3)}, (0, 1), tmp_path)
    text = (tmp_path / "tune.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["schedule.peak", "seed", "dev perplexity", "bleu", "time", ""] in rows
    assert ["0.1", "0", "1", "1", "0:09", "**best**"] in rows
    assert ["0.3", "1", "4", "1", "0:09", ""] in rows
    assert ["0.1", "2", "1.5 ± 0.71", "1 ± 0"] in rows
    lines = list(closing(tuned, EXPERIMENT.task))
    best = tmp_path / "peak=0.1,seed=0"
    assert any(line.endswith(f" evaluate {best}") for line in lines)
    assert f"best: {best} (dev perplexity 1)" in lines
    assert any(f"translate {best}" in line for line in lines)


def test_a_mean_tells_how_many_runs_it_is_of(trainer, tmp_path):
    tuned = tune(EXPERIMENT, {"schedule.peak": (0.1,)}, (0, 1, 2), tmp_path)
    broken = [*tuned.runs[:2], replace(tuned.runs[2], metrics={})]
    assert "1.5 ± 0.71 (2 of 3)" in settings_table(replace(tuned, runs=broken))


def test_the_record_holds_every_result(trainer, tmp_path):
    tune(EXPERIMENT, PEAKS, folder=tmp_path)
    record = json.loads((tmp_path / "tune.json").read_text())
    assert (record["metric"], record["lowest_is_best"]) == ("dev_perplexity", True)
    assert record["runs"][1] == {
        "name": "peak=0.3,seed=0",
        "values": {"schedule.peak": "0.3"},
        "seed": 0,
        "metrics": {"dev_perplexity": 3.0, "bleu": 1.0},
        "hours": 9 / 3600,
        "problem": "",
    }

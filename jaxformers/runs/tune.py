"""A grid of runs: each is trained once, the best on the development set is kept whole.

In the tune's folder lie one run's folder for each setting and seed, `tune.json` (what was found, so
that a tune goes on where it stopped) and `tune.md` (the same for people).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import jax
from etils import epath

from jaxformers.errors import CheckpointError, ConfigError
from jaxformers.runs.grid import Grid, Setting, settings
from jaxformers.runs.tune_report import TUNE_REPORT, write_tune_report
from jaxformers.runs.tune_results import TunedRun, TuneResult
from jaxformers.training import run_directory
from jaxformers.training.experiment import Experiment
from jaxformers.training.loop import train
from jaxformers.training.reports.report import run_costs
from jaxformers.training.reports.run_files import METRICS, read_metrics, replace_file
from jaxformers.training.run_lock import RunLock
from jaxformers.training.run_result import Diverged
from jaxformers.training.stored_files import DamagedFile, read_json

RECORD = "tune.json"
WEIGHTS = (run_directory.CHECKPOINTS, run_directory.MODEL)  # what a beaten run loses


def tune(
    experiment: Experiment,
    grid: Grid,
    seeds: Sequence[int] | None = None,
    folder: epath.PathLike | None = None,
    *,
    keep_all: bool = False,
) -> TuneResult:
    """Trains every combination of the tried values and the seeds, and keeps the best.

    Each is an ordinary run, by `train`, in a folder named by its values. Called again, a tune goes
    on where it stopped, and runs that are finished are not trained again; further values or seeds
    may be added. Of all but the best the checkpoints and weights are removed as soon as they are
    beaten. A run that diverges is recorded as such, and the tune goes on.

    Args:
        experiment: what is tuned.
        grid: values by the paths of fields, such as `{"schedule.peak": (5e-5, 3e-5)}`.
        seeds: every setting is trained with each of these seeds; None: the experiment's own.
        folder: the folder of all runs; by default `runs/<name>-tune`.
        keep_all: keep the checkpoints and weights of all runs.

    Returns:
        The results of all runs so far; see `TuneResult`.

    Raises:
        UserError: what a person can mend, in one line; before any training where that is possible.
    """
    metric, lowest = experiment.task.best, experiment.task.lowest_is_best
    if not metric:
        raise ConfigError(
            f"{experiment.name} has no development metric to choose by; give its task "
            "development data, such as --task.dev"
        )
    folder = epath.Path(folder or epath.Path("runs") / f"{experiment.name}-tune")
    chosen = settings(experiment, grid, seeds or (experiment.seed,))
    with RunLock(folder):
        tried = _kept(folder)
        _check_same(folder, tried, chosen)
        tuned = TuneResult(folder, metric, lowest, tried, finished=True)
        todo = [
            setting_to_run
            for setting_to_run in chosen
            if setting_to_run.name not in {done.name for done in tried}
        ]
        for number, setting in enumerate(todo, 1 + len(chosen) - len(todo)):
            _say(f"run {number} of {len(chosen)}: {setting.name}")
            tuned_run = _trained(setting, folder / setting.name, metric)
            if tuned_run is None:
                return replace(tuned, finished=False)
            tried.append(tuned_run)
            _settle(tuned, experiment.name, keep_all)
        _settle(tuned, experiment.name, keep_all)
        return tuned


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, flush=True)


def _trained(setting: Setting, folder: epath.Path, metric: str) -> TunedRun | None:
    """Trains one run to its end; None where it was stopped."""
    metrics, problem = {}, ""
    try:
        result = train(setting.experiment, folder)
        if not result.finished:
            return None
        metrics = dict(result.evaluation.metrics) if result.evaluation else _evaluated(folder)
    except Diverged as error:
        problem = str(error)
    if not problem and metric not in metrics:
        raise ConfigError(
            f"{folder} was not evaluated by {metric}, so that nothing can be chosen by it; it has "
            f"{', '.join(metrics) or 'no metrics'}"
        )
    # A run that diverges at once leaves no record.
    records = read_metrics(folder) if (folder / METRICS).exists() else []
    hours = run_costs(records)["training_hours"]
    return TunedRun(setting.name, setting.values, setting.experiment.seed, metrics, hours, problem)


def _evaluated(folder: epath.Path) -> dict[str, float]:
    """The metrics that a run which had finished before left in its log."""
    metrics: dict[str, Any] = {}
    for record in read_metrics(folder):
        metrics |= {k.removeprefix("eval/"): v for k, v in record.items() if k.startswith("eval/")}
    return {name: _number(value) for name, value in metrics.items()}


def _settle(tuned: TuneResult, name: str, keep_all: bool) -> None:
    """Records what was found, and only then removes the weights of what was beaten."""
    if jax.process_index() != 0:
        return
    best = tuned.best
    record = {
        "metric": tuned.metric,
        "lowest_is_best": tuned.lowest,
        "best": best.name if best else None,
        "runs": [_plain(run) for run in tuned.runs],
    }
    replace_file(tuned.folder / RECORD, json.dumps(record, indent=1, allow_nan=False).encode())
    replace_file(tuned.folder / TUNE_REPORT, write_tune_report(tuned, name).encode())
    beaten = [] if keep_all else [run.name for run in tuned.runs if run is not best]
    for path in (tuned.folder / run / item for run in beaten for item in WEIGHTS):
        if path.exists():
            path.rmtree()


def _kept(folder: epath.Path) -> list[TunedRun]:
    """What an earlier call recorded, runs whose folder was removed since left out."""
    path = folder / RECORD
    try:
        runs = [_tried(run) for run in read_json(path)["runs"]]
    except FileNotFoundError:
        return []
    except (DamagedFile, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        damage = error if isinstance(error, DamagedFile) else "no record of a tune"
        raise CheckpointError(
            f"{path} is damaged ({damage}); remove it, and finished runs are read from their "
            "folders"
        ) from None
    return [run for run in runs if run_directory.is_run(folder / run.name)]


def _check_same(folder: epath.Path, tried: Sequence[TunedRun], chosen: Sequence[Setting]) -> None:
    """Refuses results of another experiment."""
    finished_names = {run.name for run in tried}
    for setting in chosen:
        if setting.name not in finished_names:
            continue
        before = run_directory.read_experiment(folder / setting.name)
        if changed := run_directory.changed_fields(before, setting.experiment, results=True):
            raise CheckpointError(
                f"{folder / setting.name} was trained with other {', '.join(changed)}; choose "
                "another --folder, or remove this one to try it anew"
            )


def _plain(run: TunedRun) -> dict[str, Any]:
    """As JSON, which has no NaN."""
    metrics = {n: v if math.isfinite(v) else None for n, v in run.metrics.items()}
    return asdict(run) | {"metrics": metrics}


def _tried(record: dict[str, Any]) -> TunedRun:
    metrics = {name: _number(value) for name, value in record["metrics"].items()}
    return TunedRun(**(record | {"metrics": metrics}))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)

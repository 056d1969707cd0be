"""`tune.md`, and what a person sees when a tune has ended."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from jaxformers.runs.tune_results import TunedRun, TuneResult
from jaxformers.tasks.base import Task
from jaxformers.training.reports.final_summary import program
from jaxformers.training.reports.markdown import escape, markdown, words
from jaxformers.training.reports.progress import duration
from jaxformers.training.reports.report import own_command

TUNE_REPORT = "tune.md"


def write_tune_report(tuned: TuneResult, name: str) -> str:
    """All results of a tune in Markdown: a row a run, then a row a setting over its seeds."""
    kind = "lowest" if tuned.lowest else "highest"
    sections = [
        f"# {escape(name)}, tuned",
        f"The best run has the {kind} {words(tuned.metric)}.",
        "## Runs",
        runs_table(tuned),
        "\n".join(f"- {escape(f'{e.name}: {e.problem}')}" for e in tuned.runs if e.problem),
        "## Settings",
        settings_table(tuned),
        "Mean over the seeds ± standard deviation (n - 1). A choice made on the development set "
        "flatters the best: evaluate it on a test set.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def runs_table(tuned: TuneResult) -> str:
    """A row a run: the values, the seed, the metrics, the time; the best is marked."""
    fields, metrics, best = _fields(tuned), _metrics(tuned), tuned.best
    rows = [
        (
            *(run.values.get(field) for field in fields),
            run.seed,
            *(_finite(run.metrics.get(metric)) for metric in metrics),
            duration(3600 * run.hours),
            "**best**" if run is best else "diverged" if run.problem else "",
        )
        for run in tuned.runs
    ]
    return markdown((*fields, "seed", *map(words, metrics), "time", ""), rows, aligned=True)


def settings_table(tuned: TuneResult) -> str:
    """A row a setting: how many runs have numbers, and each metric's mean and deviation."""
    fields, metrics = _fields(tuned), _metrics(tuned)
    groups: dict[tuple[Any, ...], list[TunedRun]] = {}
    for run in tuned.runs:
        groups.setdefault(tuple(run.values.get(field) for field in fields), []).append(run)
    rows = []
    for values, group in groups.items():
        columns = [[run.metrics.get(metric) for run in group] for metric in metrics]
        rows.append((*values, len(group), *map(_mean, columns)))
    return markdown((*fields, "runs", *map(words, metrics)), rows, aligned=True)


def closing(tuned: TuneResult, task: Task) -> Iterator[str]:
    """The tables, where the best run is, and how to evaluate and use it."""
    yield runs_table(tuned)
    if any(len({e.seed for e in tuned.runs if e.values == a.values}) > 1 for a in tuned.runs):
        yield ""
        yield settings_table(tuned)
    best = tuned.best
    yield ""
    yield f"all results: {tuned.folder / TUNE_REPORT}"
    if best is None:
        yield "no run came to a result: lower the learning rate, or see log.txt of a run"
        return
    folder = tuned.folder / best.name
    yield f"best: {folder} ({tuned.metric.replace('_', ' ')} {tuned.value(best):.4g})"
    yield f"evaluate it: {program()} evaluate {folder}"
    if command := own_command(task, folder, program()):
        yield f"for your own inputs: {command}"


def _fields(tuned: TuneResult) -> list[str]:
    return list(dict.fromkeys(field for run in tuned.runs for field in run.values))


def _metrics(tuned: TuneResult) -> list[str]:
    """All, what the best is chosen by first."""
    return list(dict.fromkeys([tuned.metric, *(m for e in tuned.runs for m in e.metrics)]))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> str | None:
    finite = [value for value in map(_finite, values) if value is not None]
    if not finite:
        return None
    spread = f" ± {statistics.stdev(finite):.2g}" if len(finite) > 1 else ""
    some = f" ({len(finite)} of {len(values)})" if len(finite) < len(values) else ""
    return f"{statistics.fmean(finite):.4g}{spread}{some}"

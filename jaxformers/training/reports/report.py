"""`report.md`: a run's results next to published ones, its curves, samples, time and cost."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax
from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxformers.costs import chip_for, chips_in
from jaxformers.tasks.evaluator import published_comparisons
from jaxformers.training.reports.markdown import Table, escape, markdown, section, words
from jaxformers.training.reports.progress import duration
from jaxformers.training.reports.run_files import read_metrics, replace_file

if TYPE_CHECKING:
    from jaxformers.tasks.base import Task
    from jaxformers.tasks.evaluator import Comparison
    from jaxformers.training.experiment import Experiment
    from jaxformers.training.run_result import RunResult

REPORT, CURVES = "report.md", "curves.png"
SAMPLES = 20
ACCURACIES = ("eval/dev_top1", "eval/dev_accuracy")
NEIGHBOURS = 40  # the smoothed loss is a mean over 1/20 of the points, 1/40 on each side


def report_run(folder: epath.Path, experiment: Experiment, result: RunResult) -> epath.Path:
    """Write the report of a run that has ended, from its metrics.jsonl and its evaluation."""
    evaluation, costs = result.evaluation, run_costs(read_metrics(folder))
    results = dict(evaluation.metrics) if evaluation else {}
    times = {**_time_and_cost(costs), "wall_time": result.wall_time}
    summary = {**results, "steps": result.step, **times}
    published = []
    if results:
        published = experiment.task.published(results | costs)
        published += published_comparisons(experiment.chosen_evaluators(), results)
    tables = [beside(comparison, experiment.name) for comparison in published]
    own_tables = evaluation.tables if evaluation else {}
    tables += [Table(title, rows[0], rows[1:]) for title, rows in own_tables.items()]
    samples = list(evaluation.samples) if evaluation else []
    notes = list(evaluation.notes) if evaluation else []
    return write_report(
        folder,
        experiment.name,
        summary,
        tables,
        samples,
        notes=notes,
        command=own_command(experiment.task, folder),
        figures=evaluation.figures if evaluation else {},
        lists=evaluation.lists if evaluation else {},
    )


def own_command(task: Task, folder: epath.Path, program: str = "jaxformers") -> str | None:
    """The shell's line that uses a run on one's own input; None: its task has no verb."""
    if not task.verb:
        return None
    if not task.line:
        return f"{program} {task.verb} {folder} PICTURE"
    lines = f"echo {task.line!r}"
    if "\t" in task.line:
        lines = f"printf {task.line + chr(10)!r}"  # which reads \t and \n
    return f"{lines} | {program} {task.verb} {folder}"


def write_report(
    folder: epath.Path,
    experiment_name: str,
    summary: Mapping[str, Any],
    tables: Sequence[Table] = (),
    samples: Sequence[tuple[str, str, str]] = (),
    *,
    notes: Sequence[str] = (),
    command: str | None = None,
    figures: Mapping[str, Figure] | None = None,
    lists: Mapping[str, Sequence[str]] | None = None,
) -> epath.Path:
    """Write `report.md` and `curves.png` into a run's folder, each in one move.

    Args:
        folder: the run's folder; its metrics.jsonl gives the curves.
        experiment_name: the heading.
        summary: results, time and cost, in order.
        tables: results beside published ones, and the like.
        samples: (input, reference, output); twenty of them, evenly spaced, are shown.
        notes: signatures and conditions that belong beside the numbers.
        command: how to use the result, if there is a way.
        figures: further figures by their captions, each saved beside the report.
        lists: further lists by their headings.

    Raises:
        CheckpointError: the folder cannot be written, or holds no metrics.
    """
    folder = epath.Path(folder)
    write_figure(folder / CURVES, loss_figure(read_metrics(folder)))
    for caption, figure in (figures or {}).items():
        write_figure(folder / figure_file(caption), figure)
    sections = [
        f"# {escape(experiment_name)}",
        markdown(("", ""), [(words(key), value) for key, value in summary.items()]),
        "\n".join(f"- {escape(note)}" for note in notes),
        f"![Loss and learning rate over the steps]({CURVES})",
        *(section(table) for table in tables),
        *(f"## {caption}\n\n![{caption}]({figure_file(caption)})" for caption in figures or {}),
        *(_listed(heading, lines) for heading, lines in (lists or {}).items()),
        _samples(samples),
        f"## Use it\n\n```\n{command}\n```" if command else "",
    ]
    replace_file(folder / REPORT, ("\n\n".join(text for text in sections if text) + "\n").encode())
    return folder / REPORT


def write_figure(path: epath.Path, figure: Figure) -> None:
    """Writes a figure as PNG in one move."""
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    replace_file(path, picture.getvalue())


def figure_file(caption: str) -> str:
    """The file of a figure by its caption: `confusion_matrix_test_set.png`."""
    return re.sub(r"\W+", "_", caption.lower()) + ".png"


def _listed(heading: str, lines: Sequence[str]) -> str:
    text = "\n".join(f"- {escape(line)}" for line in lines) if lines else "None."
    return f"## {heading}\n\n{text}"


def loss_figure(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the loss, the accuracy where there is one, and the learning rate over the steps.

    Args:
        metrics: records of metrics.jsonl (`read_metrics`). A long run's loss is drawn smoothed,
            with the single steps faint behind; a development perplexity as its logarithm.
    """
    right = [_series(metrics, key) for key in ("accuracy", *ACCURACIES)]
    rows = 3 if any(steps for steps, _ in right) else 2
    figure = Figure(figsize=(8, 3 + 1.5 * rows), layout="constrained", dpi=120)
    upper, *middle, lower = figure.subplots(
        rows, 1, sharex=True, height_ratios=(3, 2, 1) if rows == 3 else (3, 1)
    )
    steps, losses = _series(metrics, "loss")
    _training(upper, steps, losses, "training loss")
    at, perplexities = _series(metrics, "eval/dev_perplexity")
    logs = [math.log(perplexity) if perplexity > 0 else math.nan for perplexity in perplexities]
    eval_steps, held_out = _series(metrics, "eval/dev_loss")
    if at:
        label = "development: log of the perplexity"
        upper.plot(at, logs, "o", color="tab:orange", label=label)
    elif eval_steps:
        upper.plot(eval_steps, held_out, "o-", color="tab:orange", label="development")
    upper.set_ylabel("loss (nats a token)" if at else "loss")
    for axes in middle:
        _accuracies(axes, right)
    lower.plot(*_series(metrics, "learning_rate"), color="tab:green")
    lower.set_ylabel("learning rate")
    lower.set_ylim(bottom=0)
    lower.ticklabel_format(axis="y", scilimits=(-3, 3), useMathText=True)
    lower.set_xlabel("step")
    for axes in (upper, *middle, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (upper, *middle) if steps else ():
        axes.legend(frameon=False)
    return figure


def _training(axes: Axes, steps: list[int], values: list[float], label: str) -> None:
    """A metric of the steps, smoothed where there are many."""
    many = len(steps) > 30
    axes.plot(steps, values, color="tab:blue", alpha=0.3 if many else 1.0, label=label)
    if many:
        axes.plot(steps, _smooth(values), color="tab:blue", label=f"{label}, smoothed")


def _accuracies(axes: Axes, series: Sequence[tuple[list[int], list[float]]]) -> None:
    """Of the training batches, and of the development set, in percent."""
    (steps, shares), *evaluations = series
    _training(axes, steps, [100 * share for share in shares], "training accuracy")
    for at, values in evaluations:
        if at:
            axes.plot(at, values, "o-", color="tab:orange", label="development")
    axes.set_ylabel("accuracy (%)")


def timed(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    """The records of training, each with the seconds of its steps, compiling left out."""
    lines = [record for record in metrics if "steps/s" in record or "compile_seconds" in record]
    steps = [0, *(record["step"] for record in lines)]
    return [
        (record, (now - before) / record["steps/s"] if record.get("steps/s") else 0.0)
        for (before, now), record in zip(pairwise(steps), lines, strict=True)
    ]


def run_costs(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Time and cost of a run from its records, restarts included, pauses and lost work not.

    Returns `training_hours`, `compile_minutes`, the mean of each rate over the steps, `data_wait`,
    `mfu`, `training_flops`; what was not logged is left out.
    """
    lines = timed(metrics)
    compiling = sum(record.get("compile_seconds") or 0.0 for record, _ in lines)
    total = sum(seconds for _, seconds in lines)
    costs: dict[str, Any] = {"training_hours": (total + compiling) / 3600}
    costs["compile_minutes"] = compiling / 60
    rates = dict.fromkeys(key for record, _ in lines for key in record if "/s" in key)
    for key in (*rates, "data_wait", "mfu"):
        measured = [(record[key], s) for record, s in lines if s and record.get(key) is not None]
        if measured:
            costs[key] = sum(value * s for value, s in measured) / sum(s for _, s in measured)
    if "flops/s" in costs:
        costs["training_flops"] = costs["flops/s"] * total
    return costs


def _time_and_cost(costs: Mapping[str, Any]) -> dict[str, Any]:
    """The costs in words that people use, and what they were paid on."""
    rows = dict(costs)
    hours, compiling = rows.pop("training_hours"), rows.pop("compile_minutes")
    text = f"{duration(3600 * hours)} ({duration(60 * compiling)} of it compiling)"
    for key in ("data_wait", "mfu"):
        if key in rows:
            rows[key] = f"{100 * rows[key]:.1f} %"
    devices = jax.devices()
    chip, chips = chip_for(devices[0].device_kind), chips_in(devices)
    kind = chip.name if chip else f"{devices[0].device_kind} ({os.cpu_count()} cores)"
    cost = {"chip_hours": chips * hours} if chip else {}
    return {"training_time": text, **cost, "machine": f"{chips:g} x {kind}", **rows}


def beside(comparison: Comparison, name: str) -> Table:
    """Published results with this run's row below them."""
    rows = [(system, *values) for system, values in comparison.rows]
    rows.append((f"**this run** ({escape(name)})", *comparison.ours))
    return Table(comparison.title, ("model", *comparison.columns), rows, comparison.note)


def _samples(samples: Sequence[tuple[str, str, str]]) -> str:
    """Twenty samples, evenly spaced over all: not the best, not the first."""
    if not samples:
        return ""
    chosen = spaced(samples)
    lines = [
        f"{number}. input: {escape(source)}  \n"
        f"   reference: {escape(reference)}  \n"
        f"   **output: {escape(output) or '(empty)'}**"
        for number, (source, reference, output) in enumerate(chosen, 1)
    ]
    return f"## Samples\n\n{len(chosen)} of {len(samples):,}, evenly spaced.\n\n" + "\n".join(lines)


def spaced(samples: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """At most twenty samples, evenly spaced over all."""
    count = min(SAMPLES, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def _series(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric; a null (not finite when logged) is NaN, a gap in the line."""
    points = [(record["step"], record[key]) for record in metrics if key in record]
    return [step for step, _ in points], [math.nan if v is None else v for _, v in points]


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean of each value and its neighbours on both sides, as many on one as on the other."""
    result, last = [], len(values) - 1
    for i in range(len(values)):
        half = min(len(values) // NEIGHBOURS, i, last - i)
        near = [value for value in values[i - half : i + half + 1] if not math.isnan(value)]
        result.append(sum(near) / len(near) if near else math.nan)
    return result

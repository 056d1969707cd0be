"""What a person sees when a run has ended: results, samples, and how to use what was trained."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

from etils import epath

from jaxformers.tasks.base import Task
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.training.reports.report import CURVES, REPORT, figure_file, own_command, spaced


def summary_lines(folder: epath.Path, evaluation: Evaluation, task: Task) -> Iterator[str]:
    """The lines, twenty samples evenly spaced over all among them."""
    for name, value in evaluation.metrics.items():
        yield f"{name}: {value:.4g}"
    yield from evaluation.notes
    for number, (source, reference, output) in enumerate(spaced(evaluation.samples), 1):
        yield f"{number:2}. {source}"
        yield f"    reference: {reference}"
        yield f"    output:    {output}"
    yield f"report: {folder / REPORT}; picture of loss and learning rate: {folder / CURVES}"
    for caption in evaluation.figures:
        yield f"{caption[:1].lower()}{caption[1:]}: {folder / figure_file(caption)}"
    if command := own_command(task, folder, program()):
        yield f"for your own inputs: {command}"


def program() -> str:
    """How this command is called: by its name where the shell finds it, else by its path."""
    own = sys.argv[0]
    if shutil.which("jaxformers") or os.path.basename(own) != "jaxformers":
        return "jaxformers"
    return os.path.relpath(own)

"""Published results on pictures beside a run's, and VTAB's 19 runs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxformers.data.images import TfdsImages, Vtab
from jaxformers.data.images.sources.vtab import TASKS
from jaxformers.evaluation.published_images import SETS, TRANSFER
from jaxformers.evaluation.vtab_results import vtab_figure, vtab_rows
from jaxformers.tasks.base import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxformers.tasks.images.image_classification import ImageClassification


def beside_images(task: ImageClassification, found: Mapping[str, Any]) -> list[Comparison]:
    """The fine-tuned models of ViT's tables 2 and 5 on the same test set, where they have it."""
    test = task.test or task.data.other("test")
    name = test.name.partition(":")[0] if isinstance(test, TfdsImages) else ""
    if name not in SETS or "test_top1" not in found:
        return []
    column = SETS[name]
    real = column == "ImageNet"
    keys = (column, "ReaL") if real else (column,)
    rows = [
        (row.model, (*(row.scores.get(key) for key in keys), row.core_days))
        for row in TRANSFER
        if column in row.scores
    ]
    ours = (found["test_top1"], *((found.get("test_real"),) if real else ()), None)
    columns = (f"{column} (%)", *(("ReaL (%)",) if real else ()), "TPUv3-core-days before")
    note = "Published results are of fine-tuned models, most at 384 pixels or more."
    return [Comparison(f"Beside published results, {column}", columns, rows, ours, note)]


def vtab_together(
    results: Sequence[tuple[Any, Mapping[str, float]]],
) -> tuple[Comparison, Figure] | None:
    """The table and the bars of runs on all of VTAB's tasks; None where they are not that.

    Args:
        results: each run's task and metrics.
    """
    scores = {
        task.data.task: found["test_top1"]
        for task, found in results
        if isinstance(getattr(task, "data", None), Vtab) and "test_top1" in found
    }
    if set(scores) != set(TASKS):
        return None
    columns, published, ours = vtab_rows(scores)
    note = "Top-1 accuracy (%) after training on 1,000 pictures of each task (ViT, table 9)."
    return Comparison("VTAB-1k", columns, published, ours, note), vtab_figure(scores)

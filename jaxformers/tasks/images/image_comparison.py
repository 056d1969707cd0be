"""Published results on pictures beside a run's, and VTAB's 19 runs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxformers.data.images import TfdsImages, Vtab
from jaxformers.data.images.sources.vtab import TASKS
from jaxformers.evaluation.published.images import SETS, TRANSFER
from jaxformers.evaluation.vtab_results import vtab_figure, vtab_rows
from jaxformers.tasks.evaluator import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compare_with_published_images(test: Any, metrics: Mapping[str, Any]) -> list[Comparison]:
    """Compares a run with the fine-tuned models of ViT's tables 2 and 5 on the same test set.

    Args:
        test: source of the run's test images; no table where the paper does not have them.
        metrics: the run's metrics.
    """
    name = test.name.partition(":")[0] if isinstance(test, TfdsImages) else ""
    if name not in SETS or "test_top1" not in metrics:
        return []
    column = SETS[name]
    real = column == "ImageNet"
    keys = (column, "ReaL") if real else (column,)
    rows = [
        (row.model, (*(row.scores.get(key) for key in keys), row.core_days))
        for row in TRANSFER
        if column in row.scores
    ]
    ours = (metrics["test_top1"], *((metrics.get("test_real"),) if real else ()), None)
    columns = (f"{column} (%)", *(("ReaL (%)",) if real else ()), "TPUv3-core-days before")
    note = "Published results are of fine-tuned models, most at 384 pixels or more."
    return [Comparison(f"Beside published results, {column}", columns, rows, ours, note)]


def compare_vtab_runs(
    results: Sequence[tuple[Any, Mapping[str, float]]],
) -> tuple[Comparison, Figure] | None:
    """Table and bar chart of runs on all of VTAB's tasks; None where one of them is missing.

    Args:
        results: training data and metrics of each run.
    """
    scores = {
        data.task: metrics["test_top1"]
        for data, metrics in results
        if isinstance(data, Vtab) and "test_top1" in metrics
    }
    if set(scores) != set(TASKS):
        return None
    columns, published, ours = vtab_rows(scores)
    note = "Top-1 accuracy (%) after training on 1,000 pictures of each task (ViT, table 9)."
    return Comparison("VTAB-1k", columns, published, ours, note), vtab_figure(scores)

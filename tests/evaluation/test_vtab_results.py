"""VTAB's 19 scores together."""

from __future__ import annotations

import numpy as np
import pytest

from jaxformers.data.images import Vtab
from jaxformers.data.images.sources.vtab import GROUPS, TASKS
from jaxformers.errors import ConfigError
from jaxformers.evaluation.published.images import published_vtab
from jaxformers.evaluation.vtab_results import vtab_figure, vtab_rows

SCORES = {task: 50.0 + i for i, task in enumerate(TASKS)}


def test_the_published_rows_have_the_means_of_the_paper():
    columns, published, _ = vtab_rows(SCORES)
    means = {model: row[0] for model, row in published}
    assert means["ViT-H/14, JFT"] == pytest.approx(77.6, abs=0.1)
    assert means["ViT-L/16, ImageNet-21k"] == pytest.approx(72.7, abs=0.1)
    assert columns[:4] == ("mean", "natural (7)", "specialized (4)", "structured (8)")
    h14 = published_vtab(tuple(TASKS))["ViT-H/14, JFT"]
    assert (h14["caltech101"], h14["retinopathy"], h14["smallnorb_elevation"]) == (95.3, 76.6, 51.2)


def test_our_row_is_the_mean_of_tasks_and_of_each_group():
    _, _, ours = vtab_rows(SCORES)
    assert ours[0] == pytest.approx(np.mean(list(SCORES.values())))
    assert ours[3] == pytest.approx(np.mean([SCORES[t] for t in GROUPS["structured"]]))
    assert ours[4:] == tuple(SCORES.values())


def test_a_missing_task_is_named():
    with pytest.raises(ConfigError, match="dmlab missing"):
        vtab_rows({task: 1.0 for task in TASKS if task != "dmlab"})


def test_there_is_a_bar_for_each_mean_and_task():
    (axes,) = vtab_figure(SCORES).axes
    assert len(axes.patches) == 4 + 19
    assert axes.patches[0].get_height() == pytest.approx(np.mean(list(SCORES.values())))


def test_runs_of_all_tasks_come_together_and_fewer_do_not():
    from jaxformers.tasks.images.image_comparison import compare_vtab_runs

    runs = [(Vtab(t), {"test_top1": v}) for t, v in SCORES.items()]
    comparison, _ = compare_vtab_runs(runs)
    assert comparison.ours[4:] == tuple(SCORES.values())
    assert compare_vtab_runs(runs[1:]) is None

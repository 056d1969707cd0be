"""GLUE results that runs are held against: "BERT", table 1, and what can be reached on dev."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Columns of the paper's table; the server reports one metric of each task.
TEST_COLUMNS = (
    ("mnli", "matched_accuracy"),
    ("mnli", "mismatched_accuracy"),
    ("qqp", "f1"),
    ("qnli", "accuracy"),
    ("sst2", "accuracy"),
    ("cola", "matthews"),
    ("stsb", "spearman"),
    ("mrpc", "f1"),
    ("rte", "accuracy"),
)
_TEST_ROWS = (
    ("Pre-OpenAI SOTA", 80.6, 80.1, 66.1, 82.3, 93.2, 35.0, 81.0, 86.0, 61.7, 74.0),
    ("BiLSTM + ELMo + Attn", 76.4, 76.1, 64.8, 79.8, 90.4, 36.0, 73.3, 84.9, 56.8, 71.0),
    ("OpenAI GPT", 82.1, 81.4, 70.3, 87.4, 91.3, 45.4, 80.0, 82.3, 56.0, 75.1),
    ("BERT base", 84.6, 83.4, 71.2, 90.5, 93.5, 52.1, 85.8, 88.9, 66.4, 79.6),
    ("BERT large", 86.7, 85.9, 72.1, 92.7, 94.9, 60.5, 86.5, 89.3, 70.1, 82.1),
)
# bert-base-cased by transformers' example: learning rate 2e-5, 3 epochs (MRPC 5), 32 rows.
_DEV_ROWS = (
    ("cola", "matthews", 56.53),
    ("sst2", "accuracy", 92.32),
    ("mrpc", "f1", 88.85),
    ("mrpc", "accuracy", 84.07),
    ("stsb", "pearson", 88.64),
    ("stsb", "spearman", 88.48),
    ("qqp", "accuracy", 90.71),
    ("qqp", "f1", 87.49),
    ("mnli", "matched_accuracy", 83.91),
    ("mnli", "mismatched_accuracy", 84.10),
    ("qnli", "accuracy", 90.66),
    ("rte", "accuracy", 65.70),
    ("wnli", "accuracy", 56.34),
)
REFERENCE = "BERT base, cased (transformers' example)"
PAPER_DEV = (("mnli", "matched_accuracy", 84.4), ("qnli", "accuracy", 88.4))
PAPER_DEV += (("mrpc", "accuracy", 86.7), ("sst2", "accuracy", 92.7))


@dataclass(frozen=True)
class PublishedGlue:
    """One published number.

    Attributes:
        system: whose it is.
        split: "test" (by GLUE's server) or "dev".
        task: name of the task; "glue" for the mean over all but WNLI.
        metric: as in our own results, such as `matched_accuracy`; "score" for the mean.
        value: percent.
    """

    system: str
    split: str
    task: str
    metric: str
    value: float


def _rows() -> Iterator[PublishedGlue]:
    for system, *values, mean in _TEST_ROWS:
        for (task, metric), value in zip(TEST_COLUMNS, values, strict=True):
            yield PublishedGlue(system, "test", task, metric, value)
        yield PublishedGlue(system, "test", "glue", "score", mean)
    for task, metric, value in PAPER_DEV:
        yield PublishedGlue("BERT base, ablation's", "dev", task, metric, value)
    for task, metric, value in _DEV_ROWS:
        yield PublishedGlue(REFERENCE, "dev", task, metric, value)


PUBLISHED_GLUE: tuple[PublishedGlue, ...] = tuple(_rows())
"""All rows. QQP's F1 is 71-72 on test but 87 on dev: the sets differ in how they were drawn."""


def published_glue(task: str) -> list[PublishedGlue]:
    """The published numbers of one task, the mean of "glue" left out."""
    return [row for row in PUBLISHED_GLUE if row.task == task]


def published_table(task: str, split: str) -> tuple[tuple[str, ...], list[tuple]]:
    """What is published of a task's split, as a table.

    Returns:
        The metrics, and for each system (its name, a value or None for each metric). A run's own
        value of a metric is what it calls `<split>_<metric>`, such as `dev_matched_accuracy`.
    """
    rows = [row for row in published_glue(task) if row.split == split]
    metrics = tuple(dict.fromkeys(row.metric for row in rows))
    values = {(row.system, row.metric): row.value for row in rows}
    systems = dict.fromkeys(row.system for row in rows)
    return metrics, [
        (name, *(values.get((name, metric)) for metric in metrics)) for name in systems
    ]

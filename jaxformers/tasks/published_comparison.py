"""Published results beside a run's, as plain tables for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxformers.data.text.glue import Glue
from jaxformers.data.text.squad import BundledQuestions, SquadJson, TfdsSquad
from jaxformers.evaluation import PUBLISHED, published_squad, published_table
from jaxformers.tasks.base import Comparison

if TYPE_CHECKING:
    from jaxformers.tasks.text.sequence_classification import SequenceClassification
    from jaxformers.tasks.text.span_extraction import QuestionsConfig, SpanExtraction
    from jaxformers.tasks.translation.translation import Translation

ELSEWHERE = "This run was judged on other {}: its row is not comparable with theirs."
NAMES = {"en_de": "English-German", "en_fr": "English-French"}
METRICS = {"f1": "F1", "matthews": "Matthews' correlation", "exact": "exact match"}


def beside_translations(task: Translation, found: Mapping[str, Any]) -> list[Comparison]:
    """The paper's table 2, where the task translates a pair of the paper's and was judged."""
    pair = "_".join(task.languages)
    if pair not in NAMES or "bleu_compound" not in found:
        return []
    rows = [
        (row.model, (getattr(row, pair), None, getattr(row, f"flops_{pair}")))
        for row in PUBLISHED
        if getattr(row, pair) is not None
    ]
    ours = (found["bleu_compound"], found.get("bleu"), found.get("training_flops"))
    note = (
        "Published BLEU is of tokens with compounds split, on newstest2014; sacreBLEU is what to "
        "compare later work with."
    )
    if "wmt14" not in str(task.test):
        note = f"The published numbers are of newstest2014. {ELSEWHERE.format('sentences')}"
    columns = ("BLEU (tokens)", "sacreBLEU", "training FLOPs")
    return [Comparison(f"Beside published results, {NAMES[pair]}", columns, rows, ours, note)]


def beside_glue(task: SequenceClassification, found: Mapping[str, Any]) -> list[Comparison]:
    """What is published of the GLUE task that is learned: development sets, then test sets."""
    name = getattr(task.data, "task", "")
    if not isinstance(task.data, Glue) or not found:
        return []
    tables = []
    for split, words, source in (
        ("dev", "development set", task.dev or task.data.other("dev")),
        ("test", "test set", task.test or task.data.other("test")),
    ):
        metrics, systems = published_table(name, split)
        ours = tuple(found.get(f"{split}_{metric}") for metric in metrics)
        if not metrics:
            continue
        rows = [(system, tuple(values)) for system, *values in systems]
        note = _glue_note(split, ours, _is_of_glue(source, name, split))
        columns = tuple(f"{_words(metric)} (%)" for metric in metrics)
        title = f"Beside published results, {name} of GLUE, {words}"
        tables.append(Comparison(title, columns, rows, ours, note))
    return tables


def _is_of_glue(source: Any, name: str, split: str) -> bool:
    return isinstance(source, Glue) and source.task == name and source.split.startswith(split)


def _glue_note(split: str, ours: tuple[float | None, ...], same: bool) -> str:
    if not any(value is not None for value in ours):
        judge = "GLUE's server has the labels: hand in the predictions." * (split == "test")
        return f"This run was not judged on it. {judge}".strip()
    if not same:
        return ELSEWHERE.format("examples")
    if split == "dev":
        return "A run that was chosen on this set is a little worse elsewhere."
    return "The published numbers are of GLUE's server."


def beside_squad(task: SpanExtraction, found: Mapping[str, Any]) -> list[Comparison]:
    """What is published of SQuAD in the version that is learned: development set, then test."""
    if isinstance(task.data, BundledQuestions) or not found:
        return []
    version, tables = _version(task.dev or task.data), []
    for split, words, prefix in (("dev", "development set", ""), ("test", "test set", "test_")):
        rows = [(row.system, (row.exact, row.f1)) for row in published_squad(version, split)]
        ours = (found.get(f"{prefix}exact"), found.get(f"{prefix}f1"))
        note = "SQuAD's makers keep the test set to themselves." * (split == "test")
        if ours != (None, None) and not (split == "dev" and _is_dev_set(task.dev)):
            note = f"The published numbers are of SQuAD {version}. {ELSEWHERE.format('questions')}"
        title = f"Beside published results, SQuAD {version}, {words}"
        columns = tuple(f"{_words(metric)} (%)" for metric in ("exact", "f1"))
        tables.append(Comparison(title, columns, rows, ours, note))
    return tables


def _version(source: QuestionsConfig) -> str:
    return "2.0" if says_v2(source) else "1.1"


def says_v2(source: QuestionsConfig) -> bool:
    """Whether a set is SQuAD 2.0 by its name, without opening it."""
    if isinstance(source, BundledQuestions):
        return source.impossible
    name = source.path if isinstance(source, SquadJson) else source.name
    return "v2" in name


def _is_dev_set(source: QuestionsConfig | None) -> bool:
    """Whether it is SQuAD's whole development set, by its name."""
    if isinstance(source, TfdsSquad):
        return source.name.startswith("squad/v") and source.split == "validation"
    file = source.path.rpartition("/")[2] if isinstance(source, SquadJson) else ""
    return file.removesuffix(".gz") in ("dev-v1.1.json", "dev-v2.0.json")


def _words(metric: str) -> str:
    *path, name = metric.rsplit("_", 1)
    return " ".join([*path, METRICS.get(name, name)])

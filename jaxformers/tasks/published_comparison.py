"""Published results beside a run's, as plain tables for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxformers.data.text.glue import Glue
from jaxformers.data.text.squad import BundledQuestions, SquadJson, TfdsSquad
from jaxformers.data.text.tags.sources import TfdsTags
from jaxformers.evaluation import PUBLISHED, PUBLISHED_CONLL, published_squad, published_table
from jaxformers.tasks.evaluator import Comparison
from jaxformers.tasks.text.span_evaluation import QuestionsConfig

ELSEWHERE = "This run was evaluated on other {}: its row is not comparable with theirs."
NAMES = {"en_de": "English-German", "en_fr": "English-French"}
METRICS = {"f1": "F1", "matthews": "Matthews' correlation", "exact": "exact match"}


def compare_with_published_translations(
    languages: tuple[str, str], test: Any, metrics: Mapping[str, Any]
) -> list[Comparison]:
    """Compares a run's BLEU with table 2 of "Attention Is All You Need".

    Args:
        languages: source and target, as ISO codes; no table for other pairs than the paper's.
        test: source of the test pairs, or None.
        metrics: the run's metrics and costs.
    """
    pair = "_".join(languages)
    if pair not in NAMES or "bleu_compound" not in metrics:
        return []
    rows = [
        (row.model, (getattr(row, pair), None, getattr(row, f"flops_{pair}")))
        for row in PUBLISHED
        if getattr(row, pair) is not None
    ]
    ours = (metrics["bleu_compound"], metrics.get("bleu"), metrics.get("training_flops"))
    note = (
        "Published BLEU is of tokens with compounds split, on newstest2014; sacreBLEU is what to "
        "compare later work with."
    )
    if "wmt14" not in str(test):
        note = f"The published numbers are of newstest2014. {ELSEWHERE.format('sentences')}"
    columns = ("BLEU (tokens)", "sacreBLEU", "training FLOPs")
    return [Comparison(f"Beside published results, {NAMES[pair]}", columns, rows, ours, note)]


def compare_with_published_glue(
    train: Any, dev: Any, test: Any, metrics: Mapping[str, Any]
) -> list[Comparison]:
    """Compares a run with the published results of its GLUE task, on each split.

    Args:
        train: source of the training examples; no table where they are not GLUE's.
        dev: source of the development examples, or None.
        test: source of the test examples, or None.
        metrics: the run's metrics, such as `dev_accuracy`.
    """
    if not isinstance(train, Glue) or not metrics:
        return []
    tables = []
    for split, words, source in (
        ("dev", "development set", dev),
        ("test", "test set", test),
    ):
        names, systems = published_table(train.task, split)
        ours = tuple(metrics.get(f"{split}_{name}") for name in names)
        if not names:
            continue
        rows = [(system, tuple(values)) for system, *values in systems]
        note = _glue_note(split, ours, comparable=_is_glue_split(source, train.task, split))
        columns = tuple(f"{_metric_title(name)} (%)" for name in names)
        title = f"Beside published results, {train.task} of GLUE, {words}"
        tables.append(Comparison(title, columns, rows, ours, note))
    return tables


def _is_glue_split(source: Any, task: str, split: str) -> bool:
    return isinstance(source, Glue) and source.task == task and source.split.startswith(split)


def _glue_note(split: str, ours: tuple[float | None, ...], *, comparable: bool) -> str:
    if not any(value is not None for value in ours):
        hint = " GLUE's server has the labels: hand in the predictions." * (split == "test")
        return f"This run was not evaluated on it.{hint}"
    if not comparable:
        return ELSEWHERE.format("examples")
    if split == "dev":
        return "A run that was chosen on this set is a little worse elsewhere."
    return "The published numbers are of GLUE's server."


def compare_with_published_squad(
    train: QuestionsConfig, dev: QuestionsConfig | None, metrics: Mapping[str, Any]
) -> list[Comparison]:
    """Compares a run with the published results on its version of SQuAD, on each split.

    Args:
        train: source of the training questions; no table for the bundled ones.
        dev: source of the development questions.
        metrics: the run's metrics, `exact`, `f1`, `test_exact` and `test_f1`.
    """
    if isinstance(train, BundledQuestions) or not metrics:
        return []
    version, tables = "2.0" if is_squad_v2(dev or train) else "1.1", []
    for split, words, prefix in (("dev", "development set", ""), ("test", "test set", "test_")):
        rows = [(row.system, (row.exact, row.f1)) for row in published_squad(version, split)]
        ours = (metrics.get(f"{prefix}exact"), metrics.get(f"{prefix}f1"))
        note = "SQuAD's makers keep the test set to themselves." * (split == "test")
        if ours != (None, None) and not (split == "dev" and _is_squad_dev_set(dev)):
            note = f"The published numbers are of SQuAD {version}. {ELSEWHERE.format('questions')}"
        title = f"Beside published results, SQuAD {version}, {words}"
        columns = tuple(f"{_metric_title(name)} (%)" for name in ("exact", "f1"))
        tables.append(Comparison(title, columns, rows, ours, note))
    return tables


def compare_with_published_conll(
    train: Any, dev: Any, test: Any, metrics: Mapping[str, Any]
) -> list[Comparison]:
    """Compares a run's F1 with the published results of CoNLL-2003.

    Args:
        train: source of the training sentences; no table where they are not CoNLL-2003's of TFDS.
        dev: source of the development sentences, or None.
        test: source of the test sentences, or None.
        metrics: the run's metrics, `dev_f1` and `test_f1`.
    """
    if not _is_conll(train) or not metrics:
        return []
    rows = [(system, (dev_f1, test_f1)) for system, dev_f1, test_f1 in PUBLISHED_CONLL]
    ours = (metrics.get("dev_f1"), metrics.get("test_f1"))
    note = "The published BERTs read each sentence with the text around it; this run does not."
    sources = [(source, split) for source, split in ((dev, "dev"), (test, "test")) if source]
    if not all(_is_conll(source) and source.split == split for source, split in sources):
        note = ELSEWHERE.format("sentences")
    columns = ("development F1 (%)", "test F1 (%)")
    return [Comparison("Beside published results, CoNLL-2003", columns, rows, ours, note)]


def _is_conll(source: Any) -> bool:
    """Whether a source is named entities of TFDS's CoNLL-2003."""
    named = isinstance(source, TfdsTags) and source.name.partition(":")[0] == "conll2003"
    return named and source.feature == "ner"


def is_squad_v2(source: QuestionsConfig) -> bool:
    """Whether a set is SQuAD 2.0 by its name, without opening it."""
    if isinstance(source, BundledQuestions):
        return source.impossible
    name = source.path if isinstance(source, SquadJson) else source.name
    return "v2" in name


def _is_squad_dev_set(source: QuestionsConfig | None) -> bool:
    """Whether it is SQuAD's whole development set, by its name."""
    if isinstance(source, TfdsSquad):
        return source.name.startswith("squad/v") and source.split == "validation"
    file = source.path.rpartition("/")[2] if isinstance(source, SquadJson) else ""
    return file.removesuffix(".gz") in ("dev-v1.1.json", "dev-v2.0.json")


def _metric_title(metric: str) -> str:
    *path, name = metric.rsplit("_", 1)
    return " ".join([*path, METRICS.get(name, name)])

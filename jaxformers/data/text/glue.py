"""GLUE's tasks (Wang et al. 2018), from their official TSV files or from prepared TFDS sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from etils import epath

from jaxformers.data.files.tfds_rows import TfdsRows
from jaxformers.data.text.labelled_texts import (
    Example,
    LabelledSource,
    LabelledTexts,
    Labels,
    filled_lines,
    gathered,
    in_order_of,
)
from jaxformers.errors import ConfigError, DataError, did_you_mean, folder_contents

Split = Literal[
    "train", "dev", "test", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"
]
BLOCK = 4096


@dataclass(frozen=True)
class Format:
    """How a task's files look."""

    folder: str
    """Of the official files."""
    texts: tuple[str, ...]
    """Columns of the one or two texts."""
    label: str
    """Column of the label."""
    names: tuple[str, ...]
    """The classes in order; empty: numbers."""
    features: tuple[str, ...] = ()
    """The texts' names in TFDS, where they differ from the columns."""


ENTAILMENT = ("entailment", "not_entailment")
THREE_WAY = ("entailment", "neutral", "contradiction")
FORMATS = {
    "cola": Format("CoLA", ("sentence",), "acceptable", ("unacceptable", "acceptable")),
    "sst2": Format("SST-2", ("sentence",), "label", ("negative", "positive")),
    "mrpc": Format(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        ("not_equivalent", "equivalent"),
        ("sentence1", "sentence2"),
    ),
    "stsb": Format("STS-B", ("sentence1", "sentence2"), "score", ()),
    "qqp": Format(
        "QQP", ("question1", "question2"), "is_duplicate", ("not_duplicate", "duplicate")
    ),
    "mnli": Format(
        "MNLI", ("sentence1", "sentence2"), "gold_label", THREE_WAY, ("premise", "hypothesis")
    ),
    "qnli": Format("QNLI", ("question", "sentence"), "label", ENTAILMENT),
    "rte": Format("RTE", ("sentence1", "sentence2"), "label", ENTAILMENT),
    "wnli": Format("WNLI", ("sentence1", "sentence2"), "label", ("not_entailment", "entailment")),
    "ax": Format(
        "diagnostic", ("sentence1", "sentence2"), "label", THREE_WAY, ("premise", "hypothesis")
    ),
}
COLA_COLUMNS = ["source", "acceptable", "original", "sentence"]


@dataclass(frozen=True)
class Glue(LabelledSource):
    """One set of a GLUE task: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, or ax.

    Classes are numbered as in TFDS and Hugging Face's sets: MNLI has entailment 0, neutral 1,
    contradiction 2 (Google's BERT code: contradiction, entailment, neutral). A model whose
    `label_names` are the same in another order keeps its own. `ax`, the diagnostic set, has a test
    set alone, for models of MNLI. Lines of QQP that are broken in two are left out and counted.
    """

    task: str = "mrpc"
    split: Split = "train"
    """`dev` and `test` of MNLI are two sets, matched and mismatched, each evaluated on its own; as
    one set, they are the matched."""
    folder: str | None = None
    """Of the official files, the task's or the one above; None: the prepared TFDS set."""
    data_dir: str | None = None
    """Where TFDS keeps its sets; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets."""

    def __post_init__(self):
        super().__post_init__()
        if self.task not in FORMATS:
            hint = did_you_mean(self.task, list(FORMATS)) or f"; it has {', '.join(FORMATS)}"
            raise ConfigError(f"GLUE has no task {self.task!r}{hint}")
        if self.task != "mnli" and "matched" in self.split:
            raise ConfigError(f"{self.task} has no split {self.split}: it has train, dev and test")

    @property
    def own(self) -> Labels:
        """The classes of the GLUE task."""
        names = FORMATS[self.task].names
        return Labels(len(names) or 1, names)

    def parts(self) -> tuple[tuple[str, Glue], ...]:
        """For MNLI's dev and test the matched and the mismatched set."""
        if self.task != "mnli" or self.split not in ("dev", "test"):
            return (("", self),)
        kinds = ("matched", "mismatched")
        return tuple((kind, replace(self, split=f"{self.split}_{kind}")) for kind in kinds)

    def other(self, split: Literal["dev", "test"]) -> Glue | None:
        """The task's development or test set."""
        return None if self.task == "ax" and split == "dev" else replace(self, split=split)

    def open(self, labels: Labels) -> LabelledTexts:
        """The examples of the set."""
        split = self.split
        if self.task == "mnli" and split in ("dev", "test"):
            split = f"{split}_matched"
        texts = _from_tfds(self, split) if self.folder is None else _from_files(self, split)
        return in_order_of(labels, self.own, texts)

    def written(self, predictions: np.ndarray, labels: Labels) -> list[str]:
        """Predictions as GLUE's server takes them.

        MNLI, QNLI, RTE and AX name their classes, STS-B's scores are cut to 0-5, others are
        numbers.
        """
        if self.task == "stsb":
            return [f"{value:.3f}" for value in np.clip(predictions, 0.0, 5.0)]
        classes = labels.places_in(self.own)[predictions]
        named = self.own.names[0] == "entailment"
        return [self.own.name(value) if named else str(value) for value in classes]


def _from_tfds(config: Glue, split: str) -> LabelledTexts:
    form, name = FORMATS[config.task], f"glue/{config.task}"
    split = split.replace("dev", "validation")
    features = form.features or form.texts
    rows = TfdsRows(name, split, (*features, "label", "idx"), config.data_dir)
    examples = (
        _tfds_example(row, features)
        for start in range(0, len(rows), BLOCK)
        for row in rows.read(range(start, min(start + BLOCK, len(rows))))
    )
    # By their number, for array_record holds them shuffled.
    ordered = sorted(examples, key=lambda example: example.number)
    return gathered(ordered, config.own, f"{name} {rows.version}, {split}", unit="example")


def _tfds_example(row: dict[str, Any], features: Sequence[str]) -> Example:
    texts = [row[feature] for feature in features]
    hidden = row["label"] == -1  # as test sets have it
    return Example(
        int(row["idx"]),
        texts[0],
        texts[1] if len(texts) > 1 else None,
        None if hidden else row["label"],
        str(row["idx"]),
    )


def _from_files(config: Glue, split: str) -> LabelledTexts:
    path = _file(config, split)
    rows = ((number, line.split("\t")) for number, line in filled_lines(str(path)))
    headless = config.task == "cola" and split != "test"
    header = COLA_COLUMNS if headless else next(rows)[1]
    columns = _places(config, header, split, path)
    needed = max(column for column in columns if column is not None) + 1
    examples, skipped = [], 0
    for number, row in rows:
        if len(row) >= needed:
            name, text, pair, label = (None if p is None else row[p] for p in columns)
            examples.append(Example(number, text, pair, label, name or ""))
        elif config.task == "qqp":
            skipped += 1
        else:
            raise DataError(
                f"{path}, line {number:,}: {len(row)} tab-separated column(s), but column {needed} "
                "is needed"
            )
    return gathered(examples, config.own, str(path), skipped=skipped)


def _file(config: Glue, split: str) -> epath.Path:
    """The official file, in the folder named or in the task's folder below it."""
    name = "diagnostic" if config.task == "ax" else split
    folder, below = epath.Path(config.folder).expanduser(), FORMATS[config.task].folder
    for path in (folder / below / f"{name}.tsv", folder / f"{name}.tsv"):
        if path.exists():
            return path
    raise DataError(
        f"{folder} holds neither {below}/{name}.tsv nor {name}.tsv; {folder_contents(folder)}"
    )


def _places(config: Glue, header: list[str], split: str, path: epath.Path) -> list[int | None]:
    """Numbers of the columns of name, text, second text and label; None: there is none."""
    form, hidden = FORMATS[config.task], split.startswith("test")
    label = None if hidden else form.label
    missing = [name for name in (*form.texts, label) if name and name not in header]
    if missing:
        raise DataError(
            f"{path}: its header has no column {', '.join(missing)}; it has {', '.join(header)}"
        )
    # Only test files are sent in, and the numbers of other files are not always unique.
    named = next((name for name in ("index", "id") if name in header), None) if hidden else None
    second = form.texts[1] if len(form.texts) > 1 else None
    names = (named, form.texts[0], second, label)
    return [None if name is None else header.index(name) for name in names]

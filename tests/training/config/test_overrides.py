"""Options made from dataclasses: every field reachable, every mistake one line."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from jaxformers.errors import ConfigError, UserError
from jaxformers.training.config.overrides import override


@dataclass(frozen=True)
class Model:
    """The network."""

    width: int = 512
    """Model width."""
    layers: tuple[int, int] = (6, 6)
    """Encoder and decoder blocks."""
    dropout: float = 0.1
    norm: Literal["pre", "post"] = "post"
    window: int | None = None
    bias: bool = False


@dataclass(frozen=True)
class Packing:
    rows: int = 8
    length: int = 64


@dataclass(frozen=True)
class Bucketing:
    rows: int = 4
    lengths: tuple[int, ...] = (16, 32)


@dataclass(frozen=True)
class Schedule:
    """Any schedule."""


@dataclass(frozen=True)
class InverseSquareRoot(Schedule):
    warmup: int = 4000


@dataclass(frozen=True)
class Cosine(Schedule):
    warmup: int = 10
    end: float = 0.0

    def __post_init__(self):
        if self.end < 0:
            raise ValueError("end is at least 0")


@dataclass(frozen=True)
class Task:
    """Any task."""


@dataclass(frozen=True)
class Translation(Task):
    model: Model = Model()
    batching: Packing | Bucketing = Packing()


@dataclass(frozen=True)
class Averaging:
    last: int = 5


@dataclass(frozen=True)
class Run:
    """A run."""

    name: str
    """What it is called."""
    task: Task
    schedule: Schedule = InverseSquareRoot()
    averaging: Averaging | None = None
    steps: int = 100
    clip: float | None = 1.0
    epochs: int | None = field(default=None, metadata={"yields_to": "steps"})

    def __post_init__(self):
        if self.steps < 0:
            raise ConfigError("steps is at least 0")


RUN = Run("demo", Translation())


def changed(line: str) -> Run:
    return override(RUN, line.split(), "jaxformers train FILE", also=["--folder"])


def complaint(line: str) -> str:
    with pytest.raises(UserError) as caught:
        changed(line)
    message = str(caught.value)
    assert "\n" not in message and not set("│╭╰─") & set(message)
    return message


def test_no_arguments_change_nothing():
    assert changed("") == RUN


def test_steps_that_are_given_are_not_overruled_by_the_files_epochs():
    run = replace(RUN, epochs=40)
    for words in (["--steps", "7"], ["--steps=7"]):
        assert override(run, words, "train") == replace(RUN, steps=7)
    assert override(run, ["--clip", "2"], "train").epochs == 40
    overridden = override(run, ["--steps", "7", "--epochs", "3"], "train")
    assert (overridden.steps, overridden.epochs) == (7, 3)


def test_fields_of_a_subclass_held_by_a_base_class_field_are_reached_by_path():
    assert changed("--task.model.width 64").task.model == Model(width=64)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--task.model.layers 2 3", "layers", (2, 3)),
        ("--task.model.dropout -0.5", "dropout", -0.5),
        ("--task.model.dropout=-1e-3", "dropout", -1e-3),
        ("--task.model.bias", "bias", True),
        ("--task.model.no-bias", "bias", False),
        ("--task.model.window 7", "window", 7),
        ("--task.model.window None", "window", None),
        ("--task.model.norm pre", "norm", "pre"),
    ],
)
def test_values_of_every_plain_type(line, field, value):
    assert changed(line).task.model == replace(Model(), **{field: value})


@pytest.mark.parametrize("kind", ["bucketing", "Bucketing"])
def test_a_union_is_switched_by_name_and_shared_fields_are_kept(kind):
    line = f"--task.batching.lengths 8 --task.batching {kind}"
    assert changed(line).task.batching == Bucketing(rows=8, lengths=(8,))


def test_dashes_and_underscores_are_the_same():
    line = "--schedule=inverse_square_root --schedule.warmup=3"
    assert changed(line).schedule == InverseSquareRoot(warmup=3)


def test_an_absent_part_is_given_by_name_and_taken_away_by_none():
    with_it = changed("--averaging averaging --averaging.last 2")
    assert with_it.averaging == Averaging(last=2)
    assert override(with_it, ["--averaging", "None"], "x").averaging is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--task.model.widht 64",
            "unknown option --task.model.widht; did you mean --task.model.width?",
        ),
        ("--width=3", "unknown option --width; did you mean --task.model.width?"),
        ("--fodler x", "unknown option --fodler; did you mean --folder?"),
        ("--zzz", "unknown option --zzz; --help lists all"),
        ("--steps ten", "--steps: 'ten' is not an int"),
        ("--steps=1.5", "--steps: '1.5' is not an int"),
        ("--clip x", "--clip: 'x' is not a float or None"),
        ("--steps", "--steps: a value is missing"),
        ("--task.model.layers 3", "--task.model.layers: takes 2 values"),
        (
            "--task.model.layers 3 a",
            "--task.model.layers: '3 a' is not tuple[int, int] (such as 6 6)",
        ),
        ("--task.model.layers 1 2 3", "--task.model.layers: '3' is one value too many"),
        (
            "--task.model.bias True",
            "--task.model.bias takes no value, not 'True'; "
            "write --task.model.bias or --task.model.no-bias",
        ),
        (
            "--task.model.norm pro",
            "--task.model.norm: 'pro' is not one of pre, post; did you mean pre?",
        ),
        (
            "--schedule cos",
            "--schedule: 'cos' is not one of inverse-square-root, cosine; did you mean cosine?",
        ),
        ("--schedule cosine --schedule.end -1", "--schedule: end is at least 0"),
        ("--steps -1", "steps is at least 0"),
        ("steps=3", "unexpected argument 'steps=3'; did you mean --steps?"),
        ("extra", "unexpected argument 'extra'; options begin with --"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_mend(line, message):
    assert complaint(line) == message


@pytest.mark.parametrize("line", ["--task.model.bias no", "--zzz", "--steps ten", "extra"])
def test_it_says_the_same_where_boxes_are_drawn_in_ascii(line, monkeypatch):
    expected = complaint(line)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    assert complaint(line) == expected


def test_help_lists_fields_with_their_docstrings_defaults_and_kinds(capsys):
    with pytest.raises(SystemExit) as ended:
        changed("--help")
    help_text = capsys.readouterr().out
    assert ended.value.code == 0
    for expected in ("--task.model.width INT", "Model width. (default: 512)"):
        assert expected in help_text
    assert "--schedule {inverse-square-root,cosine}" in " ".join(help_text.split())


@dataclass(frozen=True)
class FromFiles:
    first: str
    second: str
    rows: int = 8


@dataclass(frozen=True)
class Reader:
    data: Packing | FromFiles = Packing()


def test_a_kind_that_needs_texts_takes_them_from_their_own_options():
    words = ["--data", "from-files", "--data.first", "a.en", "--data.second=b.de"]
    assert override(Reader(), words, "train").data == FromFiles("a.en", "b.de", 8)
    with pytest.raises(ConfigError, match=r"--data from-files also needs --data\.second$"):
        override(Reader(), words[:4], "train")

"""Numeric fields: each states its range, a number outside is refused by name, the docs list all."""

import dataclasses
import importlib.util
import math
import typing
from pathlib import Path
from typing import Annotated, Any

import pytest

from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, PositiveInt, Range, numeric_fields
from jaxformers.layers.blocks import BlockConfig
from jaxformers.layers.execution import Execution
from jaxformers.training import Adam, Experiment, InverseSquareRoot
from jaxformers.training.config.choice_fields import alternatives
from jaxformers.training.config.experiment_files import from_json, load_experiment, to_json
from jaxformers.training.config.overrides import override

ROOT = Path(__file__).parents[1]


def make_fields():
    spec = importlib.util.spec_from_file_location("make_fields", ROOT / "docs" / "make_fields.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLASSES = make_fields().configuration_classes()


def reachable_from(*roots: type) -> set[type]:
    """The configuration dataclasses that an experiment may hold, whatever their depth."""
    reached, waiting = set(), list(roots)
    while waiting:
        cls = waiting.pop()
        if cls in reached or not dataclasses.is_dataclass(cls):
            continue
        reached.add(cls)
        waiting += cls.__subclasses__()
        for hint in typing.get_type_hints(cls).values():
            waiting += [leaf for leaf in leaves(hint) if isinstance(leaf, type)]
    return {cls for cls in reached if in_package(cls)}


def in_package(cls: type | None) -> bool:
    """Whether it is a class of the library, not of a test's or of an experiment file."""
    return cls is not None and cls.__module__.startswith("jaxformers.")


def leaves(hint: Any) -> list[Any]:
    members = [leaf for member in typing.get_args(hint) for leaf in leaves(member)]
    return members if typing.get_origin(hint) else [hint]


def test_the_walk_reaches_the_choices_of_every_field():
    reached = reachable_from(Experiment)
    for cls in reached:
        for field in dataclasses.fields(cls):
            choices = {c for c in alternatives(cls, field.name).values() if in_package(c)}
            assert choices <= reached, (cls, field.name)


@pytest.mark.parametrize(
    "cls",
    sorted(reachable_from(Experiment, BlockConfig, Execution), key=lambda cls: cls.__name__),
    ids=lambda cls: cls.__name__,
)
def test_every_numeric_field_states_its_range(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    stated = {field.name for field in numeric_fields(cls)}
    for field in dataclasses.fields(cls):
        numeric = {int, float} & set(leaves(typing.get_type_hints(cls)[field.name]))
        assert not numeric or field.name in stated, (
            f"{cls.__name__}.{field.name} is {hints[field.name]}; state its range, "
            "such as PositiveInt (jaxformers.fields)"
        )


def outside(field) -> list[int | float]:
    """Numbers of the right type that the field must refuse: just outside, or not finite."""
    bounds = field.range
    if field.whole:
        values = [-(2**40), 2**40]
        values += [] if bounds.ge is None else [bounds.ge - 1]
        return values + ([] if bounds.le is None else [bounds.le + 1])
    values = [math.nan, math.inf, -math.inf]
    values += [] if bounds.ge is None else [bounds.ge - 1e-6]
    values += [] if bounds.le is None else [bounds.le + 1e-6]
    return values + [float(bound) for bound in (bounds.gt, bounds.lt) if bound is not None]


def in_tuples(hint: Any, value: Any) -> Any:
    """The value within as many tuples as the hint has."""
    if typing.get_origin(hint) is not tuple:
        return value
    return tuple(in_tuples(item, value) for item in typing.get_args(hint) if item is not ...)


def dummies(cls: type) -> dict[str, Any]:
    """Values for the required fields, of which only the ranges and choices need be right."""
    hints = typing.get_type_hints(cls)
    ranges = {field.name: field.range for field in numeric_fields(cls)}
    values = {}
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            choices = typing.get_args(hints[field.name]) or (None,)
            bounds = ranges.get(field.name, Range())
            lowest = bounds.ge if bounds.gt is None else bounds.gt + 1
            values[field.name] = choices[0] if lowest is None else lowest
    return values


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_number_outside_its_range_is_refused_by_name(cls):
    values, hints = dummies(cls), typing.get_type_hints(cls)
    for field in numeric_fields(cls):
        for value in outside(field):
            with pytest.raises(ConfigError, match=rf"^{cls.__name__}: {field.name} is ") as error:
                cls(**{**values, field.name: in_tuples(hints[field.name], value)})
            assert str(error.value).endswith(f"; it is {field}")
            assert "\n" not in str(error.value)


@dataclasses.dataclass(frozen=True)
class Sizes(CheckedFields):
    """Ranges within tuples and unions."""

    pairs: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    side: Annotated[int, Range(ge=1, lt=9, also=(-1,))] | None = None
    column: PositiveInt | str = "name"


def test_bounds_hold_within_tuples_and_unions():
    Sizes(((1, 2), (3, 4)), side=-1, column=3)
    Sizes((), side=8)
    outside = [{"pairs": ((1, 2), (3, 0))}, {"side": 9}, {"side": -2}, {"column": 0}]
    wrong_types = [{"pairs": ((1, 2), (3, "4"))}, {"side": 1.5}, {"side": True}, {"column": None}]
    for values in (*outside, *wrong_types):
        with pytest.raises(ConfigError, match=f"Sizes: {next(iter(values))} is "):
            Sizes(**values)
    with pytest.raises(ConfigError, match="a whole number, from 1 to below 9, or -1, or None"):
        Sizes(side=9)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--clip-norm", "-1", "Experiment: clip_norm is -1.0; it is above 0, or None"),
        ("--optimizer.b2", "1.5", "Adam: b2 is 1.5; it is from 0 to below 1"),
        ("--optimizer.eps", "-1", "Adam: eps is -1.0; it is above 0"),
        ("--optimizer.weight-decay", "nan", "Adam: weight_decay is nan; it is at least 0"),
        ("--checkpoint.every", "0", "Checkpointing: every is 0; it is a whole number, at least 1"),
        ("--checkpoint.keep-last", "0", "keep_last is 0; it is a whole number, at least 1"),
        ("--logging.every", "0", "Logging: every is 0; it is a whole number, at least 1"),
        ("--schedule.warmup", "0", "warmup is 0; it is a whole number, at least 1"),
        ("--schedule.warmup", "-5", "warmup is -5; it is a whole number, at least 1"),
        ("--seed", "-1", "seed is -1; it is a whole number, from 0 to 4294967295"),
        ("--steps", "3000000000", "steps is 3000000000; it is a whole number, at least 0"),
        ("--task.search.alpha", "nan", "alpha is nan"),
        ("--task.model.dropout", "1", "dropout is 1.0; it is from 0 to below 1"),
    ],
)
def test_the_command_line_refuses_impossible_numbers_in_one_line(option, value, message):
    experiment = load_experiment(ROOT / "experiments" / "translation" / "demo.py")
    experiment = dataclasses.replace(experiment, optimizer=Adam(), schedule=InverseSquareRoot())
    with pytest.raises(ConfigError) as error:
        override(experiment, [option, value], "train")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["linear", "--schedule.peak", "-1"], "Linear: peak is -1.0; it is at least 0"),
        (["bert-linear", "--schedule.warmup-share", "1.5"], "warmup_share is 1.5"),
        (["steps", "--schedule.boundaries", "0.5", "2"], "boundaries is (0.5, 2.0)"),
    ],
)
def test_a_chosen_schedule_refuses_impossible_numbers(options, message):
    experiment = load_experiment(ROOT / "experiments" / "translation" / "demo.py")
    with pytest.raises(ConfigError) as error:
        override(experiment, ["--schedule", *options], "train")
    assert message in str(error.value)


def test_a_saved_experiment_with_an_impossible_number_is_refused():
    data = to_json(Adam())
    data["b2"] = 1.5
    with pytest.raises(ConfigError, match=r"Adam: b2 is 1.5; it is from 0 to below 1"):
        from_json(data)


def test_the_page_of_fields_is_what_the_code_says():
    module = make_fields()
    assert module.page() == module.PAGE.read_text(), "run: python docs/make_fields.py"

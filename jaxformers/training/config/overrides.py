"""Overrides of an experiment's fields from the command line; mistakes are reported in one line.

tyro generates the options from the dataclasses and checks the types. Its error messages, printed in
boxes, become one `ConfigError` line that names the option, the problem and the near miss. Overrides
of an experiment hold for its follow-up runs too; see `follow_up_options`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from jaxformers.errors import ConfigError, did_you_mean
from jaxformers.training.config.choice_fields import (
    choice_options,
    plain_options,
    switch_kinds,
    to_option_value,
)
from jaxformers.training.config.follow_up_options import (
    option_names,
    options_of_first,
    options_of_follow_up,
    parse_options,
    split_addressed,
    to_arguments,
)

T = TypeVar("T")


def override(default: T, args: Sequence[str], prog: str, also: Sequence[str] = ()) -> T:
    """`default` with the fields that `args` name replaced, their types checked.

    A field that may hold one of several dataclasses takes the name of one (`--schedule cosine`; see
    `choice_fields`). Both `--a-b` and `--a_b` are accepted. `--help` prints every field with its
    default and exits with status 0.

    An option holds for every follow-up run (`after`) that has the field; `--after.NAME.FIELD` sets
    a field of the follow-up run NAME alone.

    Args:
        default: a frozen dataclass; its values are the defaults.
        args: such as `["--steps", "10", "--task.model.width=64"]`.
        prog: the command, for the help text.
        also: further options of the command, for near misses.

    Raises:
        ConfigError: one line naming the option, the problem and the near miss.
    """
    follow_ups = getattr(default, "after", ())
    if not follow_ups or {"-h", "--help"} & set(args):
        return _override_run(default, list(args), prog, also)
    names = [run.name for run in follow_ups]
    shared, addressed = split_addressed(parse_options(args), names)
    options_of_runs = [options_of_follow_up(default, run, shared) for run in follow_ups]
    held = {option.name for options in options_of_runs for option in options}
    own = options_of_first(default, shared)
    # What no run has goes to the first one, whose error message names the near miss.
    first_args = to_arguments(o for o in shared if o in own or o.name not in held)
    known = {name for run in follow_ups for name in option_names(run)}
    first = _override_run(default, first_args, prog, (*also, *known))
    overridden = []
    for run, options in zip(follow_ups, options_of_runs, strict=True):
        words = to_arguments((*options, *addressed[run.name]))
        try:
            overridden.append(_override_run(run, words, prog, also))
        except ConfigError as error:
            raise ConfigError(f"follow-up run {run.name}: {error}") from None
    return dataclasses.replace(first, after=tuple(overridden))


def _override_run(default: T, args: list[str], prog: str, also: Sequence[str] = ()) -> T:
    """`override` of a single run, without its follow-up runs."""
    default, args = switch_kinds(default, args)
    default = _clear_yielding_fields(default, args)
    if {"-h", "--help"} & set(args):
        return _parse(default, args, prog, _help_text(default))
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), _wide_terminal():
            return _parse(default, args, prog)
    except SystemExit:
        raise ConfigError(_one_line(printed.getvalue(), args, default, also)) from None


def _clear_yielding_fields(default: T, args: Sequence[str]) -> T:
    """Clears fields that yield to one that `args` name: `--steps` sets `epochs` to None."""
    overridden = {_dashed(arg)[2:].replace("-", "_") for arg in args if arg.startswith("--")}
    cleared = [
        field.name
        for field in dataclasses.fields(default)
        if field.metadata.get("yields_to") in overridden and field.name not in overridden
    ]
    return dataclasses.replace(default, **dict.fromkeys(cleared)) if cleared else default


def _parse(default: T, args: list[str], prog: str, text: str | None = None) -> T:
    config = (tyro.conf.AvoidSubcommands,)
    kind = type(default)
    return tyro.cli(kind, default=default, args=args, prog=prog, description=text, config=config)


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    """tyro wraps its messages to the terminal's width; in a wide one each is on one line."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _help_text(default: Any) -> str:
    choices = ((option, map(to_option_value, names)) for option, names in choice_options(default))
    kinds = [f"  {option} {{{','.join(values)}}}" for option, values in choices]
    return "\n".join(
        [
            "Any field of the experiment may be given by its path: --steps 100 --mesh.tensor 2.",
            "Several values follow one another (--lengths 16 32); a yes-or-no field is written",
            "--field or --no-field.",
            *(["", "Fields that hold one of several kinds:", *kinds] if kinds else []),
        ]
    )


def _one_line(boxes: str, args: list[str], default: Any, also: Sequence[str]) -> str:
    """tyro's error message as one line; one of no case below keeps its text."""
    bare = re.sub(r"\x1b\[[0-9;]*m|[─-╿]", " ", boxes)
    # tyro draws its boxes in ASCII where the output's encoding is not called exactly "utf-8".
    lines = [line for line in bare.splitlines()[1:] if set(line.strip()) != {"-"}]
    text = " ".join(" ".join(lines).split())
    text, _, usage = re.split(r" For full helptext", text)[0].partition(" Argument helptext: ")
    if match := re.search(r"Unrecognized options: (.*?)(?: Perhaps you meant|$)", text):
        kinds = [option for option, _ in choice_options(default)]
        return _unknown(match[1].split(", ")[0], args, [*plain_options(default), *kinds, *also])
    if match := re.search(
        r"invalid choice '(.*)' for argument '(.*)'\. Expected one of (.*)\.", text
    ):
        choices = re.findall(r"'([^']*)'", match[3])
        return f"{match[2]}: {match[1]!r} is not one of {', '.join(choices)}" + did_you_mean(
            match[1], choices
        )
    if match := re.search(r"Missing value for argument '(.*)'\. Expected (\d+) values", text):
        return f"{match[1]}: " + (
            "a value is missing" if match[2] == "1" else f"takes {match[2]} values"
        )
    if match := re.search(r"Error parsing (\S+): (.*)", text):
        return _bad_value(match[1], match[2], usage, args, default)
    return text


def _unknown(token: str, args: list[str], options: list[str]) -> str:
    """The message for an option, or a value, that belongs to no field."""
    if token.startswith("-"):
        name = token.split("=")[0]
        if _dashed(name) in options:
            return f"{name} cannot be given here; set it in the experiment file"
        return f"unknown option {name}" + (did_you_mean(name, options) or "; --help lists all")
    before = [_dashed(a) for a in args[: args.index(token)] if a.startswith("--")][-1:]
    if before and _negated(before[0]) in options:
        return (
            f"{before[0]} takes no value, not {token!r}; write {before[0]} or {_negated(before[0])}"
        )
    if before and "=" not in token:
        return f"{before[0]}: {token!r} is one value too many"
    mend = did_you_mean(f"--{token.split('=')[0]}", options) or "; options begin with --"
    return f"unexpected argument {token!r}{mend}"


def _dashed(argument: str) -> str:
    """The option alone, to_option_value with dashes."""
    return argument.split("=")[0].replace("_", "-")


def _negated(option: str) -> str:
    path, _, name = option.rpartition(".")
    return f"{path}.no-{name}" if path else option.replace("--", "--no-", 1)


def _bad_value(option: str, problem: str, usage: str, args: list[str], default: Any) -> str:
    """The message for a value of the wrong type, or that the dataclass itself rejects."""
    if not usage:
        nested = option.split(".")[0].replace("-", "_") in vars(default)
        return f"--{option.replace('_', '-')}: {problem}" if nested else problem
    return f"{option}: {_value_text(option, args)!r} is not {_type_in_words(option, default)}"


def _value_text(option: str, args: list[str]) -> str:
    """The option's value as it was typed."""
    at = max(i for i, argument in enumerate(args) if _dashed(argument) == option)
    if "=" in args[at]:
        return args[at].split("=", 1)[1]
    return " ".join(itertools.takewhile(lambda word: not word.startswith("--"), args[at + 1 :]))


def _type_in_words(option: str, default: Any) -> str:
    """The field's type in words: `an int`, `None or a float`, `tuple[int, int] (such as 3 3)`."""
    *path, name = option[2:].replace("-", "_").split(".")
    for parent in path:
        default = getattr(default, parent)
    hint, value = typing.get_type_hints(type(default))[name], getattr(default, name)
    words = {int: "an int", float: "a float", str: "a string", type(None): "None"}
    if hint in words:
        return words[hint]
    members = [words.get(member, str(member)) for member in typing.get_args(hint)]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(members)
    return str(hint) + (f" (such as {' '.join(map(str, value))})" if value else "")

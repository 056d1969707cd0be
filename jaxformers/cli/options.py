"""What a verb of the command line declares, and the options that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

Option = tuple[str, dict]
Function = Callable[[argparse.Namespace, list[str]], int | None]
"""Takes the parsed arguments and the words that name fields of the experiment; returns the exit
status, None for 0."""


@dataclass(frozen=True)
class Verb:
    """A verb: the function that runs it, its arguments and its help."""

    run: Function
    summary: str
    positionals: tuple[str, ...]
    text: str
    options: tuple[Option, ...] = ()
    fields: bool = False
    """Whether fields of the experiment may be set as options."""


def whole_number(text: str) -> int:
    """Reads a whole number; argparse reports what is none."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an int") from None


def number(text: str) -> float:
    """Reads a number; argparse reports what is none."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a float") from None


FOLDER = ("--folder", dict(metavar="FOLDER", help="the run's folder (default: runs/<its name>)"))
REHEARSE = ("--rehearse", dict(action="store_true", help="the same run shrunk to seconds"))
PROCESSES = (
    "--processes",
    dict(metavar="N", type=whole_number, default=1, help="as a pod of N processes on this machine"),
)
RESTARTS = (
    "--restarts",
    dict(
        metavar="N",
        type=whole_number,
        default=0,
        help="go on by itself up to N times when interrupted",
    ),
)
CODE = ("--file", dict(metavar="FILE", help="the experiment file, if the run uses its classes"))
LINES: tuple[Option, ...] = (
    ("--batch", dict(metavar="N", type=whole_number, default=32, help="lines computed at once")),
    (
        "--skip",
        dict(
            action="store_true", help="report lines that cannot be used, answer them by empty ones"
        ),
    ),
    CODE,
)
TRUNCATE = ("--truncate", dict(action="store_true", help="cut what is too long for the model"))

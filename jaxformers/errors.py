"""Errors a person can mend: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import numbers
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

NAME_LENGTH, WORD_LENGTH, MESSAGE_LENGTH = 120, 300, 4000
NAMES_SHOWN = 8  # entries of a folder that a message names
"""Characters to which a name, a word of a message and a message are cut."""
JOINERS = "\u200c\u200d"
"""Format characters that ordinary text contains (Persian, emoji)."""


DISTRIBUTION = "landmark-transformers"
"""The name under which pip knows this package; `jaxformers` on the public index is a stranger's."""


class UserError(Exception):
    """A mistake in what the user gave us. The command line prints its one line and exits 2.

    A message may quote names from damaged or hostile files, so control characters are escaped,
    and words and messages of excessive length are cut.
    """

    def __init__(self, message: object = ""):
        long_word = rf"\S{{{WORD_LENGTH + 1},}}"
        text = re.sub(long_word, lambda match: _shortened(match[0], WORD_LENGTH), str(message))
        lines = _shortened(text, MESSAGE_LENGTH).split("\n")
        super().__init__("\n".join(map(_escaped, lines)))


class ConfigError(UserError):
    """An option, a field or an experiment file that cannot be used."""


class ShardingError(UserError):
    """A parameter or activation that the mesh cannot divide, or that no table row names."""


class DataError(UserError):
    """Data that is missing, empty, malformed, or not what the run was started with."""


class DamagedImageError(DataError):
    """An image whose bytes do not decode, as against one that cannot be read or used."""


class WeightsError(UserError):
    """Published weights with missing, unexpected or misshapen tensors, or a damaged file."""


class CheckpointError(UserError):
    """A run's folder that cannot be written, is in use, or holds no usable checkpoint."""


def install_extra(extra: str) -> str:
    """The command that installs what an extra of this package names."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def folder_contents(folder: Any) -> str:
    """ "it holds a.json, b.bin and 9 more": what a folder holds, for a message that misses a file.

    Args:
        folder: a path with `is_dir` and `iterdir`.
    """
    if not folder.is_dir():
        return "there is no such folder"
    names = sorted(printable(entry.name) for entry in folder.iterdir())
    if len(names) <= NAMES_SHOWN:
        return f"it holds {', '.join(names) or 'nothing'}"
    return f"it holds {', '.join(names[:NAMES_SHOWN])} and {len(names) - NAMES_SHOWN:,} more"


def printable(text: object, length: int = NAME_LENGTH) -> str:
    """`text`, which a file or another machine provided, for one line of a terminal or a log.

    Control characters, bidirectional marks and the like are escaped; a text longer than `length`
    loses its middle and states its length.
    """
    return _escaped(_shortened(str(text), length))


def _shortened(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    suffix = f" ({len(text):,} characters)"
    side = (length - len(suffix) - 3) // 2
    return f"{text[:side]}...{text[-side:]}{suffix}"


def _escaped(text: str) -> str:
    return "".join(
        char
        if char in JOINERS or (unicodedata.category(char)[0] != "C" and char not in "\u2028\u2029")
        else char.encode("unicode_escape").decode()
        for char in text
    )


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean A or B?` of what is closest to `name`, or an empty string.

    Options such as `--task.model.width` are also found by their last part.
    """
    if len(name) > NAME_LENGTH:
        return ""
    name = name.replace("_", "-")
    last = _last(name)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
    close = close or [k for k in known if _last(k) == last][:3]
    close = close or [k for k in known if k.startswith(f"{name}.")][:3]
    close = (
        close or [k for k in known if difflib.get_close_matches(last, [_last(k)], cutoff=0.8)][:2]
    )
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def check_top(top: Any) -> None:
    """Raises ConfigError unless it is a number of things to name."""
    if not isinstance(top, numbers.Integral) or top < 1:
        raise ConfigError(f"top is {top!r}; it is a whole number of at least 1")


def _last(option: str) -> str:
    return option.lstrip("-").split(".")[-1]

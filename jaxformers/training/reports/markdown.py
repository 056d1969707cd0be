"""Tables in Markdown, and text that shows as it is there."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SPECIAL = re.compile(r"([\\`*_\[\]<>~|&$])")
_EM = "-"  # what a table shows where nothing is known


@dataclass(frozen=True)
class Table:
    """A table with its heading; numbers are shown with four digits, None as a dash."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    note: str = ""


def section(table: Table) -> str:
    """The heading, the table and its note."""
    note = f"\n\n{table.note}" if table.note else ""
    return f"## {table.title}\n\n{markdown(table.columns, table.rows)}{note}"


def markdown(
    columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, aligned: bool = False
) -> str:
    """The table, its columns of one width when `aligned`, to be read in a terminal too."""
    lines = [[*columns], ["---"] * len(columns), *([cell(value) for value in row] for row in rows)]
    if aligned:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines = [
            [word.ljust(width) for word, width in zip(line, widths, strict=True)] for line in lines
        ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return _EM
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value).replace("|", "\\|").replace("\n", " ")
    if isinstance(value, int):
        return f"{value:,}"
    if value and math.isfinite(value) and abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def words(key: str) -> str:
    """A metric's name without its underscores."""
    return escape(key.replace("_", " "))


def escape(text: str) -> str:
    """Make text show as it is in Markdown, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))

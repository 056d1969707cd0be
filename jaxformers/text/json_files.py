"""Reading the small JSON and text files of a tokenizer, whoever wrote them."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from jaxformers.errors import UserError

LARGEST_FILE = 256 * 2**20  # bytes; published ones stay below twenty million


def read_json(file: epath.Path) -> dict[str, Any]:
    """The JSON object in `file`.

    Raises:
        UserError: it is no JSON object, too large, or no regular file.
    """
    try:
        content = json.loads(read_bytes(file))
    except (ValueError, RecursionError):
        raise UserError(f"{file} is not valid JSON, or it is damaged") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} must be a JSON object")
    return content


def read_optional_json(file: epath.Path) -> dict[str, Any]:
    """The JSON object in `file`; an empty one where there is no such file."""
    return read_json(file) if file.exists() else {}


def read_lines(file: epath.Path) -> list[str]:
    """The lines of `file` without a byte order mark and without white space at their ends."""
    try:
        lines = read_bytes(file).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{file} is not text in UTF-8, or it is damaged") from None
    if not lines[-1]:
        lines.pop()
    return [line.rstrip() for line in lines]


def read_bytes(file: epath.Path) -> bytes:
    """The content of `file`, which must be a regular file of at most `LARGEST_FILE` bytes."""
    if not file.is_file():
        raise UserError(f"{file} is not a regular file: put the tokenizer's file there")
    if (size := file.stat().length) > LARGEST_FILE:
        raise UserError(f"{file} is too large for a tokenizer ({size:,} bytes)")
    return file.read_bytes()

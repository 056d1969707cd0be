"""Refuses paths that are no regular files before they are opened for reading."""

from __future__ import annotations

import os
import stat
from typing import Any

from jaxformers.errors import UserError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Any, error_class: type[UserError], *, standard_input: bool = False) -> None:
    """Raises an error unless the path is a regular file's: a pipe or a device may never end.

    Paths of buckets are not checked.

    Args:
        path: the file.
        error_class: of what is raised: no such file, no permission, or not a regular file.
        standard_input: whether a path of standard input, such as `/dev/stdin`, may be a pipe.
    """
    if "://" in str(path):
        return
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise error_class(f"cannot read {path}: {reason}") from None
    if stat.S_ISREG(status.st_mode) or (standard_input and _is_piped_input(status)):
        return
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown kind")
    raise error_class(f"cannot read {path}: it is {kind}, not a regular file")


def _is_piped_input(status: os.stat_result) -> bool:
    """Whether the status is that of standard input, a pipe or a socket."""
    try:
        same = os.path.samestat(status, os.fstat(0))
    except OSError:  # standard input is closed
        return False
    return same and (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode))

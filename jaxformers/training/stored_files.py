"""Reading a run's own files, whatever has become of them; why a file cannot be read or written."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any

from etils import epath

LARGEST = 2**28  # bytes; a manifest or an experiment has some thousand
_ERRNO_NAMES = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENOENT")


class DamagedFile(Exception):
    """A file's contents cannot be used; the message says why in a few words."""


def read_bytes(path: epath.PathLike, largest: int = LARGEST) -> bytes:
    """The contents of a regular file of at most `largest` bytes.

    Raises:
        FileNotFoundError: nothing is there.
        DamagedFile: a folder, a pipe or a device, a file too large, or one that cannot be read.
    """
    try:
        if (size := regular_size(path)) > largest:
            raise DamagedFile(f"{size:,} bytes are too many")
        return epath.Path(path).read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedFile(reason(error)) from error


def regular_size(path: epath.PathLike) -> int:
    """Bytes of a regular file.

    Raises:
        DamagedFile: a folder, a pipe or a device, which may never end.
        OSError, ValueError: nothing is there, or `path` cannot be a path.
    """
    status = epath.Path(path).stat()
    # An object store has no modes.
    if status.is_directory or (status.mode is not None and not stat.S_ISREG(status.mode)):
        raise DamagedFile("not a regular file")
    return status.length


def read_json(path: epath.PathLike, kind: type = dict) -> Any:
    """The JSON value in a file, which is of type `kind`.

    Raises:
        FileNotFoundError: nothing is there.
        DamagedFile: no readable file, no JSON, JSON nested too deeply, or of another type.
    """
    return parse_json(read_bytes(path), kind)


def parse_json(content: bytes, kind: type = dict) -> Any:
    """`content` as a JSON value of type `kind`; raises DamagedFile where it is none."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise DamagedFile("nested too deeply") from None
    except ValueError:
        raise DamagedFile("not JSON") from None
    if not isinstance(value, kind):
        raise DamagedFile(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def reason(error: BaseException) -> str:
    """Why writing or reading failed: the operating system's message where there is one."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(cause) for cause in chain)
    # TensorStore reports a full disk in the text of a ValueError.
    for name in _ERRNO_NAMES:
        if (words := os.strerror(getattr(errno, name))) in text:
            return words
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"

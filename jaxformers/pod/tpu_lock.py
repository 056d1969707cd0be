"""libtpu's lock file: cleared where its owner is gone.

libtpu makes the file for its user alone (mode 0600) and locks it (`fcntl`) as long as it has the
chips. The lock ends with its owner, the file stays when that was killed, and another user's
process then fails on it, as it could not open it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK = Path("/tmp/libtpu_lockfile")


def clear_stale_lock(path: Path = LOCK) -> str | None:
    """Removes the file if nobody holds it; a line that says what was found, None: nothing."""
    if not path.exists():
        return None
    owner = _holder(path)
    if owner:
        return f"this host's TPU is in use by process {owner}, which holds {path}"
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return f"{path} is left over from another user; remove it: sudo rm {path}"
    return f"removed {path}, whose owner is gone"


def _holder(path: Path) -> str:
    """The process that has the file locked or open; "?" for one that cannot be seen from here."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.path.samefile(link, path):
                return link.parts[2]
        except OSError:
            continue  # it has ended, or is another user's
    inode = str(path.stat().st_ino)
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        locks = []
    for line in locks:
        if len(line) > 5 and line[5].split(":")[-1] == inode:
            return line[4]
    return "" if _can_lock(path) else "?"


def _can_lock(path: Path) -> bool:
    """Whether nobody has it locked, those in other containers included; True if we may not ask."""
    try:
        with open(path, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError:
        return True
    except OSError:
        return False
    return True

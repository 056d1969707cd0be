"""What the C library does with memory that a step on CPU gives back."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import threading
import time
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import NoReturn

# Of <malloc.h>, in glibc.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
NEVER = -1
CHOSEN = ("arena_max", "mmap_max", "mmap_threshold", "trim_threshold")
USAGE = ("arena", "ordblks", "smblks", "hblks", "hblkhd")
USAGE += ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
TIMES, SPARE = 2, 2**30
"""What may be held: so many times what was in use, and bytes more."""


def keep_freed_memory(on_cpu: bool) -> bool:
    """Where JAX computes on CPU, keeps memory that was freed, for the next step.

    XLA for CPU takes a step's memory from the C library and gives it back after it. glibc returns
    large blocks to the kernel at once, which clears every page anew for the next step: a third of
    some models' training time. What was chosen by hand, in `GLIBC_TUNABLES` or `MALLOC_..._`,
    stays; no other C library is touched, nor a glibc before 2.33, which cannot say what is in use.

    Holes that a small block keeps from being used again would add up, so a thread looks once a
    second: above twice the most that was seen in use, and 1 GiB, all that is free is given back.

    It holds for all blocks where it comes before JAX starts. Threads that already run may have a
    pool of their own, out of which blocks of more than 64 MB go back to the kernel all the same.

    Returns:
        Whether it could.
    """
    if not on_cpu or platform.libc_ver()[0] != "glibc" or _chosen():
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return False
    mallopt = libc.mallopt
    kept = all([mallopt(ARENA_MAX, 1), mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, NEVER)])
    _watch()
    return kept


@functools.cache
def _watch() -> None:
    """Starts the thread, once a process."""
    threading.Thread(target=_look, name="jaxformers-memory", daemon=True).start()


def _look() -> NoReturn:
    most = 0
    while True:
        most = give_back_surplus(most)
        time.sleep(1)


def give_back_surplus(most: int) -> int:
    """Gives free memory back to the kernel where the process holds far more than it had in use.

    Args:
        most: bytes, the most that was in use so far.

    Returns:
        The same, with what is in use now where that was looked at.
    """
    # `mallinfo2` walks all free blocks with the arena locked, so it is asked only when it matters.
    if resident() <= TIMES * most + SPARE:
        return most
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _Usage
    usage = libc.mallinfo2()
    most = max(most, usage.uordblks + usage.hblkhd)
    if resident() > TIMES * most + SPARE:
        libc.malloc_trim(0)
        most = max(most, resident())  # what is left is in use, by whomever
    return most


def resident() -> int:
    """Bytes of this process's own memory, files not counted, that are in RAM."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


class _Usage(ctypes.Structure):
    """`struct mallinfo2`."""

    _fields_ = [(name, ctypes.c_size_t) for name in USAGE]


def cpu_alone() -> bool:
    """Whether JAX will compute on CPU: told to, or with nothing installed for anything else.

    Starts nothing, and imports no JAX.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    if os.environ.get("TPU_LIBRARY_PATH") or find_spec("libtpu") or find_spec("jax_plugins"):
        return False
    return not entry_points(group="jax_plugins")


def _chosen() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(
        f"glibc.malloc.{name}=" in tunables or f"MALLOC_{name.upper()}_" in os.environ
        for name in CHOSEN
    )

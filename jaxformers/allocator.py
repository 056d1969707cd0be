"""What the C library does with memory that a step on CPU gives back."""

from __future__ import annotations

import ctypes
import os
import platform
from importlib.metadata import entry_points
from importlib.util import find_spec

# Of <malloc.h>, in glibc.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
NEVER = -1
CHOSEN = ("arena_max", "mmap_max", "mmap_threshold", "trim_threshold")


def keep_freed_memory(on_cpu: bool) -> bool:
    """Where JAX computes on CPU, keeps memory that was freed, for the next step.

    XLA for CPU takes a step's memory from the C library and gives it back after it. glibc returns
    large blocks to the kernel at once, which clears every page anew for the next step: a third of
    some models' training time. The process then holds the most that it ever needed. What was chosen
    by hand, in `GLIBC_TUNABLES` or `MALLOC_..._`, stays; no other C library is touched.

    It holds for all blocks where it comes before JAX starts. Threads that already run may have a
    pool of their own, out of which blocks of more than 64 MB go back to the kernel all the same.

    Returns:
        Whether it could.
    """
    if not on_cpu or platform.libc_ver()[0] != "glibc" or _chosen():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(ARENA_MAX, 1), mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, NEVER)])


def cpu_alone() -> bool:
    """Whether JAX will compute on CPU: told to, or with nothing installed for anything else.

    Starts nothing, and imports no JAX.
    """
    told = os.environ.get("JAX_PLATFORMS", "")
    if told:
        return told.split(",")[0] == "cpu"
    if os.environ.get("TPU_LIBRARY_PATH") or find_spec("libtpu") or find_spec("jax_plugins"):
        return False
    return not entry_points(group="jax_plugins")


def _chosen() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(
        f"glibc.malloc.{name}=" in tunables or f"MALLOC_{name.upper()}_" in os.environ
        for name in CHOSEN
    )

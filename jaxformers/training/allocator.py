"""What the C library does with memory that a step on CPU gives back."""

from __future__ import annotations

import ctypes
import os
import platform

import jax

# Of <malloc.h>, in glibc.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
NEVER = -1
CHOSEN = ("mmap_max", "mmap_threshold", "trim_threshold")


def keep_freed_memory() -> bool:
    """On CPU, keeps memory that was freed, for the next step; returns whether it could.

    XLA for CPU takes a step's memory from the C library and gives it back after it. glibc returns
    large blocks to the kernel at once, which clears every page anew for the next step: a third of a
    small model's training time. The process then holds the most that it ever needed. What was
    chosen by hand, in `GLIBC_TUNABLES` or `MALLOC_..._`, stays; no other C library is touched.
    """
    if jax.default_backend() != "cpu" or platform.libc_ver()[0] != "glibc" or _chosen():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, NEVER))


def _chosen() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(
        f"glibc.malloc.{name}=" in tunables or f"MALLOC_{name.upper()}_" in os.environ
        for name in CHOSEN
    )

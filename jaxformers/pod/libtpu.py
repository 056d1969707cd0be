"""Arguments of libtpu, set before it is loaded."""

from __future__ import annotations

import os

ARGUMENTS = "LIBTPU_INIT_ARGS"
STACK = "fibers_default_thread_stack_size"
MEGABYTE = 1 << 20


def give_compiler_stacks() -> None:
    """Threads of libtpu's compiler get stacks of 1 MiB.

    Theirs are of 64 KiB, and the cost of products that are fused into products is estimated
    recursively: BERT with attention dropout and rematerialisation overflows them on v6e, which ends
    the process (SIGSEGV). Too late once libtpu is loaded; a size that is given is kept.
    """
    arguments = os.environ.get(ARGUMENTS, "")
    if STACK not in arguments:
        os.environ[ARGUMENTS] = f"{arguments} --{STACK}={MEGABYTE}".strip()

"""Captures XLA's warnings about wasteful programs, which go to standard error only."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

WASTE = "Involuntary full rematerialization"


@contextlib.contextmanager
def captured_xla_warnings() -> Iterator[list[str]]:
    """Collects the warnings of all compilations inside; other output is passed on afterwards.

    The list is filled when the block ends. A program that comes from JAX's compilation caches
    gives no warnings, since XLA does not compile it.
    """
    warnings: list[str] = []
    level = jax.config.jax_logging_level
    jax.config.update("jax_logging_level", "WARNING")  # it filters XLA's messages too
    # XLA writes from C++, past `sys.stderr`, so file descriptor 2 itself is redirected to a file.
    sys.stderr.flush()
    saved_stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield warnings
        finally:
            sys.stderr.flush()
            os.dup2(saved_stderr, 2)
            os.close(saved_stderr)
            jax.config.update("jax_logging_level", level)
            file.seek(0)
            for line in file.read().splitlines(keepends=True):
                if WASTE.encode() in line:
                    warnings.append(line.decode(errors="replace").strip())
                else:
                    os.write(2, line)


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Disables JAX's persistent cache, from which a program comes without its warnings."""
    # The cache remembers whether it is in use, so the flag works only together with a reset.
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def warnings_are_seen(mesh: Mesh) -> bool:
    """Whether the warning of a program known to be wasteful is captured.

    `mesh` has three axes of size 2.
    """
    outer, inner, last = mesh.axis_names

    # From two axes on the trailing dimensions to two others on the first: XLA has no efficient way
    # and replicates the array on every device first.
    def reshard(x):
        by_batch = NamedSharding(mesh, PartitionSpec((outer, inner), None, None))
        return jax.lax.with_sharding_constraint(2 * x, by_batch)

    sharding = NamedSharding(mesh, PartitionSpec(None, last, inner))
    x = jax.ShapeDtypeStruct((8, 8, 8), jnp.float32, sharding=sharding)
    with uncached(), captured_xla_warnings() as warnings:
        jax.jit(reshard).lower(x).compile()
    return bool(warnings)

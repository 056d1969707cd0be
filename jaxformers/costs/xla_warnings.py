"""XLA's warnings about wasteful programs, which it writes to the process's standard error only."""

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
    """Catches the warnings of all compilations inside; everything else is passed on afterwards.

    XLA writes from C++, so standard error is caught at its file descriptor. The list that is
    given is filled when the block ends. Nothing is written, and so nothing caught, for a program
    that comes from JAX's compilation caches.
    """
    found: list[str] = []
    level = jax.config.jax_logging_level
    jax.config.update("jax_logging_level", "WARNING")  # it is XLA's too: it may hide warnings
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield found
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            jax.config.update("jax_logging_level", level)
            file.seek(0)
            for line in file.read().splitlines(keepends=True):
                if WASTE.encode() in line:
                    found.append(line.decode(errors="replace").strip())
                else:
                    os.write(2, line)


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Without JAX's persistent cache, from which a program comes without its warnings."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def warnings_are_seen(mesh: Mesh) -> bool:
    """Whether a program known to be wasteful is caught; `mesh` has three axes of size 2."""
    outer, inner, last = mesh.axis_names
    batch = (outer, inner)

    def lookup(table, ids):
        whole = NamedSharding(mesh, PartitionSpec(batch, None, None))
        return jax.lax.with_sharding_constraint(jnp.take(table, ids, axis=0), whole)

    def struct(shape, dtype, *axes):
        where = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    table = struct((64, 32), jnp.float32, last, inner)
    ids = struct((8, 4), jnp.int32, batch)
    with uncached(), captured_xla_warnings() as found:
        jax.jit(lookup).lower(table, ids).compile()
    return bool(found)

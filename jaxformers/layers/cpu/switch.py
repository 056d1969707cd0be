"""The one switch of all CPU forms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_ENABLED: ContextVar[bool] = ContextVar("cpu_forms", default=True)


@contextlib.contextmanager
def cpu_forms(enabled: bool) -> Iterator[None]:
    """Turns all CPU forms on or off for models that are traced inside the `with` block.

    JAX's caches do not know the switch: a function that was traced before keeps its form, so make
    a new `jax.jit` of it.
    """
    token = _ENABLED.set(enabled)
    try:
        yield
    finally:
        _ENABLED.reset(token)


def uses_cpu_forms(platform: str | None) -> bool:
    """Whether a model compiled for `platform` takes the CPU forms."""
    return platform == "cpu" and _ENABLED.get()

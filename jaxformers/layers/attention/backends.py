"""Who computes attention: a pure function of the case, and a way to hear what it chose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

from jaxformers.layers.attention.masks import Mask
from jaxformers.layers.execution import Execution

SPLASH_FROM = 512
"""Queries and keys from which splash attention saves memory (plain temporaries over splash's, four
v5e chips, heads of 64: 1.8 at 512, 3.5 at 768, 5.6 at 1024, 11.8 at 2048)."""

_LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


class Backend(NamedTuple):
    """What computes attention, and why it is not a fused kernel where it could have been."""

    name: str
    """`plain`, `splash` or `cudnn`."""
    reason: str = ""


def choose_backend(
    execution: Execution,
    queries: int,
    keys: int,
    mask: Mask | None = None,
    *,
    dropout: bool = False,
    probabilities: bool = False,
    bias: bool = False,
    head_width: int = 64,
    chip: str | None = "",
) -> Backend:
    """The attention back-end for this case; a pure function, so a plan can ask it too.

    Args:
        execution: its platform, and the back-end that it asks for.
        queries, keys: how many there are.
        mask: only its structure counts.
        dropout: whether attention probabilities are dropped out.
        probabilities: whether somebody wants to see them.
        bias: whether a bias is added to the scores.
        head_width: of queries and keys.
        chip: what JAX calls the chips of the mesh in force, such as "TPU v4"; None without a mesh.
            XLA cannot split a kernel by itself, so without a mesh only who asks for splash
            attention gets it.
    """
    requested, target = execution.attention, execution.platform
    if requested == "plain" or (requested == "auto" and target != "tpu"):
        return Backend("plain")
    if bias and requested == "cudnn":
        return Backend("plain", "cuDNN attention takes no additive bias")
    if requested == "cudnn":
        case = (queries, keys, mask, dropout, probabilities, head_width)
        reason = _beyond_cudnn(execution, *case)
        return Backend("plain", reason) if reason else Backend("cudnn")
    if target != "tpu":
        return Backend("plain", f"splash attention is for TPU, not {target.upper()}")
    if chip in ("TPU v2", "TPU v3"):  # the kernel's bfloat16 products do not compile there
        return Backend("plain", f"splash attention needs a TPU v4 or later, not a {chip}")
    if bias:
        return Backend("plain", "splash attention takes no additive bias")
    if reason := _beyond_splash(queries, keys, mask, dropout, probabilities):
        return Backend("plain", reason)
    if requested == "auto" and min(queries, keys) < SPLASH_FROM:
        return Backend("plain", f"splash attention saves little below a length of {SPLASH_FROM}")
    if requested == "auto" and chip is None:
        return Backend("plain", "no mesh is in force (jax.set_mesh)")
    return Backend("splash")


def _beyond_splash(queries, keys, mask, dropout: bool, probabilities: bool) -> str:
    """What of the case splash attention cannot do; empty when it can do all."""
    if probabilities:
        return "splash attention gives no probabilities"
    if dropout:
        return "splash attention applies no attention dropout"
    if mask is not None and mask.dense is not None:
        return "splash attention takes no dense mask"
    if mask is not None and mask.causal and queries != keys:
        return "splash attention takes no causal mask over unequal lengths"
    return ""


def _beyond_cudnn(
    execution: Execution,
    queries: int,
    keys: int,
    mask: Mask | None,
    dropout: bool,
    probabilities: bool,
    head_width: int,
) -> str:
    """What of the case cuDNN's kernel cannot do, by JAX's own checks; empty when it can do all."""
    if execution.platform != "gpu":
        return f"cuDNN attention is for GPU, not {execution.platform.upper()}"
    if execution.dtype != "bfloat16":
        return f"cuDNN attention computes in bfloat16, not {execution.dtype}"
    if probabilities:
        return "cuDNN attention gives no probabilities"
    if dropout:
        return "cuDNN attention applies no attention dropout"
    if head_width % 8 or head_width > 128:
        return "cuDNN attention takes heads whose width 8 divides, up to 128"
    if mask is not None and (queries % 2 or keys % 2):
        return "cuDNN attention takes masks over even lengths only"
    return ""


@contextlib.contextmanager
def log_attention_backends(tell: Callable[[str], None]) -> Iterator[None]:
    """Tells, once each, which back-ends the models that are traced meanwhile choose.

    Only what matters is told: splash attention, and long lengths or a wish that it had to pass up.
    """
    reported: set[str] = set()

    def once(line: str) -> None:
        if line not in reported:
            reported.add(line)
            tell(line)

    token = _LISTENER.set(once)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def report_backend(backend: Backend, execution: Execution, queries: int, keys: int) -> None:
    """Passes a choice on to who listens in `log_attention_backends`."""
    tell = _LISTENER.get()
    short = execution.attention == "auto" and min(queries, keys) < SPLASH_FROM
    if tell is None or short or backend == Backend("plain"):
        return
    why = f" ({backend.reason})" if backend.reason else ""
    tell(f"attention of {queries} queries to {keys} keys: {backend.name}{why}")

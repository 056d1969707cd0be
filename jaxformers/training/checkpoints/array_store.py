"""A tree of arrays to and from a folder, by Orbax; and whether a stored tree fits a wanted one.

The tree is stored as nested dicts named by its paths (`opt_state/0/mu/encoder/...`), so neither
our dataclasses nor optax's tuples are needed to read it, and a part of it can be read alone.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from jaxformers.errors import CheckpointError

PyTree = Any
_SHOWN = 3


class _DropOrbax(logging.Filter):
    """Keeps Orbax's own log lines off the terminal; its errors reach us as exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "/orbax/" not in record.pathname.replace("\\", "/")


class _DropLateWrites(logging.Filter):
    """Drops the errors of the other writes once one has failed the save (see below)."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not ("exception was never retrieved" in text and "OCDBT" in text)


@functools.cache
def _quiet() -> None:
    """Let failed saves reach the user through our error alone.

    Orbax closes its event loop at the first failed write (a full disk). The other writes then
    fail with nobody to tell: asyncio logs them, or TensorStore's threads find the loop closed,
    which Python prints as an error that nobody can catch. The first error reaches us anyway.
    """
    logging.getLogger("absl").addFilter(_DropOrbax())
    logging.getLogger("asyncio").addFilter(_DropLateWrites())
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        trace = unraisable.exc_traceback
        # No line of anybody's program is on the stack: TensorStore itself made the call.
        outermost = trace.tb_frame.f_code.co_name if trace else ""
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not (closed and outermost == "call_soon_threadsafe"):
            show(unraisable)

    sys.unraisablehook = hook


class StateStore:
    """Orbax's asynchronous writer and its reader for named arrays."""

    def __init__(self):
        _quiet()
        # Compression takes eight times as long as writing and saves 8 % of float weights. Writing
        # each replica's slice from its own device compiles a program per shape, which blocks.
        types = ocp.type_handlers
        handlers = types.create_type_handler_registry(
            (jax.Array, types.ArrayHandler(use_replica_parallel=False)),
            (np.ndarray, types.NumpyHandler()),
        )
        self._orbax = ocp.AsyncCheckpointer(
            ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=handlers)
        )

    def save(self, folder: epath.Path, tree: PyTree) -> None:
        """Copy the arrays to the host and start writing; every process calls it."""
        self._orbax.save(_absolute(folder), args=ocp.args.PyTreeSave(_nest(named(tree))))

    def wait(self) -> None:
        """Return when the last save is committed by all processes; raises its error."""
        self._orbax.wait_until_finished()

    def load(self, folder: epath.Path, abstract: PyTree) -> PyTree:
        """Read the arrays that `abstract` names, each with its type and sharding there.

        A leaf without a sharding is read as a NumPy array.
        """
        wanted = named(abstract)
        if not wanted:
            return abstract
        arguments = ocp.args.PyTreeRestore(
            item=_nest(wanted),
            restore_args=_nest({name: _how(leaf) for name, leaf in wanted.items()}),
            partial_restore=True,
        )
        found = named(self._orbax.restore(_absolute(folder), args=arguments))
        leaves = [found[name] for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(abstract), leaves)

    def close(self) -> None:
        """Stop Orbax's threads."""
        self._orbax.close()


def _absolute(folder: epath.Path) -> epath.Path:
    """Orbax takes no relative paths; a bucket's address is absolute as it is."""
    text = os.fspath(folder)
    return folder if "://" in text else epath.Path(os.path.abspath(text))


def named(tree: PyTree) -> dict[str, Any]:
    """The leaves of `tree` by their paths, such as `params/encoder/layers/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {name: _as_array(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}


def describe(tree: PyTree) -> dict[str, list]:
    """Shape and type of every leaf by its path, as JSON can hold them."""
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in named(tree).items()}


def check_fits(stored: dict[str, list], wanted: PyTree, where: str, *, part: bool = False) -> None:
    """Compare a stored tree's description with `wanted`, before anything is read.

    With `part`, what is stored beyond `wanted` is ignored and types may differ (they are cast).
    Raises `CheckpointError` with the first paths and shapes that differ.
    """
    expected = describe(wanted)
    names = list(expected) if part else sorted(expected.keys() | stored.keys())
    wrong = [
        f"{name} is {_show(stored.get(name))} there and {_show(expected.get(name))} here"
        for name in names
        if _key(stored.get(name), part) != _key(expected.get(name), part)
    ]
    if not wrong:
        return
    more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    raise CheckpointError(
        f"{where} does not fit this model and optimizer: {'; '.join(wrong[:_SHOWN])}{more}."
        " Use the configuration it was written with, or another folder"
    )


def _as_array(leaf: Any) -> Any:
    is_array = (
        hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not isinstance(leaf, np.generic)
    )
    return leaf if is_array else np.asarray(leaf)


def _nest(leaves: dict[str, Any]) -> dict:
    nested: dict = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return nested


def _how(leaf: Any) -> ocp.RestoreArgs:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
    return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype)


def _key(entry: list | None, part: bool) -> Any:
    return entry[0] if entry and part else entry


def _show(entry: list | None) -> str:
    return "absent" if entry is None else f"{entry[1]}{entry[0]}"

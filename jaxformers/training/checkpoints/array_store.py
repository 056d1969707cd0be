"""Writes a tree of arrays to a folder and reads it back, by Orbax; checks that trees match.

The tree is stored as nested dicts keyed by its paths (`opt_state/0/mu/encoder/...`), so neither
our dataclasses nor optax's tuples are needed to read it, and a subtree can be read alone.
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
_SHOW = 3


class _DropOrbax(logging.Filter):
    """Keeps Orbax's own log lines off the terminal; its errors are raised as exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "/orbax/" not in record.pathname.replace("\\", "/")


class _DropLateWrites(logging.Filter):
    """Drops the errors of the other writes once one has failed the save (see below)."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not ("exception was never retrieved" in text and "OCDBT" in text)


@functools.cache
def _silence_orbax() -> None:
    """Suppresses what Orbax prints besides the exception that a failed save raises.

    Orbax closes its event loop at the first failed write (a full disk). The other writes then fail
    where nothing can catch them: asyncio logs them, or TensorStore's threads find the loop closed,
    which Python prints as an unraisable exception. The first error is raised to the caller anyway.
    """
    logging.getLogger("absl").addFilter(_DropOrbax())
    logging.getLogger("asyncio").addFilter(_DropLateWrites())
    original_hook = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        trace = unraisable.exc_traceback
        # The stack begins at asyncio's own function: a thread of TensorStore made the call, no
        # line of a Python program did. Other errors of a closed loop are not ours to hide.
        outermost = trace.tb_frame.f_code.co_name if trace else ""
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not (closed and outermost == "call_soon_threadsafe"):
            original_hook(unraisable)

    sys.unraisablehook = hook


class ArrayStore:
    """Asynchronous writer and reader of trees of arrays, by Orbax."""

    def __init__(self):
        _silence_orbax()
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
        """Copies the arrays to the host and starts writing; every process calls it."""
        self._orbax.save(_absolute(folder), args=ocp.args.PyTreeSave(_nest(named(tree))))

    def wait(self) -> None:
        """Returns when all processes have committed the last save; raises its error."""
        self._orbax.wait_until_finished()

    def load(self, folder: epath.Path, abstract: PyTree) -> PyTree:
        """Reads the arrays at the paths of `abstract`, with the types and shardings given there.

        A leaf without a sharding is read as a NumPy array.
        """
        specs = named(abstract)
        if not specs:
            return abstract
        arguments = ocp.args.PyTreeRestore(
            item=_nest(specs),
            restore_args=_nest({path: _restore_args(spec) for path, spec in specs.items()}),
            partial_restore=True,  # stored arrays that `abstract` lacks are not read
        )
        arrays = named(self._orbax.restore(_absolute(folder), args=arguments))
        leaves = [arrays[path] for path in specs]
        return jax.tree.unflatten(jax.tree.structure(abstract), leaves)

    def close(self) -> None:
        """Stops Orbax's background threads."""
        self._orbax.close()


def _absolute(folder: epath.Path) -> epath.Path:
    """An absolute path, as Orbax requires; the URL of a bucket already is one."""
    text = os.fspath(folder)
    return folder if "://" in text else epath.Path(os.path.abspath(text))


def named(tree: PyTree) -> dict[str, Any]:
    """The leaves of `tree` by their paths, such as `params/encoder/layers/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {name: _as_array(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}


def describe(tree: PyTree) -> dict[str, list]:
    """Shape and type of every leaf by its path, as JSON values."""
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in named(tree).items()}


def check_fits(
    stored: dict[str, list], target: PyTree, where: str, *, subtree: bool = False
) -> None:
    """Compares a stored tree's description with `target`, before any array is read.

    Args:
        stored: from `describe`, when the tree was written.
        target: the tree to restore to.
        where: the checkpoint, for messages.
        subtree: `target` may lack some of the stored paths, and types may differ (they are cast).

    Raises:
        CheckpointError: the first paths and shapes that differ.
    """
    expected = describe(target)
    names = list(expected) if subtree else sorted(expected.keys() | stored.keys())
    wrong = [
        f"{name} is {_show(stored.get(name))} there and {_show(expected.get(name))} here"
        for name in names
        if _key(stored.get(name), subtree) != _key(expected.get(name), subtree)
    ]
    if not wrong:
        return
    more = f"; and {len(wrong) - _SHOW} more" if len(wrong) > _SHOW else ""
    raise CheckpointError(
        f"{where} does not fit this model and optimizer: {'; '.join(wrong[:_SHOW])}{more}."
        " Use the configuration it was written with, or another folder"
    )


def _as_array(leaf: Any) -> Any:
    # NumPy scalars have a shape and a type too, but Orbax stores only arrays.
    is_array = (
        hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not isinstance(leaf, np.generic)
    )
    return leaf if is_array else np.asarray(leaf)


def _nest(leaves: dict[str, Any]) -> dict:
    """{"a/b": x} to {"a": {"b": x}}."""
    nested: dict = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return nested


def _restore_args(leaf: Any) -> ocp.RestoreArgs:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
    return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype)


def _key(entry: list | None, subtree: bool) -> Any:
    return entry[0] if entry and subtree else entry  # the shape alone, or shape and type


def _show(entry: list | None) -> str:
    return "absent" if entry is None else f"{entry[1]}{entry[0]}"

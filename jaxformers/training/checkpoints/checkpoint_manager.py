"""Crash-safe checkpoints: written in the background, verified before use, restored whole or not.

A checkpoint is the folder `<step>/` with:
    state/            the arrays, by Orbax
    checkpoint.json   the caller's metadata, and the tree's shapes and types
    files/            further files of the caller's, such as a tokenizer
    manifest.json     sizes and hashes of the above; written last, so a folder with one is complete
Evaluation results, which arrive later, are kept next to the checkpoints in `metrics.json`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from jaxformers.errors import CheckpointError
from jaxformers.training.checkpoints.array_store import ArrayStore, check_fits, describe
from jaxformers.training.checkpoints.directory import CheckpointFolder, Checkpointing
from jaxformers.training.stored_files import reason

__all__ = ["Checkpointer", "Checkpointing", "Restored"]

PyTree = Any
_RECORD, _STATE, _FILES = "checkpoint.json", "state", "files"


@dataclass(frozen=True)
class Restored:
    """A restored checkpoint; `state` has the tree, types and shardings of the abstract state."""

    step: int
    state: PyTree
    metadata: dict
    files: dict[str, bytes] = field(default_factory=dict)


class Checkpointer:
    """Saves and restores a run's state in `folder`, which may be `gs://`.

    Every process of a run constructs one and calls the same methods in the same order; process 0
    alone writes manifests, deletes, and verifies. Recoverable problems (a damaged checkpoint, which
    is skipped) are passed to `report`, a line each; others raise `CheckpointError`.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        config: Checkpointing,
        *,
        report: Callable[[str], None] = print,
    ):
        self.folder = epath.Path(folder)
        self._report = report
        self._checkpoints = CheckpointFolder(folder, config, report)
        self._store = ArrayStore()
        self._is_first = jax.process_index() == 0
        self._thread: threading.Thread | None = None
        self._failure: tuple[int, BaseException] | None = None
        self._current: int | None = None  # the step last saved or restored here

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.close()
        except CheckpointError as error:
            if kind is None:
                raise
            self._report(str(error))  # raised, it would hide the error that ended the run

    def save(
        self,
        step: int,
        state: PyTree,
        metadata: dict,
        metrics: dict | None = None,
        *,
        files: Mapping[str, bytes] | None = None,
        wait: bool = False,
    ) -> None:
        """Copies `state` to the host and writes it in the background as checkpoint `step`.

        The step last saved or restored here is not written again while it is undamaged: a run may
        be stopped right after a save.

        Args:
            step: number of steps done.
            state: a tree of arrays, which may be donated as soon as this returns.
            metadata: JSON values.
            metrics: evaluation results of this step.
            files: contents of further files by name.
            wait: return only when the checkpoint is complete.

        Raises:
            CheckpointError: this save cannot start, or the previous one failed.
        """
        self.wait()  # at most one save at a time, so memory holds one copy of the state
        if metrics:
            self.set_metrics(step, metrics)
        # `_from_first` returns the same on all processes, so all or none of them go on to save.
        if step == self._current and self._from_first(
            lambda: self._checkpoints.if_undamaged(step), 1
        ):
            return
        record = {"format": 1, "step": step, "tree": describe(state), "metadata": metadata}
        contents = {_RECORD: json.dumps(record, indent=1).encode()}
        contents |= {f"{_FILES}/{name}": data for name, data in (files or {}).items()}
        try:
            if self._is_first:
                self._checkpoints.begin(step)
            # Returns once the arrays are on the host; Orbax synchronises the processes.
            self._store.save(self._checkpoints.path_of(step) / _STATE, state)
        except Exception as error:
            raise self._cannot_write(step, error) from error
        self._thread = threading.Thread(
            target=self._finish, args=(step, contents), name=f"checkpoint {step}"
        )
        self._thread.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written; raises `CheckpointError` if the save failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raises the `CheckpointError` of a save that has failed; never waits."""
        if self._failure is not None:
            (step, error), self._failure = self._failure, None
            raise self._cannot_write(step, error) from error

    def close(self) -> None:
        """Waits for the save in progress and stops the threads; raises as `wait` does."""
        try:
            self.wait()
        finally:
            self._store.close()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return self._checkpoints.steps()

    def metrics(self) -> dict[int, dict[str, float]]:
        """Evaluation results by step, of the checkpoints that have any."""
        return self._checkpoints.metrics()

    def best_step(self) -> int | None:
        """The complete checkpoint with the best value of `config.best`; None where none has it."""
        return self._checkpoints.best()

    def has_metrics(self, step: int) -> bool:
        """Whether `step` was evaluated; the same answer in all processes."""
        return bool(self._from_first(lambda: [step] if step in self.metrics() else [], 1))

    def set_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds evaluation results to checkpoint `step`, which may be long after its save."""
        if self._is_first:
            self._checkpoints.set_metrics(step, metrics)

    def restore(self, abstract_state: PyTree, step: int | None = None) -> Restored | None:
        """Reads the newest undamaged checkpoint, or that of `step`; None where there is none.

        Args:
            abstract_state: the state's tree of `jax.ShapeDtypeStruct`s; its shardings may be those
                of another mesh than the one that the checkpoint was written on.
            step: which checkpoint; None: the newest undamaged one.

        Raises:
            CheckpointError: all checkpoints are damaged, or the one read does not fit.
        """
        step = self._select_step(step)
        if step is None:
            return None
        restored = self._read(step, abstract_state)
        self._current = step
        return restored

    def restore_subtrees(self, abstract: Mapping[str, PyTree], step: int | None = None) -> Restored:
        """Reads only some subtrees of the state, such as {"params": ..., "ema": ...}.

        An empty mapping reads the metadata and files alone. Arrays are cast to the types given.

        Raises:
            CheckpointError: there is no undamaged checkpoint, or a subtree does not fit.
        """
        step = self._select_step(step)
        if step is None:
            raise CheckpointError(f"no checkpoint in {self.folder}: train first")
        return self._read(step, dict(abstract), subtree=True)

    def restore_params(self, abstract_params: PyTree, step: int | None = None) -> PyTree:
        """Reads only the parameters; raises as `restore_subtrees` does."""
        return self.restore_subtrees({"params": abstract_params}, step).state["params"]

    def average_params(self, abstract_params: PyTree, last: int) -> PyTree:
        """Mean in float32 of the parameters of the `last` newest undamaged checkpoints.

        "Attention Is All You Need", section 6.1. Leaves that are not floating point are taken
        from the newest. If there are fewer checkpoints they are averaged, and that is reported.
        """
        self.wait()
        steps = self._from_first(lambda: self._checkpoints.newest_good(last), last)
        if not steps:
            raise CheckpointError(f"no checkpoint in {self.folder}: train first")
        if len(steps) < last and self._is_first:
            self._report(f"averaging {len(steps)} of the {last} checkpoints asked for")
        abstract = {"params": jax.tree.map(_float32, abstract_params)}
        # One checkpoint at a time: memory holds the running sum and one set of parameters.
        total = self._read(steps[0], abstract, subtree=True).state["params"]
        for step in steps[1:]:
            total = _add(total, self._read(step, abstract, subtree=True).state["params"])
        return _divide(total, np.float32(len(steps)))

    def _finish(self, step: int, contents: dict[str, bytes]) -> None:
        """In the background: waits for Orbax's commit, then completes the checkpoint."""
        try:
            self._store.wait()
            if self._is_first:
                self._checkpoints.finish(step, contents)
            self._current = step
        except BaseException as error:  # raised by the next `wait`, `check` or `save`
            self._failure = step, error
            return
        if self._is_first:
            self._checkpoints.prune(step)

    def _cannot_write(self, step: int, error: BaseException) -> CheckpointError:
        intact = [other_step for other_step in self.steps() if other_step != step]
        still = f"; checkpoint {intact[-1]} is still there" if intact else ""
        where = self._checkpoints.path_of(step)
        return CheckpointError(f"cannot write checkpoint {step} to {where}: {reason(error)}{still}")

    def _select_step(self, step: int | None) -> int | None:
        """The step to read, verified by process 0 and the same in every process."""
        self.wait()
        if step is None:
            steps = self._from_first(lambda: self._checkpoints.newest_good(1), 1)
        else:
            steps = self._from_first(lambda: self._checkpoints.require_undamaged(step), 1)
        return steps[0] if steps else None

    def _read(self, step: int, abstract: PyTree, *, subtree: bool = False) -> Restored:
        folder, files = self._checkpoints.path_of(step), {}
        where = f"checkpoint {step} in {self.folder}"
        try:
            record = json.loads((folder / _RECORD).read_text())
            check_fits(record["tree"], abstract, where, subtree=subtree)
            state = self._store.load(folder / _STATE, abstract)
            if (folder / _FILES).exists():
                files = {path.name: path.read_bytes() for path in (folder / _FILES).iterdir()}
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"{where} cannot be read: {reason(error)}") from error
        return Restored(step, state, record["metadata"], files)

    def _from_first(self, find: Callable[[], list[int]], size: int) -> list[int]:
        """The steps (at most `size`) that `find` returns on process 0; its error in all processes.

        Only process 0 looks at the files, so that all processes come to the same answer.
        """
        if jax.process_count() == 1:
            return find()
        # [status, step, step, ..., -1, -1]; status 0: success, -1: an error.
        message, error = np.full(size + 1, -1, np.int32), None
        if self._is_first:
            try:
                steps = find()
                message[: len(steps) + 1] = [0, *steps]
            except CheckpointError as failure:
                error = failure
        message = multihost_utils.broadcast_one_to_all(message)
        if message[0] == 0:
            return [int(step) for step in message[1:] if step >= 0]
        raise error or CheckpointError(f"no usable checkpoint in {self.folder} (see process 0)")


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _float32(leaf: Any) -> jax.ShapeDtypeStruct:
    dtype = jnp.float32 if _is_float(leaf) else leaf.dtype
    return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=getattr(leaf, "sharding", None))


@jax.jit
def _add(total: PyTree, params: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: a + b if _is_float(a) else a, total, params)


@jax.jit
def _divide(total: PyTree, count: np.ndarray) -> PyTree:
    return jax.tree.map(lambda a: a / count if _is_float(a) else a, total)

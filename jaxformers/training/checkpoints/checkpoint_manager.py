"""Checkpoints that survive: written in the background, verified before use, never half-loaded.

A checkpoint is the folder `<step>/` with `state/` (the arrays, by Orbax), `checkpoint.json` (the
caller's metadata and the tree's shapes), `files/` (a tokenizer, say) and `manifest.json`, which
comes last. Evaluation results, which arrive later, are kept beside them in `metrics.json`.
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
from jaxformers.training.checkpoints.array_store import StateStore, check_fits, describe
from jaxformers.training.checkpoints.directory import CheckpointFolder, Checkpointing
from jaxformers.training.run_lock import reason

__all__ = ["Checkpointer", "Checkpointing", "Restored"]

PyTree = Any
_RECORD, _STATE, _FILES = "checkpoint.json", "state", "files"


@dataclass(frozen=True)
class Restored:
    """A checkpoint as read: `state` has the tree, types and shardings that were asked for."""

    step: int
    state: PyTree
    metadata: dict
    files: dict[str, bytes] = field(default_factory=dict)


class Checkpointer:
    """Saves and restores a run's state in `folder`, which may be `gs://`.

    Every process of a run makes one and calls the same methods in the same order; process 0 alone
    writes manifests, deletes, and verifies. Problems that were got over are told through `report`,
    a line each; what cannot be got over raises `CheckpointError`.
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
        self._store = StateStore()
        self._first = jax.process_index() == 0
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
            self._report(str(error))  # what ended the run is not to be hidden behind it

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
        """Copy `state` to the host and write it in the background as checkpoint `step`.

        The arrays may be donated as soon as this returns. `metadata` is kept as JSON, `files` as
        they are. The step that was last saved or restored here is not written again while it is
        undamaged (a run that is stopped right after a save). Raises `CheckpointError` where this
        save cannot start or the one before it failed.
        """
        self.wait()
        if metrics:
            self.set_metrics(step, metrics)
        if step == self._current and self._agree(lambda: self._checkpoints.good(step), 1):
            return
        record = {"format": 1, "step": step, "tree": describe(state), "metadata": metadata}
        contents = {_RECORD: json.dumps(record, indent=1).encode()}
        contents |= {f"{_FILES}/{name}": data for name, data in (files or {}).items()}
        try:
            if self._first:
                self._checkpoints.begin(step)
            self._store.save(self._checkpoints.of(step) / _STATE, state)
        except Exception as error:
            raise self._cannot_write(step, error) from error
        self._thread = threading.Thread(
            target=self._finish, args=(step, contents), name=f"checkpoint {step}"
        )
        self._thread.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return when nothing is being written; raises `CheckpointError` if the save failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise the `CheckpointError` of a save that has failed; costs nothing, never waits."""
        if self._failure is not None:
            (step, error), self._failure = self._failure, None
            raise self._cannot_write(step, error) from error

    def close(self) -> None:
        """Finish what is being written and stop the threads; raises as `wait` does."""
        try:
            self.wait()
        finally:
            self._store.close()

    def steps(self) -> list[int]:
        """Steps of the checkpoints that were written to their end, oldest first."""
        return self._checkpoints.steps()

    def metrics(self) -> dict[int, dict[str, float]]:
        """Evaluation results by step, of the checkpoints that have any."""
        return self._checkpoints.metrics()

    def best_step(self) -> int | None:
        """The committed step with the best value of the metric `config.best`, if any has one."""
        return self._checkpoints.best()

    def set_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note evaluation results of checkpoint `step`, which may come long after its save."""
        if self._first:
            self._checkpoints.set_metrics(step, metrics)

    def restore(self, abstract_state: PyTree, step: int | None = None) -> Restored | None:
        """Read the newest undamaged checkpoint (or `step`), placed as `abstract_state` says.

        `abstract_state` is the state's tree of `jax.ShapeDtypeStruct`; its shardings may be those
        of another mesh. Returns None where no checkpoint was ever finished. Raises
        `CheckpointError` where there are checkpoints and none is good, or one does not fit.
        """
        found = self._choose(step)
        if found is None:
            return None
        restored = self._read(found, abstract_state)
        self._current = found
        return restored

    def parts(self, abstract: Mapping[str, PyTree], step: int | None = None) -> Restored:
        """Read only the named parts of the state, such as {"params": ..., "ema": ...}.

        An empty mapping reads the metadata and files alone. Types are cast to those asked for.
        Raises `CheckpointError` where there is no good checkpoint, or a part does not fit.
        """
        found = self._choose(step)
        if found is None:
            raise CheckpointError(f"no checkpoint in {self.folder}: train first")
        return self._read(found, dict(abstract), part=True)

    def params(self, abstract_params: PyTree, step: int | None = None) -> PyTree:
        """Read only the parameters, without the optimizer's state; raises as `parts` does."""
        return self.parts({"params": abstract_params}, step).state["params"]

    def average(self, abstract_params: PyTree, last: int) -> PyTree:
        """Mean in float32 of the parameters of the `last` newest good checkpoints.

        "Attention Is All You Need", section 6.1. Leaves that are not floating point are taken
        from the newest. Fewer checkpoints than asked for are averaged, and reported.
        """
        self.wait()
        steps = self._agree(lambda: self._checkpoints.newest_good(last), last)
        if not steps:
            raise CheckpointError(f"no checkpoint in {self.folder}: train first")
        if len(steps) < last and self._first:
            self._report(f"averaging {len(steps)} of the {last} checkpoints asked for")
        abstract = {"params": jax.tree.map(_float32, abstract_params)}
        total = self._read(steps[0], abstract, part=True).state["params"]
        for step in steps[1:]:
            total = _add(total, self._read(step, abstract, part=True).state["params"])
        return _divide(total, np.float32(len(steps)))

    def _finish(self, step: int, contents: dict[str, bytes]) -> None:
        """In the background: wait for Orbax's commit, then complete the checkpoint."""
        try:
            self._store.wait()
            if self._first:
                self._checkpoints.finish(step, contents)
            self._current = step
        except BaseException as error:
            self._failure = step, error
            return
        if self._first:
            self._checkpoints.prune(step)

    def _cannot_write(self, step: int, error: BaseException) -> CheckpointError:
        intact = [kept for kept in self.steps() if kept != step]
        still = f"; checkpoint {intact[-1]} is still there" if intact else ""
        where = self._checkpoints.of(step)
        return CheckpointError(f"cannot write checkpoint {step} to {where}: {reason(error)}{still}")

    def _choose(self, step: int | None) -> int | None:
        """The step to read, verified by process 0 and the same in every process."""
        self.wait()
        if step is None:
            chosen = self._agree(lambda: self._checkpoints.newest_good(1), 1)
        else:
            chosen = self._agree(lambda: self._checkpoints.verified(step), 1)
        return chosen[0] if chosen else None

    def _read(self, step: int, abstract: PyTree, *, part: bool = False) -> Restored:
        folder, files = self._checkpoints.of(step), {}
        where = f"checkpoint {step} in {self.folder}"
        try:
            record = json.loads((folder / _RECORD).read_text())
            check_fits(record["tree"], abstract, where, part=part)
            state = self._store.load(folder / _STATE, abstract)
            if (folder / _FILES).exists():
                files = {path.name: path.read_bytes() for path in (folder / _FILES).iterdir()}
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"{where} cannot be read: {reason(error)}") from error
        return Restored(step, state, record["metadata"], files)

    def _agree(self, find: Callable[[], list[int]], size: int) -> list[int]:
        """Process 0's answer (at most `size` steps) in every process, or its error in all."""
        if jax.process_count() == 1:
            return find()
        message, error = np.full(size + 1, -1, np.int32), None
        if self._first:
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
def _add(total: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: a + b if _is_float(a) else a, total, other)


@jax.jit
def _divide(total: PyTree, count: np.ndarray) -> PyTree:
    return jax.tree.map(lambda a: a / count if _is_float(a) else a, total)

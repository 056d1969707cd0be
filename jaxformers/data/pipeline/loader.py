"""One host's share of the batches from a given step on, through Grain."""

from __future__ import annotations

import atexit
import contextlib
import signal
import weakref
from collections.abc import Iterator
from typing import Any

import grain
from absl import flags

from jaxformers.data.pipeline.collate import Batch, Plan
from jaxformers.errors import DataError

ENDLESS = 2**40
SHARED_FROM = 2**26  # bytes of an array that workers hand over in shared memory


# Iterators that nobody closed end before Python takes the modules of their workers apart.
_OPEN: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for iterator in list(_OPEN):
        with contextlib.suppress(ValueError):  # another thread is inside it
            iterator.close()


class HostBatches:
    """Item i is this host's rows of the global batch of step `start` + i; random access."""

    def __init__(self, store: Any, plan: Plan, seed: int, start: int, host: int, hosts: int):
        self._store, self._plan = store, plan
        self._seed, self._start = seed, start
        self._host, self._hosts = host, hosts

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Batch:
        step = self._start + int(index)
        mine = self._plan.rows(self._seed, step) // self._hosts
        rows = slice(self._host * mine, (self._host + 1) * mine)
        return self._plan.batch(self._store, self._seed, step, rows)


def batches(
    store: Any,
    plan: Plan,
    *,
    seed: int,
    start: int = 0,
    host: int = 0,
    hosts: int = 1,
    workers: int = 0,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """This host's rows of the global batches of steps `start`, `start` + 1, ... without end.

    Host h gets rows [h * B / hosts, (h + 1) * B / hosts) of every batch of B rows. The batches
    depend on nothing but `store`, `plan`, `seed` and the step: not on hosts, workers or restarts,
    and a late start costs no skipping. Close the iterator to end its threads and processes.

    Args:
        store: what the plan looks examples up in, such as the ids of all pairs.
        plan: which examples stand in which batch.
        seed: of all shuffling.
        start: first step.
        host: index of this host.
        hosts: number of hosts.
        workers: processes that make the batches; 0 means a thread of this one, which is enough
            unless the host has other work for its interpreter. Processes are spawned, so a script
            that asks for them needs `if __name__ == "__main__":`.
        prefetch: batches made ahead (by each worker).

    Raises:
        DataError: the rows of a batch do not divide by `hosts`; later, a worker process died.
    """
    if not 0 <= host < hosts:
        raise DataError(f"host {host} of {hosts} hosts does not exist")
    for shapes in plan.shapes:
        rows = next(iter(shapes.values()))[0][0]
        if rows % hosts:
            raise DataError(
                f"{rows} rows a batch do not divide by {hosts} hosts: "
                f"use a multiple of {hosts}, such as {-(-rows // hosts) * hosts}"
            )
    source = HostBatches(store, plan, seed, start, host, hosts)
    iterator = _closing(_iterator(source, workers, prefetch))
    _OPEN.add(iterator)
    return iterator


def _iterator(source: HostBatches, workers: int, prefetch: int) -> Any:
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=max(prefetch, 1))
    dataset = grain.MapDataset.source(source).to_iter_dataset(reading)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags, outside absl too
            flags.FLAGS.mark_as_parsed()
        # Through pipes: shared memory is no faster at this size, and closing can leak it.
        piped = grain.experimental.DatasetOptions(min_shm_size=SHARED_FROM)
        dataset = grain.experimental.WithOptionsIterDataset(dataset, piped)
        options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=max(prefetch, 1))
        dataset = dataset.mp_prefetch(options, worker_init_fn=_ignore_interrupts)
    return iter(dataset)


def _ignore_interrupts(worker: int, workers: int) -> None:
    """Ctrl-C is for the main process, which saves its state and then closes the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _closing(iterator: Any) -> Iterator[Batch]:
    try:
        yield from iterator
    except RuntimeError as error:
        if "Worker process" not in str(error):
            raise
        raise DataError(
            "a worker process of the data pipeline died: a script with workers needs "
            "`if __name__ == '__main__':` around what it runs; or use workers=0"
        ) from error
    finally:
        iterator.close()

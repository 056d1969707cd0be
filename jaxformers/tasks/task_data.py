"""Data that a task has opened: examples, the plan of their batches, and what belongs to a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxformers.data import Batch, Plan, batches
from jaxformers.tasks.processor import Processor


@dataclass
class PlannedData:
    """A `TaskData` but for the line that describes it."""

    store: Any
    """The examples, by their indices."""
    plan: Plan
    processor: Processor
    workers: int = 0
    """Processes that prepare batches; 0: a thread."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The examples, what was made of them, and the plan."""
        return {**self.store.fingerprint, "plan": self.plan.fingerprint}

    @property
    def steps_per_epoch(self) -> float:
        """Batches of an epoch, by the plan."""
        return self.plan.steps_per_epoch

    def batches(self, seed: int, start: int, host: int, hosts: int) -> Iterator[Batch]:
        """This host's rows of batch `start` and all after it."""
        position = {"start": start, "host": host, "hosts": hosts}
        return batches(self.store, self.plan, seed=seed, workers=self.workers, **position)

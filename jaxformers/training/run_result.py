"""`RunResult`, what `train` returns, and `Diverged`, the error of a loss that is not finite."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from etils import epath

from jaxformers.errors import UserError
from jaxformers.tasks.evaluator import Evaluation


class Diverged(UserError):
    """The loss or the gradient norm is not finite; the last checkpoint before it is intact."""


@dataclass
class RunResult:
    """The outcome of one call of `train`."""

    folder: epath.Path
    step: int
    finished: bool
    """False where a signal stopped the run before its last step."""
    evaluation: Evaluation | None = None
    losses: dict[int, float] = field(default_factory=dict)
    """Loss of each step made by this call, by step."""
    variables: Any = None
    """The final weights, sharded over the mesh; None when the run was stopped early."""
    wall_time: str = ""
    """Time since the run was first started, and its share of each kind of work."""
    after: list[RunResult] = field(default_factory=list)
    """Results of the follow-up runs, in order."""

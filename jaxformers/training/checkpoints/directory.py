"""The checkpoints in one folder: which are there, which are good, which are kept, their metrics."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from etils import epath

from jaxformers.errors import CheckpointError
from jaxformers.training.checkpoints import manifest
from jaxformers.training.run_lock import reason

_METRICS = "metrics.json"


@dataclass(frozen=True)
class Checkpointing:
    """How often a run saves its state, and which checkpoints it keeps."""

    every: int = 1000
    """Steps between two checkpoints."""
    keep_last: int = 3
    """How many of the newest checkpoints to keep (at least 1)."""
    keep_best: int = 1
    """How many of the best checkpoints to keep besides, by the metric `best`."""
    best: str = ""
    """Metric that ranks checkpoints, such as "bleu"; empty: none is kept for its quality."""
    mode: Literal["max", "min"] = "max"
    """Whether the higher (max) or the lower (min) value of `best` is better."""

    def kept(self, steps: list[int], metrics: Mapping[int, Mapping[str, float]]) -> set[int]:
        """Which of the committed `steps` stay, by `keep_last` and `keep_best`."""
        last = sorted(steps)[-max(1, self.keep_last) :]
        return {*last, *self.ranked(steps, metrics)[: max(0, self.keep_best)]}

    def ranked(self, steps: list[int], metrics: Mapping[int, Mapping[str, float]]) -> list[int]:
        """The `steps` that have the metric `best`, best first; the newer one where they tie."""
        values = {step: metrics.get(step, {}).get(self.best, math.nan) for step in steps}
        sign = 1 if self.mode == "max" else -1
        known = [step for step, value in values.items() if not math.isnan(value)]
        return sorted(known, key=lambda step: (sign * values[step], step), reverse=True)


class CheckpointFolder:
    """What one process (the first of a run) knows and does about the checkpoints in `path`."""

    def __init__(self, path: epath.PathLike, config: Checkpointing, report: Callable[[str], None]):
        self.path = epath.Path(path)
        self._config = config
        self._report = report
        self._damaged: set[int] = set()
        self._lock = threading.RLock()  # metrics come from the loop, deletions from behind it

    def of(self, step: int) -> epath.Path:
        """The folder of checkpoint `step`."""
        return self.path / str(step)

    def all_steps(self) -> list[int]:
        """Steps that have a folder, finished or not, oldest first."""
        if not self.path.exists():
            return []
        return sorted(int(child.name) for child in self.path.iterdir() if child.name.isdecimal())

    def steps(self) -> list[int]:
        """Steps that were written to their end, oldest first."""
        return [step for step in self.all_steps() if manifest.is_complete(self.of(step))]

    # Metrics

    def metrics(self) -> dict[int, dict[str, float]]:
        """Evaluation results by step."""
        try:
            rows = json.loads((self.path / _METRICS).read_text())
            return {int(step): dict(values) for step, values in rows.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError):
            self._report(f"{self.path / _METRICS} cannot be read; its results are ignored")
            return {}

    def set_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add evaluation results to those of `step`; raises `CheckpointError`."""
        with self._lock:
            rows = self.metrics()
            rows[step] = {**rows.get(step, {}), **{k: float(v) for k, v in metrics.items()}}
            text = json.dumps({str(each): rows[each] for each in sorted(rows)})
            partial = self.path / f"{_METRICS}.partial"
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                partial.write_text(text)
                partial.replace(self.path / _METRICS)
            except OSError as error:
                where = self.path / _METRICS
                raise CheckpointError(f"cannot write {where}: {reason(error)}") from error

    def best(self) -> int | None:
        """The finished step that ranks first, or None where none has the metric."""
        return next(iter(self._config.ranked(self.steps(), self.metrics())), None)

    # Which are good

    def newest_good(self, count: int) -> list[int]:
        """The newest `count` undamaged steps, newest first; reports those it passed over.

        Raises `CheckpointError` where checkpoints were finished and none of them is good. Empty
        where none was ever finished.
        """
        good, problems, lost = [], [], False
        for step in reversed(self.all_steps()):
            damage = manifest.damage(self.of(step))
            if damage is None:
                self._tell(problems, f"using {step}")
                good.append(step)
                problems = []
            elif manifest.never_finished(self.of(step)):
                problems.append(f"checkpoint {step} is half-written ({damage})")
            else:
                problems.append(f"checkpoint {step} is damaged ({damage})")
                self._damaged.add(step)
                lost = True
            if len(good) == count:
                break
        if lost and not good:
            raise CheckpointError(f"no usable checkpoint in {self.path}: {'; '.join(problems)}")
        self._tell(problems, "there is no older one")
        return good

    def verified(self, step: int) -> list[int]:
        """[`step`], or `CheckpointError` where it is not there or damaged."""
        if step not in self.all_steps():
            there = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(f"no checkpoint {step} in {self.path}; there: {there}")
        if damage := manifest.damage(self.of(step)):
            raise CheckpointError(f"checkpoint {step} in {self.path} is damaged ({damage})")
        return [step]

    def good(self, step: int) -> list[int]:
        """[`step`] where it is there and undamaged, else nothing."""
        return [step] if manifest.damage(self.of(step)) is None else []

    # Writing and deleting

    def begin(self, step: int) -> None:
        """Make room for checkpoint `step`, and clear what earlier saves left unfinished."""
        for other in self.all_steps():
            if manifest.never_finished(self.of(other)):
                manifest.remove(self.of(other))
        manifest.begin(self.of(step))

    def finish(self, step: int, contents: Mapping[str, bytes]) -> None:
        """Write the files that stand beside the arrays, then the manifest."""
        for name, data in contents.items():
            path = self.of(step) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        manifest.write(self.of(step))
        self._damaged.discard(step)

    def prune(self, newest: int) -> None:
        """Delete what the configuration does not keep, now that `newest` is finished.

        Steps beyond `newest` stay (they are of another course of the run) unless found damaged.
        """
        with self._lock:
            good = [s for s in self.steps() if s <= newest and s not in self._damaged]
            kept = self._config.kept(good, self.metrics() if self._config.best else {})
            for step in self.all_steps():
                if step in kept or (step > newest and step not in self._damaged):
                    continue
                try:
                    manifest.remove(self.of(step))
                    self._damaged.discard(step)
                except OSError as error:
                    self._report(f"cannot delete checkpoint {step}: {reason(error)}")

    def _tell(self, problems: list[str], outcome: str) -> None:
        for problem in problems:
            self._report(f"{problem}; {outcome}")

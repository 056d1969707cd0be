"""The checkpoints in one folder: listing, verification, retention, their metrics."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from etils import epath

from jaxformers.errors import CheckpointError
from jaxformers.fields import INT32_MAX, CheckedFields, NonNegativeInt, PositiveInt
from jaxformers.training.checkpoints import manifest
from jaxformers.training.stored_files import DamagedFile, read_json, reason

_METRICS = "metrics.json"
_STEP = "0|[1-9][0-9]{0,9}"


@dataclass(frozen=True)
class Checkpointing(CheckedFields):
    """How often a run saves its state, and which checkpoints it keeps."""

    every: PositiveInt = 1000
    """Steps between two checkpoints."""
    keep_last: PositiveInt = 3
    """How many of the newest checkpoints to keep ."""
    keep_best: NonNegativeInt = 1
    """How many of the best checkpoints to keep besides, by the metric `best`."""
    best: str = ""
    """Metric that ranks checkpoints, such as "bleu"; empty: none is kept for its quality."""
    mode: Literal["max", "min"] = "max"
    """Whether the higher (max) or the lower (min) value of `best` is better."""

    def retained(self, steps: list[int], metrics: Mapping[int, Mapping[str, float]]) -> set[int]:
        """The complete `steps` to keep, by `keep_last` and `keep_best`."""
        last = sorted(steps)[-self.keep_last :]
        return {*last, *self.rank(steps, metrics)[: self.keep_best]}

    def rank(self, steps: list[int], metrics: Mapping[int, Mapping[str, float]]) -> list[int]:
        """The `steps` that have the metric `best`, best first; of equal ones the newer first."""
        values = {step: metrics.get(step, {}).get(self.best, math.nan) for step in steps}
        sign = 1 if self.mode == "max" else -1
        measured = [step for step, value in values.items() if not math.isnan(value)]
        return sorted(measured, key=lambda step: (sign * values[step], step), reverse=True)


class CheckpointFolder:
    """The checkpoints in `path`, as process 0 of a run manages them."""

    def __init__(self, path: epath.PathLike, config: Checkpointing, report: Callable[[str], None]):
        self.path = epath.Path(path)
        self._config = config
        self._report = report
        self._damaged: set[int] = set()
        # `set_metrics` is called by the training loop, `prune` by the thread that writes.
        self._lock = threading.RLock()

    def path_of(self, step: int) -> epath.Path:
        """The folder of checkpoint `step`."""
        return self.path / str(step)

    def all_steps(self) -> list[int]:
        """Steps that have a folder, complete or not, oldest first.

        Raises:
            CheckpointError: a file stands where the folder of the checkpoints belongs.
        """
        if not self.path.exists():
            return []
        if not self.path.is_dir():
            raise CheckpointError(
                f"{self.path} is a file where the folder of the checkpoints belongs; remove it to "
                "start anew"
            )
        names = (child.name for child in self.path.iterdir())
        steps = (int(name) for name in names if re.fullmatch(_STEP, name))
        return sorted(step for step in steps if step <= INT32_MAX)

    def steps(self) -> list[int]:
        """Steps of complete checkpoints, oldest first."""
        return [step for step in self.all_steps() if manifest.is_complete(self.path_of(step))]

    # Metrics

    def metrics(self) -> dict[int, dict[str, float]]:
        """Evaluation results by step."""
        try:
            rows = read_json(self.path / _METRICS)
            return {
                int(step): {str(name): float(value) for name, value in values.items()}
                for step, values in rows.items()
            }
        except FileNotFoundError:
            return {}
        except (DamagedFile, ValueError, TypeError, AttributeError, OverflowError):
            self._report(f"{self.path / _METRICS} cannot be read; its results are ignored")
            return {}

    def set_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds evaluation results to those of `step`; raises `CheckpointError`."""
        with self._lock:
            rows = self.metrics()
            rows[step] = {**rows.get(step, {}), **{k: float(v) for k, v in metrics.items()}}
            text = json.dumps({str(key): rows[key] for key in sorted(rows)})
            partial = self.path / f"{_METRICS}.partial"
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                # Renamed into place, so that a kill never leaves half a file.
                partial.write_text(text)
                partial.replace(self.path / _METRICS)
            except OSError as error:
                where = self.path / _METRICS
                raise CheckpointError(f"cannot write {where}: {reason(error)}") from error

    def best(self) -> int | None:
        """The complete checkpoint that ranks first; None where none has the metric."""
        return next(iter(self._config.rank(self.steps(), self.metrics())), None)

    # Verification

    def newest_good(self, count: int) -> list[int]:
        """The newest `count` undamaged steps, newest first; reports the steps that it skips.

        Empty where no checkpoint was ever completed.

        Raises:
            CheckpointError: checkpoints were completed, and all are damaged: starting afresh would
                silently discard them.
        """
        good, problems, lost = [], [], False
        for step in reversed(self.all_steps()):
            damage = manifest.find_damage(self.path_of(step))
            if damage is None:  # also explains the steps that were skipped before it
                self._report_each(problems, f"using {step}")
                good.append(step)
                problems = []
            elif manifest.never_finished(self.path_of(step)):
                # A killed run leaves one; nothing is lost that was ever complete.
                problems.append(f"checkpoint {step} is half-written ({damage})")
            else:
                problems.append(f"checkpoint {step} is damaged ({damage})")
                self._damaged.add(step)
                lost = True
            if len(good) == count:
                break
        if lost and not good:
            raise CheckpointError(
                f"no usable checkpoint in {self.path}: {'; '.join(problems)}; put an undamaged "
                "copy there, or remove that folder to train from the first step again"
            )
        self._report_each(problems, "there is no older one")
        return good

    def require_undamaged(self, step: int) -> list[int]:
        """[`step`]; raises `CheckpointError` where it is missing or damaged."""
        if step not in self.all_steps():
            there = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(f"no checkpoint {step} in {self.path}; there: {there}")
        if damage := manifest.find_damage(self.path_of(step)):
            raise CheckpointError(f"checkpoint {step} in {self.path} is damaged ({damage})")
        return [step]

    def if_undamaged(self, step: int) -> list[int]:
        """[`step`], or [] where it is missing or damaged."""
        return [step] if manifest.find_damage(self.path_of(step)) is None else []

    # Writing and deleting

    def begin(self, step: int) -> None:
        """Prepares the folder of checkpoint `step`; removes incomplete ones of earlier saves."""
        for other_step in self.all_steps():
            if manifest.never_finished(self.path_of(other_step)):
                manifest.remove(self.path_of(other_step))
        manifest.begin(self.path_of(step))

    def finish(self, step: int, contents: Mapping[str, bytes]) -> None:
        """Writes the files next to the arrays, then the manifest: the checkpoint is complete."""
        for name, data in contents.items():
            path = self.path_of(step) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        manifest.write(self.path_of(step))
        self._damaged.discard(step)

    def prune(self, newest: int) -> None:
        """Deletes what the configuration does not retain, now that `newest` is complete.

        Steps beyond `newest`, which an earlier and longer start of the run made, stay unless they
        are damaged.
        """
        with self._lock:
            good = [s for s in self.steps() if s <= newest and s not in self._damaged]
            retained = self._config.retained(good, self.metrics() if self._config.best else {})
            for step in self.all_steps():
                if step in retained or (step > newest and step not in self._damaged):
                    continue
                try:
                    manifest.remove(self.path_of(step))
                    self._damaged.discard(step)
                except OSError as error:
                    self._report(f"cannot delete checkpoint {step}: {reason(error)}")

    def _report_each(self, problems: list[str], outcome: str) -> None:
        for problem in problems:
            self._report(f"{problem}; {outcome}")

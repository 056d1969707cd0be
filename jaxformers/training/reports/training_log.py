"""Training logs: progress bar or plain lines on the terminal, JSONL metrics, TensorBoard events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from time import perf_counter

import jax
from etils import epath
from rich.console import Console

from jaxformers.fields import CheckedFields, PositiveInt
from jaxformers.training.reports.progress import Bar, Lines, duration
from jaxformers.training.reports.run_files import EVALUATION, RunFiles

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
COMPILE_SECONDS = 0.1  # shorter compilations do not make a step unusual


@dataclass(frozen=True)
class Logging(CheckedFields):
    """What a run writes about itself, and how often."""

    every: PositiveInt = 50
    """Steps between two lines of metrics."""
    tensorboard: bool = True
    """Write TensorBoard event files beside metrics.jsonl."""
    profile_at: PositiveInt | None = None
    """Record a profile (folder `profile`, for TensorBoard or XProf) once this step is done."""
    profile_steps: PositiveInt = 3
    """How many steps the profile covers."""


@dataclass
class MetricsLog:
    """Logs a run's steps to the terminal, metrics.jsonl, log.txt and TensorBoard.

    Make it just before the loop: what passes until the first step is ready is logged as
    `compile_seconds` and kept out of the rates, as is any later step that compiles a program.
    A line is written after step 1, after each `config.every` steps and after the last step,
    wherever a start began. Its keys: `step`, `time` (Unix seconds), the step's own metrics and
    `goodput` (the steps' share of the wall time, restarts included), `steps/s`,
    `<unit>/s`, `<unit>/s/chip`, `flops/s` and `mfu` where known, `data_wait` (share of the time),
    `memory_bytes` and `peak_memory_bytes` (of the fullest local device, where it tells),
    `compile_seconds`. A value that is not finite is null.

    Attributes:
        folder: the run's folder.
        config: what to write, how often.
        total_steps: the step at which the run ends.
        start_step: steps done before this start; lines past it in metrics.jsonl are dropped.
        evaluate_again: whether the evaluation of `start_step` is made by this start.
        expected_digest: of metrics.jsonl when the checkpoint of `start_step` was saved.
        unit: what a batch is counted in.
        flops_per_step: model FLOPs of one step (`jaxformers.costs.model_flops`).
        chips: number of chips of the whole run.
        peak: FLOP/s of all chips together, None where not known.
        main: False on all processes but the first: every call then does nothing.
        name: shown before the bar.
        console: where to print; standard output by default.

    Raises:
        CheckpointError: from any call, when the folder cannot be written.
    """

    folder: epath.Path
    config: Logging
    _: KW_ONLY
    total_steps: int
    start_step: int = 0
    evaluate_again: bool = False
    expected_digest: str | None = None
    unit: str = "tokens"
    flops_per_step: float | None = None
    chips: int = 1
    peak: float | None = None
    main: bool = True
    name: str = ""
    # In Jupyter rich would display every line as an output of its own, beside standard output.
    console: Console = field(
        default_factory=lambda: Console(highlight=False, soft_wrap=True, force_jupyter=False)
    )

    def __post_init__(self) -> None:
        self._last_step = self.start_step
        self._profiling = False
        self._open = self.main
        if not self.main:
            return
        self._files = RunFiles(
            self.folder, self.start_step, self.config.tensorboard, self.evaluate_again
        )
        self._clock = _Clock()
        kind = Bar if self.console.is_terminal else Lines
        self._display = kind(self.console, self.name, self.start_step, self.total_steps)
        if damaged := self._files.num_damaged:
            self.message(f"metrics.jsonl: {damaged} damaged line{'s' * (damaged > 1)} dropped")
        elif self.expected_digest not in (None, self._files.resumed_digest):
            self.message(
                f"metrics.jsonl was changed since checkpoint {self.start_step} was saved: its "
                "lines may be wrong or missing"
            )

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(
        self,
        step: int,
        metrics: Mapping[str, float],
        units: float,
        waited: float = 0.0,
        flops: float | None = None,
    ) -> None:
        """Record that step `step` (counted from 1) is ready.

        Args:
            step: number of steps done, this one included.
            metrics: the step's scalars (`loss`, `learning_rate`, ...); read only when shown.
            units: how many units (tokens) the step's whole batch held.
            waited: seconds the loop waited for this step's batch.
            flops: model FLOPs of this step; None: `flops_per_step`.
        """
        if not self._open:
            return
        first = self._last_step == self.start_step
        self._last_step = step
        self._clock.tick(units, waited, flops or self.flops_per_step or 0.0, first)
        # The same steps as in a run that was never interrupted.
        due = step == 1 or step % self.config.every == 0 or step == self.total_steps
        if due:
            self._write(step, {key: float(value) for key, value in metrics.items()})
        self._display.step(step, metrics, self._rates_text(step), due or first)
        self._profile(step)

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records the evaluation of `step`, as `eval/name`, and prints it as a line."""
        if not self._open:
            return
        tagged = {f"{EVALUATION}{key}": float(value) for key, value in metrics.items()}
        self._files.metrics({"step": step, "time": time.time(), **tagged})
        self._files.scalars(step, tagged)
        if line := ", ".join(f"{key} {value:.4g}" for key, value in tagged.items()):
            self.message(f"step {step}: {line}")

    def message(self, text: str) -> None:
        """Print a line above the progress bar and append it to log.txt."""
        if not self._open:
            return
        self._display.line(text)
        self._files.text(text)

    def digest(self) -> str:
        """SHA-256 of metrics.jsonl, for `expected_digest` of a later start."""
        return self._files.digest() if self._open else ""

    def seal(self) -> None:
        """Marks metrics.jsonl as complete: a change of it is noticed from here on."""
        if self._open:
            self._files.seal()

    def upload(self) -> None:
        """Begin to copy what was logged to a remote folder: a run goes on from its checkpoints."""
        if self._open:
            self._files.upload()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keep what runs inside (an evaluation, say) out of the rates."""
        if not self._open:
            yield
            return
        with self._clock.paused():
            yield

    def close(self) -> None:
        """End the bar, a profile under way and the files; a second call does nothing."""
        if not self._open:
            return
        self._open = False
        self._display.close()
        self._clock.close()
        if self._profiling:
            jax.profiler.stop_trace()
        self._files.close()

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        """Write the line of a step that is due, and begin the next window of the rates."""
        record = {**metrics, **self._rates(), **_memory()}
        self._clock.begin()
        self._files.metrics({"step": step, "time": time.time(), **record})
        self._files.scalars(step, {f"train/{key}": value for key, value in record.items()})

    def _rates(self) -> dict[str, float]:
        """Rates since the last line; none where all its steps compiled."""
        clock = self._clock
        rates: dict[str, float] = {}
        if clock.compiling:
            rates["compile_seconds"] = clock.compiling
        if not clock.seconds:
            return rates
        steps, units = clock.steps / clock.seconds, clock.units / clock.seconds
        rates |= {"steps/s": steps, f"{self.unit}/s": units}
        rates |= {f"{self.unit}/s/chip": units / self.chips}
        if clock.flops:
            rates["flops/s"] = clock.flops / clock.seconds
        if clock.flops and self.peak:
            rates["mfu"] = rates["flops/s"] / self.peak
        return rates | {"data_wait": clock.waited / clock.seconds}

    def _rates_text(self, step: int) -> tuple[str, str]:
        """`4,812 tokens/s` and the time left, by the steady steps of this start so far."""
        clock = self._clock
        if not clock.all_seconds:
            return "", ""
        left = (self.total_steps - step) * clock.all_seconds / clock.all_steps
        return f"{clock.all_units / clock.all_seconds:,.0f} {self.unit}/s", duration(left)

    def _profile(self, step: int) -> None:
        """Start or stop the profiler where the configuration says so."""
        at = self.config.profile_at
        if at is None:
            return
        if self._profiling and step >= self._profile_end:
            jax.profiler.stop_trace()
            self._profiling = False
            self.message(f"profile of {self.config.profile_steps} steps: {self.folder / 'profile'}")
        elif step == at:
            self._profile_end = step + self.config.profile_steps
            jax.profiler.start_trace(str(self._files.stage / "profile"))
            self._profiling = True


class _Clock:
    """Time, steps, units and waiting of the steady steps, per window and in all.

    A step is steady when no program was compiled while it ran; the first one never is.
    """

    def __init__(self) -> None:
        self.all_seconds = self.all_units = 0.0
        self.all_steps = 0
        self._compiled = 0.0
        self._last = perf_counter()
        self.begin()
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def begin(self) -> None:
        """Starts a new window of measurements."""
        self.steps = 0
        self.seconds = self.units = self.waited = self.flops = self.compiling = 0.0

    def tick(self, units: float, waited: float, flops: float, first: bool) -> None:
        """Count the step that has just become ready."""
        now = perf_counter()
        spent, self._last = now - self._last, now
        compiled, self._compiled = self._compiled, 0.0
        if first or compiled > COMPILE_SECONDS:
            self.compiling += spent
            return
        self.steps += 1
        self.seconds += spent
        self.units += units
        self.waited += waited
        self.flops += flops
        self.all_steps += 1
        self.all_seconds += spent
        self.all_units += units

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take what passes inside out of the step under way, compilations too."""
        start, compiled = perf_counter(), self._compiled
        try:
            yield
        finally:
            self._last += perf_counter() - start
            self._compiled = compiled

    def close(self) -> None:
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event: str, seconds: float, **_: object) -> None:
        if event == COMPILE_EVENT:
            self._compiled += seconds


def _memory() -> dict[str, float]:
    """Current and peak bytes in use on the fullest local device; {} if no device reports them."""
    stats = [s for device in jax.local_devices() if (s := device.memory_stats())]
    names = {"memory_bytes": "bytes_in_use", "peak_memory_bytes": "peak_bytes_in_use"}
    return {
        key: max(device[name] for device in stats if name in device)
        for key, name in names.items()
        if any(name in device for device in stats)
    }

"""How a run shows itself while it trains: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

REFRESH_SECONDS = 0.1


class Bar:
    """A live line on a terminal: step, loss, rate, time passed and left."""

    def __init__(self, console: Console, name: str, step: int, total: int):
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}  {task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            refresh_per_second=4,
            expand=True,
        )
        fields = {"loss": "compiling", "rate": "", "left": ""}
        self._task = self._progress.add_task(name or "train", total=total, completed=step, **fields)
        self._progress.start()
        self._shown = 0.0

    def step(
        self, step: int, metrics: Mapping[str, float], rates: tuple[str, str], due: bool
    ) -> None:
        """Show a step: always when `due`, otherwise at most ten times a second."""
        now = time.monotonic()
        if not due and now - self._shown < REFRESH_SECONDS:
            return
        self._shown = now
        rate, left = rates
        loss = f"loss {float(metrics['loss']):.4f}" if "loss" in metrics else ""
        left = f"{left} left" if left else ""
        self._progress.update(self._task, completed=step, loss=loss, rate=rate, left=left)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False)

    def close(self) -> None:
        """Leave the bar as it is and the terminal as it was."""
        self._progress.stop()


class Lines:
    """Plain lines, for a file or a pipe."""

    def __init__(self, console: Console, name: str, step: int, total: int):
        self._console, self._total = console, total
        self._name = f"{name}: " if name else ""

    def step(
        self, step: int, metrics: Mapping[str, float], rates: tuple[str, str], due: bool
    ) -> None:
        """Print a line when `due`."""
        if not due:
            return
        rate, left = rates
        fields = [f"{self._name}step {step}/{self._total}"]
        fields += [
            f"{key.replace('_', ' ')} {float(metrics[key]):.4g}"
            for key in ("loss", "learning_rate")
            if key in metrics
        ]
        fields += [rate, f"{left} left"] if left else []
        self.line("  ".join(fields))

    def line(self, text: str) -> None:
        """Prints a line of the log."""
        self._console.print(text, markup=False)

    def close(self) -> None:
        """Does nothing: plain lines need no end."""


def duration(seconds: float) -> str:
    """Show seconds as `1:02:03` or `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

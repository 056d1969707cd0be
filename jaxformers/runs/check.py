"""`jaxformers check`: after changing a model, does it still shard, train and match?

Five questions, a line each, on eight devices (emulated ones will do): does every parameter of the
full-size model have its sharding row, divide, and lie as before; does the small model give the
numbers of its golden file; does it train the same on a mesh as on one device; is every collective
of its train step explained; does XLA compile it without a warning of waste. The small model is
the rehearsal's, with parameters in which nothing is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from jaxformers.costs.xla_warnings import uncached
from jaxformers.errors import ConfigError, UserError
from jaxformers.runs import check_sharding, check_steps, golden
from jaxformers.runs.check_subject import Fault, Subject
from jaxformers.training.experiment import Experiment

DEVICES = 8


class Finding(NamedTuple):
    """What one part of a check found."""

    part: str
    ok: bool
    text: str

    def __str__(self) -> str:
        """The line that is printed."""
        return f"{self.part + ':':13} {'ok' if self.ok else 'FAILED'}: {self.text}"


PARTS: dict[str, Callable[[Subject], str]] = {
    "sharding": check_sharding.sharding,
    "outputs": check_steps.outputs,
    "training": check_steps.training,
    "collectives": check_steps.explained_collectives,
    "waste": check_steps.waste,
}


def check(
    experiment: Experiment,
    file: str | Path | None = None,
    update: bool = False,
    report: Callable[[str], None] = print,
) -> list[Finding]:
    """Checks an experiment and reports a line for each part.

    Args:
        experiment: the full-size one; it is shrunk here.
        file: its file, beside which its golden file is looked for first.
        update: write the golden file from what is found, rather than compare with it.
        report: is given each line as it is known.

    Raises:
        UserError: fewer than eight devices, or `update` without a file.
    """
    if jax.device_count() < DEVICES:
        raise ConfigError(
            f"check needs 8 devices and JAX has {jax.device_count()}; set "
            "jax.config.update('jax_num_cpu_devices', 8) before it is first used"
        )
    if update and file is None:
        raise ConfigError("a golden file is made beside an experiment file; give its path")
    path = None if update else golden.find(experiment, Path(file) if file else None)
    subject = Subject(experiment, golden.read(path) if path else {}, update)
    findings = []
    with uncached():
        for question, ask in PARTS.items():
            findings.append(_asked(question, ask, subject))
            report(str(findings[-1]))
    if update:
        findings.append(_updated(subject, findings, golden.place(experiment, Path(file))))
        report(str(findings[-1]))
    return findings


def _asked(question: str, ask: Callable[[Subject], str], subject: Subject) -> Finding:
    try:
        return Finding(question, True, ask(subject))
    except (Fault, UserError) as error:
        return Finding(question, False, " ".join(str(error).split()))
    except Exception as error:  # whatever the change to the model broke, in a line
        lines = str(error).strip().splitlines() or ["no message"]
        return Finding(question, False, f"{type(error).__name__}: {lines[0]}")


def _updated(subject: Subject, findings: list[Finding], path: Path) -> Finding:
    if not all(finding.ok for finding in findings):
        return Finding("golden file", False, f"{path} is not written while a part fails")
    golden.write(path, subject.measured)
    return Finding("golden file", True, f"written to {path}")

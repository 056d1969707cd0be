"""The training loop: mesh -> data -> state -> step, step, step -> checkpoint, metrics, report.

It reads top to bottom. What a run leaves in its folder: `experiment.json`, `tokenizer/`,
`checkpoints/`, `metrics.jsonl`, `log.txt`, `status.json` (where it stands), event files, `model/`
(the final weights, for `from_pretrained`) and `report.md`.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxformers.allocator import keep_freed_memory
from jaxformers.costs import chips_in, model_flops, peak_flops
from jaxformers.errors import UserError
from jaxformers.layers import told_backends
from jaxformers.pod.peer_monitor import Link
from jaxformers.sharding import make_mesh, path_text, put_batch
from jaxformers.tasks.base import Evaluation
from jaxformers.training import run_directory
from jaxformers.training.checkpoints.checkpoint_manager import Checkpointer
from jaxformers.training.experiment import Experiment
from jaxformers.training.follow_up_runs import begun_from
from jaxformers.training.reports.final_summary import closing_lines
from jaxformers.training.reports.goodput import Goodput
from jaxformers.training.reports.heartbeat import Heartbeat, spent_before
from jaxformers.training.reports.multi_run_report import report_together, summary
from jaxformers.training.reports.report import report_run
from jaxformers.training.reports.training_log import MetricsLog
from jaxformers.training.run_lock import RunLock
from jaxformers.training.signals import StopSignals
from jaxformers.training.state import TrainState, init_state, started_from
from jaxformers.training.step import jit_step, make_step, make_transformation

IN_FLIGHT = 2  # more unfinished steps than this can deadlock emulated devices, and help nobody


class Diverged(UserError):
    """A loss or gradient that is not a number; the last checkpoint before it stands."""


@dataclass
class RunResult:
    """How a run ended."""

    folder: epath.Path
    step: int
    finished: bool
    evaluation: Evaluation | None = None
    losses: dict[int, float] = field(default_factory=dict)
    """Loss of each step made in this start."""
    variables: Any = None
    """The final weights, where they lie on the mesh; None when stopped early."""
    wall_time: str = ""
    """Since the run was first started, and the share of each kind of work."""
    after: list[RunResult] = field(default_factory=list)
    """Results of the runs that followed."""


def train(
    experiment: Experiment, folder: epath.PathLike | None = None, link: Link | None = None
) -> RunResult:
    """Trains from the newest checkpoint in `folder`, or from the start, to the last step.

    Args:
        experiment: what to run.
        folder: where; by default `runs/<name>`.
        link: to the other hosts, in a pod.

    Raises:
        UserError: what a person can mend, in one line; `Diverged` when a number is not finite.
    """
    folder, link = epath.Path(folder or epath.Path("runs") / experiment.name), link or Link()
    mesh = make_mesh(experiment.mesh)
    keep_freed_memory(jax.default_backend() == "cpu")
    with RunLock(folder), jax.set_mesh(mesh):
        run_directory.check_experiment(folder, experiment)
        result = _Run(experiment, folder, mesh, link).train()
    link.began = time.time()  # of the run that follows
    for following in experiment.after if result.finished else ():
        result.after.append(train(begun_from(following, folder), folder / following.name, link))
        result.finished = result.after[-1].finished
        if not result.finished:
            break
    if experiment.after and result.finished and jax.process_index() == 0:
        folders = [folder, *(each.folder for each in result.after)]
        lines = [*summary(folders), *report_together(experiment, folders)]
        print("\n".join(lines), flush=True)
    return result


class _Run:
    """One start of a run."""

    def __init__(self, experiment: Experiment, folder: epath.Path, mesh, link: Link):
        self.experiment, self.folder, self.mesh, self.link = experiment, folder, mesh, link
        self.host, self.hosts = jax.process_index(), jax.process_count()
        self.model = experiment.task.module(experiment.execution(mesh))
        # What can be wrong with the mesh is said before any data is read.
        self.step_fn, self.abstract = jit_step(experiment, self.model, mesh)
        run_directory.write_experiment(folder, experiment, main=self.host == 0)
        self.data = experiment.task.open(folder, experiment.seed, self.host)
        if experiment.epochs is not None:
            steps = max(1, int(experiment.epochs * self.data.steps_per_epoch))
            self.experiment = replace(experiment, steps=steps)
            self.step_fn, self.abstract = jit_step(self.experiment, self.model, mesh)
            run_directory.write_experiment(folder, self.experiment, main=self.host == 0)
        link.agree(run_directory.data_facts(self.fingerprint()))
        self.result = RunResult(folder, 0, finished=False)
        self.notes: list[str] = []

    def train(self) -> RunResult:
        """Restores, steps to the end or to a signal, then judges and reports."""
        checkpoints, config = self.folder / "checkpoints", self.experiment.checkpoint
        # The link is inside: an error ends all hosts, before a half-written checkpoint is waited
        # for, which may want the others.
        with Checkpointer(checkpoints, config, report=self.tell) as self.checkpoints, self.link:
            state = self.restore() or self.fresh()
            self.start = self.result.step = int(state.step)
            if self.start == self.experiment.steps and run_directory.is_finished(
                self.folder, self.start
            ):
                self.result.finished = True
                return self.result
            self.heartbeat = Heartbeat(
                self.folder, self.link, self.goodput, self.experiment.steps, self.host == 0
            )
            told = told_backends(self.tell)
            with self.open_log() as self.log, told, StopSignals(self.tell) as self.stop:
                for note in (*self.notes, self.data.describe()):
                    self.log.message(note)
                state = self.steps(state)
                if self.result.step == self.experiment.steps:
                    self.finish(state)
                self.heartbeat.close("finished" if self.result.finished else "stopped")
                self.log.message(f"wall time {self.goodput.words()}")
        return self.result

    def tell(self, text: str) -> None:
        """A line for the person: to the log, or kept until there is one."""
        log = getattr(self, "log", None)
        log.message(text) if log is not None else self.notes.append(text)

    # ------------------------------------------------------------------ state

    def restore(self) -> TrainState | None:
        """The newest good checkpoint's state; refuses one that was trained on other data."""
        restored = self.checkpoints.restore(self.abstract)
        if restored is None:
            return None
        run_directory.check_fingerprint(restored.metadata["data"], self.fingerprint(), self.folder)
        self.goodput = Goodput(restored.metadata.get("goodput"))
        self.tell(f"resumed from step {restored.step}")
        return restored.state

    def fresh(self) -> TrainState:
        """A new state, made where it lies."""
        self.goodput = Goodput(spent_before(self.folder), self.link.began)
        tx = make_transformation(self.experiment)
        where = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

        def make():
            return init_state(self.experiment.task, self.model, tx, self.experiment)

        state = jax.jit(make, out_shardings=where)()
        given = self.experiment.task.pretrained(self.model)
        return started_from(state, given) if given else state

    def fingerprint(self) -> dict[str, Any]:
        """What the batches depend on."""
        return {**self.data.fingerprint, "seed": self.experiment.seed}

    def save(self, step: int, state: TrainState, *, wait: bool = False) -> None:
        """Writes a checkpoint, once all steps up to it are known to be finite."""
        metadata = {
            "data": self.fingerprint(),
            "experiment": run_directory.record(self.experiment),
            "goodput": self.goodput.record(),
        }
        self.log.upload()
        self.checkpoints.save(step, state, metadata, wait=wait)

    # ------------------------------------------------------------------ steps

    def steps(self, state: TrainState) -> TrainState:
        """Steps until the end or a signal; saves and evaluates when they are due."""
        e, self.flying, self.flops = self.experiment, deque(), step_flops(self.experiment)
        batches = self.data.batches(e.seed, self.start, self.host, self.hosts)
        seen, spent = set(), self.goodput.spent
        spent("restart")
        try:
            for step in range(self.start + 1, e.steps + 1):
                began = time.perf_counter()
                batch = next(batches)
                waited, shape = time.perf_counter() - began, _shape(batch, self.hosts)
                spent("data wait")
                placed = put_batch(batch, self.mesh, self.hosts)
                if shape not in seen:
                    self.meet(state, placed)
                state, metrics = self.step_fn(state, placed)
                units = e.task.units(batch) * self.hosts
                self.flying.append((step, metrics, units, waited, self.flops.get(shape)))
                self.land(IN_FLIGHT)
                spent("steps" if shape in seen else "compile")
                seen.add(shape)
                last, stopping = step == e.steps, self.stop.reached(step)
                if last or stopping or step % e.checkpoint.every == 0:
                    self.land(0)
                    spent("steps")
                    self.save(step, state)
                    spent("checkpoint")
                if e.evaluate_every and step % e.evaluate_every == 0 and not last:
                    self.evaluate(step, state)
                    spent("evaluation")
                if stopping:
                    break
        finally:
            batches.close()
        self.land(0)
        spent("steps")
        self.checkpoints.wait()
        spent("checkpoint")
        return state

    def meet(self, state: TrainState, batch: Any) -> None:
        """In a pod: returns once every host has compiled the step for such a batch.

        In their first collective gloo gives them 30 s to meet, and a busy machine compiles longer.
        """
        if self.hosts > 1:
            self.step_fn.lower(state, batch).compile()
            self.link.agree({})

    def land(self, left: int) -> None:
        """Waits until at most `left` steps are in flight; logs those that arrived."""
        while len(self.flying) > left:
            step, metrics, *costs = self.flying.popleft()
            metrics = jax.device_get(metrics)
            squares = metrics.pop("squared_norms")
            values = {name: float(value) for name, value in metrics.items()}
            if not np.isfinite([values["loss"], values["grad_norm"]]).all():
                raise Diverged(self.diverged(step, values, squares))
            self.result.step, self.result.losses[step] = step, values["loss"]
            self.log.step(step, values | {"goodput": self.goodput.share}, *costs)
            if line := self.heartbeat.step(step, values["loss"]):
                self.log.message(line)

    def diverged(self, step: int, values: dict[str, float], squares: np.ndarray) -> str:
        """What broke, where, and what is left."""
        leaves = jax.tree_util.tree_leaves_with_path(self.abstract.params)
        bad = [
            path_text(p) for (p, _), s in zip(leaves, squares, strict=True) if not np.isfinite(s)
        ]
        names = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        self.checkpoints.wait()
        kept = self.checkpoints.steps()
        return (
            f"step {step} (batch {step - 1} of seed {self.experiment.seed}): the loss is "
            f"{values['loss']:g}; gradients not finite: {names or 'none'}; "
            + (f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint was made")
            + "; lower the learning rate or set --clip-norm, then start again"
        )

    # ------------------------------------------------------------------ results

    def variables(self, state: TrainState) -> dict[str, Any]:
        """What is evaluated: the moving average where there is one."""
        return {**state.variables, "params": state.params if state.ema is None else state.ema}

    def evaluate(self, step: int, state: TrainState) -> None:
        """An evaluation on the development set, noted beside the checkpoint for keep-best."""
        self.land(0)
        with self.log.paused():
            found = self.experiment.task.evaluate(
                self.model, self.variables(state), self.data.processor, final=False
            )
        self.log.scalars(step, found.metrics)
        self.checkpoints.set_metrics(step, found.metrics)

    def finish(self, state: TrainState) -> None:
        """The final weights: averaged, exported, evaluated, reported."""
        e, variables = self.experiment, self.variables(state)
        if e.average_last:
            variables["params"] = self.checkpoints.average(self.abstract.params, e.average_last)
        self.result.variables, self.result.finished = variables, True
        published = e.task.exported(self.model, self.data)
        run_directory.export(
            self.folder, published, variables, self.data.processor, self.result.step
        )
        self.log.message("evaluating")
        found = e.task.evaluate(self.model, variables, self.data.processor, final=True)
        self.log.scalars(self.result.step, found.metrics)
        self.checkpoints.set_metrics(self.result.step, found.metrics)
        self.result.evaluation = found
        self.goodput.spent("evaluation")
        self.result.wall_time = self.goodput.words()
        if self.host == 0:
            run_directory.write_predictions(self.folder, found)
            report_run(self.folder, e, self.result)
            for line in closing_lines(self.folder, found, e.task):
                self.log.message(line)

    def open_log(self) -> MetricsLog:
        """The log, with what it needs to tell rates and the share of the chips' peak."""
        e, devices = self.experiment, list(self.mesh.devices.flat)
        peak = peak_flops(devices)
        return MetricsLog(
            self.folder,
            e.logging,
            total_steps=e.steps,
            start_step=self.start,
            unit=e.task.unit,
            chips=chips_in(devices),
            peak=peak,
            main=self.host == 0,
            name=e.name,
        )


def step_flops(experiment: Experiment) -> dict[tuple[int, ...], float]:
    """Model FLOPs of a step by the shape of its batch: matrix products, no rematerialization.

    Those of plain attention: kernels compute some products twice.
    """
    plain = replace(experiment, remat="none", attention="plain")
    model = plain.task.module(plain.execution(make_mesh(plain.mesh)))
    tx = make_transformation(plain)
    state = jax.eval_shape(lambda: init_state(plain.task, model, tx, plain))
    step = make_step(plain, model, tx)
    return {_shape(b): model_flops(step, state, b) for b in plain.task.batch_shapes()}


def _shape(batch: Any, hosts: int = 1) -> tuple[int, ...]:
    """What tells the shapes of a task's whole batches apart, from one host's rows."""
    shapes = [leaf.shape for _, leaf in sorted(batch.items())]
    return tuple(size for rows, *rest in shapes for size in (rows * hosts, *rest))

"""The training loop: mesh -> data -> state -> step, step, step -> checkpoint, metrics, report.

It reads top to bottom: `train` (a run and its follow-up runs), `_Run.__init__` (what is built
once), `_Run.train` (resume, step, finish), `_Run.run_steps` (the loop itself).

A run's folder holds, in the order of writing:
    tokenizer/ and preprocessed data  when the data is opened for the first time
    experiment.json                   at each start, `epochs` already resolved to `steps`
    checkpoints/STEP/                 every `checkpoint.every` steps, at the last step, on a signal
    metrics.jsonl, log.txt, tensorboard/, status.json     while steps finish
    model/, report.md, curves.png, predictions, metrics.jsonl.sha256     after the last step
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxformers.costs import chips_in, peak_flops
from jaxformers.layers import log_attention_backends
from jaxformers.pod.peer_monitor import Link
from jaxformers.sharding import make_mesh, path_text, put_batch
from jaxformers.tasks.evaluator import Evaluation, run_evaluators
from jaxformers.training import run_directory
from jaxformers.training.checkpoints.checkpoint_manager import Checkpointer
from jaxformers.training.config.experiment_files import from_json
from jaxformers.training.experiment import Experiment
from jaxformers.training.follow_up_runs import check_follow_ups, initialise_from_run, plan_lines
from jaxformers.training.optim.schedules import warmup_warning
from jaxformers.training.reports.final_summary import summary_lines
from jaxformers.training.reports.goodput import Goodput
from jaxformers.training.reports.heartbeat import Heartbeat, read_lost_time
from jaxformers.training.reports.multi_run_report import last_results, write_multi_run_report
from jaxformers.training.reports.report import report_run
from jaxformers.training.reports.training_log import MetricsLog
from jaxformers.training.run_lock import RunLock
from jaxformers.training.run_result import Diverged, RunResult
from jaxformers.training.signals import StopSignals
from jaxformers.training.state import (
    TrainState,
    abstract_state,
    init_state,
    with_pretrained_values,
)
from jaxformers.training.step import jit_step, step_flops

# JAX dispatches steps asynchronously. Two in flight keep the device busy while the host prepares
# the next batch; more would only hold memory, and can deadlock emulated devices.
MAX_IN_FLIGHT = 2


class _PendingStep(NamedTuple):
    """A dispatched step whose metrics are still on the device."""

    step: int
    metrics: dict[str, jax.Array]
    units: int
    data_wait: float
    flops: float | None


def train(
    experiment: Experiment, folder: epath.PathLike | None = None, link: Link | None = None
) -> RunResult:
    """Trains from the newest checkpoint in `folder`, or from step 0, to the last step.

    Args:
        experiment: what to run.
        folder: the run's folder; by default `runs/<name>`.
        link: connections to the other hosts of a pod.

    Returns:
        The run's folder, its final metrics and whether it finished; see `RunResult`.

    Raises:
        UserError: a mistake that a person can mend, in one line; `Diverged` when the loss or the
            gradients are not finite.
    """
    folder, link = epath.Path(folder or epath.Path("runs") / experiment.name), link or Link()
    experiment = replace(experiment, task=experiment.task.resolved())
    mesh = make_mesh(experiment.mesh)
    check_follow_ups(experiment)
    if experiment.after and jax.process_index() == 0:
        print("\n".join(plan_lines(experiment)), flush=True)
    with RunLock(folder), jax.set_mesh(mesh):
        run_directory.check_experiment(folder, experiment)
        result = _Run(experiment, folder, mesh, link).train()
    link.began = time.time()  # goodput of a follow-up run counts from here
    # Follow-up runs train in sub-folders, each with its own lock, checkpoints and report.
    for follow_up in experiment.after if result.finished else ():
        follow_up = initialise_from_run(follow_up, folder)
        result.after.append(train(follow_up, folder / follow_up.name, link))
        result.finished = result.after[-1].finished
        if not result.finished:
            break
    if experiment.after and result.finished and jax.process_index() == 0:
        folders = [folder, *(run.folder for run in result.after)]
        lines = [*last_results(folders), *write_multi_run_report(experiment, folders)]
        print("\n".join(lines), flush=True)
    return result


class _Run:
    """One start of a run, from building the model to the final report."""

    def __init__(self, experiment: Experiment, folder: epath.Path, mesh, link: Link):
        self.folder, self.mesh, self.link = folder, mesh, link
        self.host, self.num_hosts = jax.process_index(), jax.process_count()
        # 1. Model and shardings. A mesh that does not fit the model fails here, before any data is
        #    read: preparing a data set for the first time can take hours.
        self.model = experiment.task.module(experiment.execution(mesh))
        self.abstract_state = abstract_state(experiment, self.model, mesh)
        # 2. Data. Its size turns `epochs` into `steps`, which the schedule is a function of, so
        #    the step is built after it.
        self.data = experiment.task.open(folder, experiment.seed, self.host)
        self.experiment = experiment.resolve_epochs(self.data.steps_per_epoch)
        self.fingerprint = {**self.data.fingerprint, "seed": experiment.seed}
        link.agree(run_directory.data_facts(self.fingerprint))
        # 3. The jitted step; XLA compiles it at its first call with each batch shape.
        self.step_fn = jit_step(self.experiment, self.model, mesh, self.abstract_state)
        # 4. Records of the run. The log opens in `train`, once the first step is known: until then
        #    messages are queued.
        self.log: MetricsLog | None = None
        self.metrics_digest: str | None = None
        self.queued_messages: list[str] = []
        if warning := warmup_warning(self.experiment.schedule, self.experiment.steps):
            self.log_or_queue(warning)
        self.goodput = Goodput(read_lost_time(folder), link.began)
        steps, main = self.experiment.steps, self.host == 0
        self.heartbeat = Heartbeat(folder, link, self.goodput, steps, main)
        self.stop = StopSignals(self.log_or_queue)
        self.in_flight: deque[_PendingStep] = deque()
        self.result = RunResult(folder, 0, finished=False)
        self.checkpoints = Checkpointer(
            folder / run_directory.CHECKPOINTS, experiment.checkpoint, report=self.log_or_queue
        )

    def train(self) -> RunResult:
        """Resumes or initialises, steps to the end or to a signal, then evaluates and reports."""
        # The link is the inner context: an error on one host ends all hosts before the checkpointer
        # waits for a half-written checkpoint, which may itself wait for the other hosts.
        with self.checkpoints, self.link:
            state = self.restore()
            # Written only now: a run that is refused leaves the folder as it was.
            run_directory.write_experiment(self.folder, self.experiment, main=self.host == 0)
            state = self.initial_state() if state is None else state
            start = self.result.step = int(state.step)
            e, last_step = self.experiment, self.experiment.steps
            self.result.finished = start == last_step and run_directory.is_finished(
                self.folder, start
            )
            if not self.result.finished:
                backends = log_attention_backends(self.log_or_queue)
                evaluate_again = self.is_evaluation_missing(start)
                with self.open_log(start, evaluate_again) as self.log, backends, self.stop:
                    table = e.task.run_table(self.data, last_step, e.seed)
                    lines = f"{self.data.describe()}\n{table}".splitlines()
                    for message in (*self.queued_messages, *lines):
                        self.log.message(message)
                    if evaluate_again and start < last_step:
                        self.evaluate(start, state)
                    if start < last_step:
                        state = self.run_steps(state, start)
                    if self.result.step == last_step:
                        self.finish(state)
                    self.heartbeat.close("finished" if self.result.finished else "stopped")
                    self.log.message(f"wall time {self.goodput.summary()}")
        return self.result

    def log_or_queue(self, text: str) -> None:
        """Logs a line, or queues it until the log is open."""
        if self.log is None:
            self.queued_messages.append(text)
        else:
            self.log.message(text)

    # ------------------------------------------------------------------ state
    # Where the state comes from, first match wins:
    #   1. the newest undamaged checkpoint in the run's folder (damaged ones are skipped);
    #   2. `task.pretrained` values, over fresh ones where it names none;
    #   3. fresh values, from the seed.
    # A batch is a function of (seed, step), so the step is all that resuming the data needs.

    def restore(self) -> TrainState | None:
        """The newest good checkpoint's state; None where there is no checkpoint yet.

        Raises:
            CheckpointError: it is another experiment's, or of a later step than the last.
            DataError: the data has changed since.
        """
        restored = self.checkpoints.restore(self.abstract_state)
        if restored is None:
            return None
        saved = from_json(restored.metadata["experiment"])
        run_directory.check_same(saved, self.experiment, self.folder)
        run_directory.check_fingerprint(restored.metadata["data"], self.fingerprint, self.folder)
        self.goodput.restore(restored.metadata.get("goodput", {}))
        self.metrics_digest = restored.metadata.get("metrics")
        self.log_or_queue(f"resumed from step {restored.step}")
        return restored.state

    def initial_state(self) -> TrainState:
        """Fresh or pretrained values."""
        # Under jit with output shardings the state is created sharded: that of a large model would
        # not fit on one device.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)
        init = jax.jit(lambda: init_state(self.experiment, self.model), out_shardings=shardings)
        state = init()
        pretrained = self.experiment.task.pretrained(self.model)
        return with_pretrained_values(state, pretrained) if pretrained else state

    def save(self, step: int, state: TrainState) -> None:
        """Starts writing a checkpoint in the background; all steps up to it were finite."""
        metadata = {
            "data": self.fingerprint,
            "experiment": run_directory.record(self.experiment),
            "goodput": self.goodput.record(),
            "metrics": self.log.digest(),
        }
        self.log.upload()  # so that the log of a remote folder reaches as far as the checkpoint
        self.checkpoints.save(step, state, metadata)

    # ------------------------------------------------------------------ steps

    def run_steps(self, state: TrainState, start: int) -> TrainState:
        """Steps until the end or a signal; saves and evaluates when they are due."""
        e, record_time = self.experiment, self.goodput.record_time
        shapes = e.task.batch_shapes()
        flops = {_batch_shape(batch): step_flops(e, batch) for batch in shapes}
        batches = self.data.batches(e.seed, start, self.host, self.num_hosts)
        compiled_shapes = set()
        record_time("restart")
        try:
            for step in range(start + 1, e.steps + 1):
                wait_start = time.perf_counter()
                host_batch = next(batches)
                data_wait = time.perf_counter() - wait_start
                record_time("data wait")
                shape = _batch_shape(host_batch, self.num_hosts)
                batch = put_batch(host_batch, self.mesh, self.num_hosts)
                first_of_shape = shape not in compiled_shapes
                if first_of_shape:
                    self.wait_until_all_hosts_compiled(state, batch)
                    compiled_shapes.add(shape)
                # Returns at once, unless it has to compile. The old state is donated: from here on
                # only the new one may be used.
                state, metrics = self.step_fn(state, batch)
                units = e.task.units(host_batch) * self.num_hosts
                self.in_flight.append(
                    _PendingStep(step, metrics, units, data_wait, flops.get(shape))
                )
                self.drain_steps(MAX_IN_FLIGHT)
                record_time("compile" if first_of_shape else "steps")
                # All hosts get the same answer, so they save and leave the loop at the same step.
                last, stopping = step == e.steps, self.stop.reached(step)
                if last or stopping or step % e.checkpoint.every == 0:
                    self.drain_steps(0)  # raises if a step diverged: never save such a state
                    record_time("steps")
                    self.save(step, state)
                    record_time("checkpoint")
                if self.is_evaluation_due(step):
                    self.evaluate(step, state)
                    record_time("evaluation")
                if stopping:
                    break
        finally:
            batches.close()
        self.drain_steps(0)
        record_time("steps")
        self.checkpoints.wait()
        record_time("checkpoint")
        return state

    def wait_until_all_hosts_compiled(self, state: TrainState, batch: Any) -> None:
        """In a pod: returns once every host has compiled the step for a batch of this shape.

        Gloo gives the hosts 30 s to reach their first collective, and compile times on busy
        machines differ by more.
        """
        if self.num_hosts > 1:
            self.step_fn.lower(state, batch).compile()
            self.link.agree({})

    def drain_steps(self, max_in_flight: int) -> None:
        """Waits until at most `max_in_flight` steps are unfinished; logs those that finished."""
        while len(self.in_flight) > max_in_flight:
            pending = self.in_flight.popleft()
            metrics = jax.device_get(pending.metrics)  # blocks until this step is done
            squared_norms = metrics.pop("squared_norms")
            metrics = {name: float(value) for name, value in metrics.items()}
            step, loss = pending.step, metrics["loss"]
            if not np.isfinite([loss, metrics["grad_norm"]]).all():
                raise Diverged(self.describe_divergence(step, loss, squared_norms))
            self.result.step, self.result.losses[step] = step, loss
            metrics["goodput"] = self.goodput.fraction
            self.log.step(step, metrics, pending.units, pending.data_wait, pending.flops)
            if line := self.heartbeat.step(step, loss):
                self.log.message(line)

    def describe_divergence(self, step: int, loss: float, squared_norms: np.ndarray) -> str:
        """The step, the parameters whose gradients are not finite, and the last checkpoint."""
        leaves = jax.tree_util.tree_leaves_with_path(self.abstract_state.params)
        paths = [path_text(path) for path, _ in leaves]  # in the order of `squared_norms`
        bad = [p for p, norm in zip(paths, squared_norms, strict=True) if not np.isfinite(norm)]
        names = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        self.checkpoints.wait()
        saved_steps = self.checkpoints.steps()
        checkpoint = f"the checkpoint of step {saved_steps[-1]}" if saved_steps else "no checkpoint"
        return (
            f"step {step} (batch {step - 1} of seed {self.experiment.seed}): the loss is "
            f"{loss:g}; gradients not finite: {names or 'none'}; {checkpoint} is kept; "
            "lower the learning rate or set --clip-norm, then start again"
        )

    # ------------------------------------------------------------------ results

    def variables(self, state: TrainState) -> dict[str, Any]:
        """The variables to evaluate: the moving average of the parameters where there is one."""
        return {**state.variables, "params": state.params if state.ema is None else state.ema}

    def evaluate(self, step: int, state: TrainState) -> None:
        """Evaluates on the development set; `keep_best` ranks checkpoints by these metrics."""
        self.drain_steps(0)
        with self.log.paused():
            evaluation = self.run_evaluators(self.variables(state), final=False)
        self.log.evaluation(step, evaluation.metrics)
        self.checkpoints.set_metrics(step, evaluation.metrics)

    def is_evaluation_due(self, step: int) -> bool:
        """Whether the development set is evaluated after this step; the last has `finish`."""
        every, last_step = self.experiment.evaluate_every, self.experiment.steps
        return bool(every) and step % every == 0 and 0 < step < last_step

    def is_evaluation_missing(self, start: int) -> bool:
        """Whether a kill came between the checkpoint of `start` and the end of its evaluation."""
        if start == self.experiment.steps:
            return True  # the run is not finished, so `finish` is still to be done
        return self.is_evaluation_due(start) and not self.checkpoints.has_metrics(start)

    def run_evaluators(self, variables: dict[str, Any], *, final: bool) -> Evaluation:
        """Runs the experiment's evaluators, or the task's own, on the model."""
        evaluators = self.experiment.chosen_evaluators()
        model, variables = self.experiment.task.inference_model(self.model, variables)
        return run_evaluators(evaluators, model, variables, self.data.processor, final=final)

    def finish(self, state: TrainState) -> None:
        """Averages checkpoints if asked to, exports the final weights, evaluates, reports."""
        e, result, variables = self.experiment, self.result, self.variables(state)
        if e.average_last:
            params = self.abstract_state.params
            variables["params"] = self.checkpoints.average_params(params, e.average_last)
        model, variables = e.task.inference_model(self.model, variables)
        result.variables, result.finished = variables, True
        # Exported before the evaluation: if that fails, the weights are there to be evaluated.
        model = e.task.exported(model, self.data)
        run_directory.export(self.folder, model, variables, self.data.processor, result.step)
        self.log.message("evaluating")
        evaluation = self.run_evaluators(variables, final=True)
        self.log.evaluation(result.step, evaluation.metrics)
        self.checkpoints.set_metrics(result.step, evaluation.metrics)
        result.evaluation = evaluation
        self.goodput.record_time("evaluation")
        result.wall_time = self.goodput.summary()
        if self.host == 0:
            run_directory.write_predictions(self.folder, evaluation)
            report_run(self.folder, e, result)
            for line in summary_lines(self.folder, evaluation, e.task):
                self.log.message(line)
        self.log.seal()

    def open_log(self, start: int, evaluate_again: bool) -> MetricsLog:
        """The log; metrics that an earlier start wrote and this one writes again are dropped."""
        devices = list(self.mesh.devices.flat)
        return MetricsLog(
            self.folder,
            self.experiment.logging,
            total_steps=self.experiment.steps,
            start_step=start,
            evaluate_again=evaluate_again,
            expected_digest=self.metrics_digest,
            unit=self.experiment.task.unit,
            chips=chips_in(devices),
            peak=peak_flops(devices),
            main=self.host == 0,
            name=self.experiment.name,
        )


def _batch_shape(batch: Any, num_hosts: int = 1) -> tuple[int, ...]:
    """The shapes of a global batch as a key: `batch` holds one host's rows of it."""
    shapes = [leaf.shape for _, leaf in sorted(batch.items())]
    return tuple(size for rows, *dims in shapes for size in (rows * num_hosts, *dims))

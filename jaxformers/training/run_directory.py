"""A run's folder: its experiment, the identity of its data, and its final weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jax
from etils import epath
from jax.experimental import multihost_utils

from jaxformers.data.pipeline.fingerprint import HARMLESS, WORDS, differences
from jaxformers.errors import CheckpointError, ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.pod.consistency import Facts, flat
from jaxformers.pretrained.formats import native_format
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.base import Variables
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.processor import TOKENIZER, Processor
from jaxformers.training.checkpoints.checkpoint_manager import Checkpointer
from jaxformers.training.checkpoints.manifest import MANIFEST, find_damage, is_complete
from jaxformers.training.checkpoints.manifest import write as write_manifest
from jaxformers.training.config.experiment_files import from_json, to_json
from jaxformers.training.experiment import Experiment
from jaxformers.training.follow_up_runs import initialise_from_run
from jaxformers.training.reports.report import REPORT
from jaxformers.training.reports.run_files import replace_file, writing
from jaxformers.training.state import abstract_state
from jaxformers.training.stored_files import DamagedFile, read_json

EXPERIMENT, MODEL, CHECKPOINTS = "experiment.json", "model", "checkpoints"
STEP = "step.json"
_REWRITE = "remove it and train with the experiment's file, which writes it again"

# Changing these changes neither the shapes of the weights nor what a step computes, so a run may be
# resumed with other values. `steps` is not among them: schedules are functions of it.
RESUMABLE_FIELDS = (
    "name",
    "mesh",
    "logging",
    "checkpoint",
    "evaluate_every",
    "evaluators",
    "average_last",
    "remat",
    "after",
)


def record(experiment: Experiment) -> dict[str, Any]:
    """The experiment as tagged JSON, as `experiment.json` holds it."""
    return to_json(experiment)


def is_run(folder: epath.PathLike) -> bool:
    """Whether `folder` holds a run."""
    return (epath.Path(folder) / EXPERIMENT).exists()


def read_experiment(folder: epath.PathLike) -> Experiment:
    """The experiment that a run was started with.

    Raises:
        CheckpointError: the folder holds no run, or its experiment is damaged.
        ConfigError: the experiment names classes or fields that this version lacks.
    """
    path = epath.Path(folder) / EXPERIMENT
    try:
        experiment = from_json(read_json(path))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a run's folder: it has no {EXPERIMENT}") from None
    except (DamagedFile, RecursionError) as error:
        damage = "nested too deeply" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{path} is damaged ({damage}); {_REWRITE}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(experiment, Experiment):
        kind = type(experiment).__name__
        raise CheckpointError(f"{path} is damaged (it holds {kind}); {_REWRITE}")
    return experiment


def write_experiment(folder: epath.Path, experiment: Experiment, *, main: bool) -> None:
    """Writes `experiment.json` on the main host."""
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / EXPERIMENT, json.dumps(record(experiment), indent=1).encode())


def check_experiment(folder: epath.Path, experiment: Experiment) -> None:
    """Raises if the folder has checkpoints of another experiment.

    Raises:
        CheckpointError: naming the fields that differ and matter.
    """
    if (folder / EXPERIMENT).exists() and (folder / CHECKPOINTS).exists():
        check_same(read_experiment(folder), experiment, folder)


def check_same(before: Experiment, now: Experiment, folder: epath.Path) -> None:
    """Raises CheckpointError where a run would be resumed with fields that change its weights."""
    changed = changed_fields(before, now)
    if changed == ["steps"]:
        raise CheckpointError(
            f"{folder} holds a run of {before.steps} steps, not {now.steps}, and its learning rate "
            f"depends on them; go on with --steps {before.steps}, or choose another --folder"
        )
    if changed:
        raise CheckpointError(
            f"{folder} holds another run: {', '.join(changed)} differ; choose another --folder, "
            "or remove this one to start anew"
        )


def changed_fields(before: Experiment, now: Experiment, *, results: bool = False) -> list[str]:
    """Names of the fields that differ and affect the weights; `results`: the final ones too."""
    ignored = set(RESUMABLE_FIELDS) - ({"average_last"} if results else set())
    # A saved run of so many epochs holds the steps that they came to.
    if before.epochs == now.epochs and now.epochs is not None:
        ignored.add("steps")
    relevant = [n for n in Experiment.__dataclass_fields__ if n not in ignored]
    return [n for n in relevant if _without_workers(before, n) != _without_workers(now, n)]


def _without_workers(experiment: Experiment, name: str) -> Any:
    """The value of a field; of a task without `workers`, which affects speed but no batch."""
    value = getattr(experiment, name)
    return replace(value, workers=0) if hasattr(value, "workers") else value


def check_fingerprint(saved: dict[str, Any], now: dict[str, Any], folder: epath.Path) -> None:
    """Raises if a run would be resumed on other data than it was trained on.

    Raises:
        DataError: names what changed.
    """
    if changes := differences(saved, now):
        raise DataError(
            f"the data is not what {folder} was trained on: {'; '.join(changes)}; bring the old "
            "data back, or start in another --folder"
        )


def facts(experiment: Experiment, folder: epath.PathLike) -> Facts:
    """Facts that must be equal on all hosts of a run: every field, and the folder."""
    return {**flat(record(experiment), "config:"), "config: folder": str(folder)}


def data_facts(fingerprint: dict[str, Any]) -> Facts:
    """Facts about the data that must be equal on all hosts; its path may differ."""
    has_content = "content" in fingerprint  # a hash of the data itself, which paths add nothing to
    facts = {k: v for k, v in fingerprint.items() if k not in HARMLESS or not has_content}
    return flat({WORDS.get(name, name): value for name, value in facts.items()}, "data:")


def tokenizer_folder(folder: epath.PathLike) -> epath.Path:
    """Path of a run's tokenizer."""
    return epath.Path(folder) / TOKENIZER


def export(
    folder: epath.Path, model: Any, variables: Variables, processor: Processor, step: int
) -> None:
    """Writes the weights of `step`, and what belongs to them, as `model/`."""
    if jax.process_count() > 1:
        variables = multihost_utils.process_allgather(variables, tiled=True)
    if jax.process_index() == 0:
        with writing(folder / MODEL):
            # Without its step an export counts as none, so a kill leaves no half of one.
            for name in (STEP, MANIFEST):
                (folder / MODEL / name).unlink(missing_ok=True)
            native_format.save(model, jax.device_get(variables), folder / MODEL, processor)
            replace_file(folder / MODEL / STEP, json.dumps({"step": step}).encode())
            write_manifest(folder / MODEL)


def write_predictions(folder: epath.Path, evaluation: Evaluation) -> list[epath.Path]:
    """Writes `<set>.tsv` for each test set without public labels; returns their paths."""
    files = {folder / f"{name}.tsv": lines for name, lines in evaluation.predictions.items()}
    for path, lines in files.items():
        replace_file(path, "".join(f"{line}\n" for line in lines).encode())
    return list(files)


def exported_step(folder: epath.PathLike) -> int | None:
    """The step of the weights in `model/`; None where there are none.

    Raises:
        CheckpointError: the file that says so is damaged.
    """
    path = epath.Path(folder) / MODEL / STEP
    try:
        step = read_json(path).get("step")
    except FileNotFoundError:
        return None
    except DamagedFile as damage:
        raise _damaged_export(path, damage) from None
    if type(step) is not int:
        raise _damaged_export(path, "it names no step")
    return step


def _damaged_export(path: epath.Path, damage: Any) -> CheckpointError:
    model = path if path.name == MODEL else path.parent
    return CheckpointError(
        f"{path} is damaged ({damage}); remove {model}, and the command that trained the run "
        "writes it again"
    )


def is_finished(folder: epath.PathLike, steps: int) -> bool:
    """Whether a run of `steps` steps has written its final weights and its report."""
    return exported_step(folder) == steps and (epath.Path(folder) / REPORT).exists()


def was_finished(folder: epath.PathLike, experiment: Experiment) -> bool:
    """Whether this experiment and its follow-up runs have been run to their ends."""
    folder = epath.Path(folder)
    if not is_run(folder) or changed_fields(saved := read_experiment(folder), experiment):
        return False
    steps = experiment.steps if experiment.epochs is None else saved.steps
    return is_finished(folder, steps) and all(
        was_finished(folder / run.name, initialise_from_run(run, folder))
        for run in experiment.after
    )


def load_run(folder: epath.PathLike, execution: Execution | None = None) -> tuple[Any, Variables]:
    """The model and weights of a run: the final ones, or those of the newest good checkpoint.

    Raises:
        CheckpointError: no run, no weights, or damaged ones.
    """
    folder = epath.Path(folder)
    experiment = read_experiment(folder)
    with Checkpointer(folder / CHECKPOINTS, experiment.checkpoint) as checkpoints:
        steps = checkpoints.steps()
    exported = exported_step(folder)
    has_manifest = exported is not None and is_complete(folder / MODEL)
    if has_manifest and (damage := find_damage(folder / MODEL)):
        raise _damaged_export(folder / MODEL, damage)
    if exported is not None and exported >= max(steps, default=0):
        return native_format.load(folder / MODEL, execution or Execution())
    if exported is None and experiment.average_last and (folder / REPORT).exists():
        # The last checkpoint alone is another model than the mean that the report is about.
        raise _damaged_export(folder / MODEL, "missing")
    if not steps:
        if (folder / REPORT).exists():
            raise CheckpointError(
                f"{folder} has no weights any more: a tune removes those of the runs that it does "
                "not keep; keep them with --keep-all"
            )
        raise CheckpointError(f"{folder} has no checkpoint yet; train it first")
    # Restored onto one device, whatever mesh the run was trained on.
    single = replace(experiment, mesh=MeshConfig(1, 1, 1))
    mesh = make_mesh(single.mesh, jax.local_devices()[:1])
    model = single.task.module(single.execution(mesh))
    abstract = abstract_state(single, model, mesh)
    with Checkpointer(folder / CHECKPOINTS, experiment.checkpoint) as checkpoints:
        weights = "params" if abstract.ema is None else "ema"
        names = (weights, "model_state") if abstract.model_state else (weights,)
        subtrees = {name: getattr(abstract, name) for name in names}
        state = checkpoints.restore_subtrees(subtrees).state
    variables = {"params": state[weights], **state.get("model_state", {})}
    return single.task.inference_model(model, variables)

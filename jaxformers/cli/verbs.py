"""What each verb of the command line does: call the library and print what it says.

A function takes the parsed arguments and the words that name fields of the experiment, and
returns an exit status or None. The library is imported inside, so that other verbs stay quick.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxformers.errors import ConfigError, DamagedImageError, DataError, did_you_mean, printable

if TYPE_CHECKING:
    from jaxformers.training.experiment import Experiment

QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
REHEARSAL_DEVICES = 8


def train(args: argparse.Namespace, fields: list[str]) -> int:
    """Trains; as several processes, or again and again, when asked."""
    if args.processes < 1:
        raise ConfigError(f"--processes: {args.processes} is not at least 1")
    if args.restarts < 0:
        raise ConfigError(f"--restarts: {args.restarts} is not at least 0")
    from jaxformers.pod import local_processes, supervisor
    from jaxformers.pod.peer_monitor import Ended

    in_pod = local_processes.PROCESSES in os.environ
    with _folder(args) as folder:
        folder_option = ["--folder", folder] if folder else []
        again = ["train", args.file, *folder_option, *["--rehearse"] * args.rehearse]
        if args.processes > 1 and not in_pod:
            restarts = ["--restarts", str(args.restarts)] if args.restarts else []
            devices = _devices_each(args.processes) if args.rehearse else 1
            return local_processes.launch(args.processes, [*again, *restarts, *fields], devices)
        if args.restarts:
            command = [sys.executable, "-m", "jaxformers", *again, *fields]
            return supervisor.supervise(command, args.restarts)
        supervisor.end_with_parent()
        alone = args.rehearse and not in_pod
        try:
            with _stoppable():
                return _train_here(args, fields, folder, alone=alone)
        except Ended as ended:
            print(f"jaxformers: {ended}", file=sys.stderr)
            return ended.status


def demo(args: argparse.Namespace, fields: list[str]) -> int:
    """Trains a family's demonstration, which the package brings along."""
    from jaxformers.training.config.experiment_files import experiments_folder

    files = {path.parent.name: path for path in sorted(experiments_folder().glob("*/demo.py"))}
    if args.family not in files:
        hint = did_you_mean(args.family, files) or f"; there are {', '.join(files)}"
        raise ConfigError(f"--family: no demonstration {printable(args.family)!r}{hint}")
    args.file = str(files[args.family])
    return train(args, fields)


def _train_here(
    args: argparse.Namespace, fields: list[str], folder: str | None, *, alone: bool
) -> int:
    """One start of a run, on this host of its pod."""
    if alone:
        _emulate(REHEARSAL_DEVICES)
    experiment = _experiment(args, args.file, fields)
    folder = folder or os.path.join("runs", experiment.name)
    from jaxformers.pod.local_processes import join
    from jaxformers.pod.peer_monitor import STOPPED, Link
    from jaxformers.training import run_directory
    from jaxformers.training.loop import train as run

    if run_directory.was_finished(folder, experiment):
        print(f"{folder} was finished before; to start anew, remove it or give another --folder.")
        return 0
    with Link() if alone else join(run_directory.facts(experiment, folder)) as link:
        result = run(experiment, folder, link)
        link.leave()
    if result.finished:
        return 0
    within = ""
    while result.after:  # the last of the runs that followed is the one that was stopped
        result = result.after[-1]
        within = f" of {result.folder}"
    print(f"Stopped at step {result.step}{within}; the same command goes on from there.")
    return STOPPED


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM before there is anything to save ends the run with the status of a stopped one."""
    from jaxformers.pod.peer_monitor import STOPPED, Ended

    def stop(*_: object) -> None:
        raise Ended(STOPPED, "SIGTERM before the first step; the same command starts again")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _folder(args: argparse.Namespace) -> Iterator[str | None]:
    """The folder that was named; a rehearsal has one of its own that is gone afterwards."""
    if args.folder or not args.rehearse:
        yield args.folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxformers-") as folder:
        yield folder
    print("rehearsed: its folder is removed again; --folder DIR would keep it")


def _devices_each(processes: int) -> int:
    """Emulated devices of each process, so that all together are a multiple of eight or four."""
    divides = REHEARSAL_DEVICES % processes == 0
    return REHEARSAL_DEVICES // processes if divides else REHEARSAL_DEVICES // 2


def _emulate(devices: int) -> None:
    """Puts so many emulated CPU devices in place of the machine's own."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    with contextlib.suppress(RuntimeError):  # devices are in use already: a notebook or a test
        jax.config.update("jax_num_cpu_devices", devices)
        # A rehearsal waits for the compiler more than for anything else.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILATION}".strip()


def _experiment(args: argparse.Namespace, path: str, fields: list[str]) -> Experiment:
    """The experiment of a file or of a run's folder, with the fields that were given."""
    from jaxformers.training.config.overrides import override

    experiment, fields = _loaded(path, fields)
    if getattr(args, "rehearse", False):
        experiment = experiment.rehearse()
    return override(experiment, fields, f"jaxformers {args.verb} {path}", args.known)


def _loaded(path: str, fields: list[str]) -> tuple[Experiment, list[str]]:
    """The experiment of a file or of a run's folder, and the fields that are still to be set.

    Options that are parameters of the file's `experiment()` are its arguments.
    """
    from jaxformers.training.config.experiment_arguments import describe_arguments, split_arguments
    from jaxformers.training.config.experiment_files import call_experiment, load_function
    from jaxformers.training.run_directory import is_run, read_experiment

    if not path.endswith(".py") and is_run(path):
        return read_experiment(path), fields
    function = load_function(path)
    if {"-h", "--help"} & set(fields) and (lines := describe_arguments(function)):
        print("\n".join([f"options of {path}:", *lines, ""]))
    values, fields = split_arguments(function, fields)
    return call_experiment(function, path, **values), fields


def load_code(args: argparse.Namespace) -> None:
    """Loads the experiment file whose classes a run names, when one was given."""
    if args.file:
        from jaxformers.training.config.experiment_files import load_module

        load_module(args.file)


def tune(args: argparse.Namespace, fields: list[str]) -> int:
    """Trains a grid of runs, keeps the best and prints all results."""
    from jaxformers.pod.peer_monitor import STOPPED

    if args.rehearse:
        _emulate(REHEARSAL_DEVICES)
    grid = _grid(args)
    experiment = _experiment(args, args.file, fields)
    from jaxformers.runs.tune import tune as tuned_by
    from jaxformers.runs.tune_report import closing

    folder = args.folder or os.path.join("runs", f"{experiment.name}-tune")
    with contextlib.ExitStack() as stack:
        if args.rehearse and not args.folder:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="jaxformers-"))
        tuned = tuned_by(experiment, grid, args.seeds, folder, keep_all=args.keep_all)
        if tuned.finished:
            print("\n".join(closing(tuned, experiment.task)))
            return 0
    print(f"Stopped, {len(tuned.runs)} done; the same command goes on from there.")
    return STOPPED


def _grid(args: argparse.Namespace) -> dict[str, tuple]:
    """The fields and values of --try, or of the file's `grid()`."""
    grid: dict[str, tuple] = {}
    for field, *values in args.tried or ():
        if not values:
            raise ConfigError(f"--try {field}: give the values to try behind it")
        grid[field] = (*grid.get(field, ()), *values)
    if grid or not args.file.endswith(".py"):
        settings = grid
    else:
        from jaxformers.training.config.experiment_files import load_grid

        settings = load_grid(args.file)
    if not settings and not args.seeds:
        raise ConfigError("nothing to try: give --try FIELD VALUE VALUE ..., or --seeds")
    return settings


def evaluate(args: argparse.Namespace, fields: list[str]) -> None:
    """Evaluates runs and prints their metrics."""
    load_code(args)
    from jaxformers.runs.evaluate import evaluate as evaluate_runs

    for name, value in evaluate_runs(args.run, fields).items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


def prepare(args: argparse.Namespace, fields: list[str]) -> None:
    """Prepares a public data set."""
    from jaxformers.data.files.prepare import prepare as prepared

    print(f"prepared {prepared(args.name, args.data_dir)}")


def convert(args: argparse.Namespace, fields: list[str]) -> None:
    """Reads weights in any format we know and writes the published one."""
    load_code(args)
    from jaxformers.api import from_pretrained, save_pretrained
    from jaxformers.pretrained import registry, resolve
    from jaxformers.pretrained.formats.single_file import is_single_file
    from jaxformers.pretrained.loading import tokenizer_source
    from jaxformers.training.run_directory import is_run, tokenizer_folder

    model, variables = from_pretrained(args.source, weights=args.weights)
    family, tokenizer = registry.family_of(model), None
    if family.tokenizers and not is_single_file(args.source):
        run = is_run(args.source)
        tokenizer = tokenizer_folder(args.source) if run else tokenizer_source(resolve(args.source))
    save_pretrained(model, variables, args.target, tokenizer=tokenizer)
    if family.takes_images:
        _convert_preprocessing(args.source, args.target, args.weights)
    print(f"wrote {args.target}")


def _convert_preprocessing(source: str, target: str, weights: str | None) -> None:
    """Writes the source's image preprocessing beside its weights, where it is known."""
    from jaxformers.api import load_images
    from jaxformers.errors import WeightsError
    from jaxformers.pretrained.preprocessing.preprocessor_config import write_preprocessing

    try:
        write_preprocessing(load_images(source, weights=weights), target)
    except WeightsError as error:
        print(f"without preprocessing of pictures: {error}")


def describe(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the network and its parameters, or examples of a task of a mixture."""
    if args.devices is not None and args.devices < 1:
        raise ConfigError(f"--devices: {args.devices} is not at least 1")
    load_code(args)
    experiment = _experiment(args, args.file_or_run, fields)
    if args.example is not None:
        print(experiment.task.describe_examples(args.example))
        return
    from jaxformers.runs.describe import describe as described

    print(described(experiment, args.devices))


def check(args: argparse.Namespace, fields: list[str]) -> int:
    """Checks an experiment after a change to its model."""
    _emulate(REHEARSAL_DEVICES)
    experiment = _experiment(args, args.file, fields)
    from jaxformers.runs.check import check as checked

    findings = checked(experiment, args.file, args.update)
    return 0 if all(finding.ok for finding in findings) else 1


def serve(args: argparse.Namespace, fields: list[str]) -> None:
    """Serves a page on which the models are tried."""
    if args.port is not None and not 1 <= args.port <= 65535:
        raise ConfigError(f"--port: {args.port} is not between 1 and 65535")
    load_code(args)
    from jaxformers.serve.page import LOOPBACK, PORT
    from jaxformers.serve.page import serve as serve_page

    serve_page(args.run, args.pictures, args.host or LOOPBACK, args.port or PORT)


def classify_image(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the likeliest classes of pictures."""
    if args.top < 1:
        raise ConfigError(f"--top: {args.top} is not at least 1")
    load_code(args)
    from jaxformers.api import classify_images
    from jaxformers.tasks.images.image_inference import list_pictures

    named = 0
    paths, passed_over = list_pictures(args.picture)
    for line in passed_over:
        print(f"jaxformers: {line}", file=sys.stderr)
    for path in paths:
        try:
            (predictions,) = classify_images(args.run, path, top=args.top)
        except DamagedImageError as error:
            if not args.skip_damaged:
                raise
            print(f"left out: {error}", file=sys.stderr)
            continue
        shares = (f"{printable(name)} {share:.4f}" for name, share in predictions)
        print("\t".join([path, *shares]), flush=True)
        named += 1
    if paths and not named:
        raise DataError(f"none of the {len(paths):,} pictures decodes")


def compare(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints and draws several runs' results beside what they took."""
    load_code(args)
    from jaxformers.interpret import check_picture_path, save
    from jaxformers.runs import compare as compared

    check_picture_path(args.output)
    curves = compared.compare(args.run, args.metric)
    print(compared.table(curves, args.metric))
    print(f"wrote {save(compared.figure(curves, args.metric), args.output)}")

"""The verb `plan` of the command line."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from typing import TextIO

from jaxformers.cli.verbs import _experiment
from jaxformers.errors import ConfigError

INSIDE = "JAXFORMERS_PLAN_INSIDE"
"""The effort of the compiler, set for the process that plans."""
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
SEARCHED = ("--mesh", "--remat", "--accumulate", "--attention")


def plan(args: argparse.Namespace, fields: list[str]) -> int:
    """Plans an experiment on a pod; status 1 when it does not fit."""
    chosen = next((word for word in fields if word.startswith(SEARCHED)), None)
    if args.search and chosen:
        raise ConfigError(f"--search chooses {chosen} by itself; leave it out")
    if args.search and (args.json or args.picture or args.quick or args.price is not None):
        raise ConfigError(
            "--search prints a table, compiled quickly where that can do; plan what it finds for "
            "--json, --picture, --price, --quick"
        )
    if args.price is not None and not 0 <= args.price < math.inf:
        raise ConfigError(f"--price: {args.price} is no price; it is a number from 0 on")
    if args.slices is not None and args.topology is None:
        raise ConfigError("--slices is of a TPU pod: name it with --topology")
    effort = "least" if args.quick or args.search else "mixed"
    if args.topology is None or importlib.util.find_spec("libtpu") is None:
        effort = "full"
    elif INSIDE not in os.environ:
        return _guarded(args.words, effort)
    else:
        effort = os.environ[INSIDE]
    import jax

    if args.topology is not None:  # so that libtpu, where it is installed, looks for no TPU
        jax.config.update("jax_platforms", "cpu")
    experiment = _experiment(args, args.file, fields)
    from jaxformers import planning
    from jaxformers.interpret import check_picture_path, save

    if args.picture:
        check_picture_path(args.picture)
    if args.search:
        search_result = planning.search(
            experiment, args.topology, slices=args.slices, effort=effort
        )
        print(search_result.text(["jaxformers", "train", args.file, *fields]))
        return 0 if search_result.best else 1
    mesh = experiment.mesh if any(word.startswith("--mesh") for word in fields) else None
    choices = dict(mesh=mesh, slices=args.slices, price=args.price, effort=effort)
    # Standard error is caught while XLA compiles, for its warnings; this copy of it is not.
    with os.fdopen(os.dup(2), "w") as stderr_copy:
        result = planning.plan(
            experiment,
            args.topology,
            report=lambda text: print(text, file=stderr_copy, flush=True),
            **choices,
        )
    print(json.dumps(planning.to_json(result), indent=1) if args.json else planning.text(result))
    if args.picture:
        print(f"wrote {save(planning.figure(result), args.picture)}", file=sys.stderr)
    return 0 if result.fits else 1


def _guarded(words: list[str], first: str) -> int:
    """The status of the same command in a process that libtpu may crash, once more if it did."""
    for effort in dict.fromkeys((first, "full")):
        status = _in_a_process(words, effort)
        if -status not in CRASHES:
            return status if status >= 0 else 128 - status
        crash = f"libtpu crashed ({signal.Signals(-status).name})"
        if effort != "full":
            how = "at less than its full effort; compiling at full effort"
            print(f"{crash} {how}", file=sys.stderr)
    raise ConfigError(
        f"{crash} while it compiled this program, also at its full effort; another --accumulate, "
        "--mesh or --remat may pass"
    )


def _in_a_process(words: list[str], effort: str) -> int:
    """The same command in a process of its own: its status, or minus the signal that ended it."""
    command = [sys.executable, "-m", "jaxformers", "plan", *words]
    descriptors = [_inherited(sys.stdout, 1), _inherited(sys.stderr, 2)]
    try:
        ended = subprocess.run(
            command,
            env=os.environ | {INSIDE: effort},
            stdout=descriptors[0],
            stderr=descriptors[1],
            text=True,
            encoding="utf-8",
        )
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(ended.stdout or "")
    sys.stderr.write(ended.stderr or "")
    return ended.returncode


def _inherited(stream: TextIO, number: int) -> int | None:
    """None where a child writes to where we do; a pipe where a notebook or a test listens."""
    try:
        return None if stream.fileno() == number else subprocess.PIPE
    except (AttributeError, OSError, ValueError):
        return subprocess.PIPE

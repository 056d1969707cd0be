"""A pod of processes on this machine: the same program as on a real one, over gloo.

`launch` starts the processes, each told its place by environment variables; `join`, called by
each before JAX is used, finds that place, or that of a host of a real pod, and connects them.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO

from jaxformers.errors import ConfigError
from jaxformers.pod.consistency import Facts, code_facts
from jaxformers.pod.host_environment import (
    COORDINATOR,
    PROCESS,
    PROCESSES,
    SECRET_FILE,
    find_pod,
    on_tpu_machine,
    read_metadata,
)
from jaxformers.pod.libtpu import give_compiler_stacks
from jaxformers.pod.peer_monitor import Link
from jaxformers.pod.rendezvous import roll_call
from jaxformers.pod.supervisor import PARENT, end_all, forwarding
from jaxformers.pod.tpu_lock import clear_stale_lock

DEVICES = "JAXFORMERS_DEVICES"
HEARTBEAT = 30
"""Seconds without a sign of a host after which JAX ends the others."""
GRACE = 30.0
"""Seconds that the others may take to end by themselves once one has died."""


def launch(count: int, argv: Sequence[str], devices: int = 1, program: Sequence[str] = ()) -> int:
    """Runs `jaxformers ARGV` as `count` processes of `devices` CPU devices each; exit status.

    `program` names another command than `python -m jaxformers`, one that calls `join`.

    Process 0 has the terminal; the others are silent, and what they wrote to standard error is
    shown when one of them is the first to fail. SIGINT and SIGTERM reach every process once. When
    one dies the rest are ended; the status is that of the first to fail, 128 + its signal if that
    ended it.

    Raises:
        ConfigError: fewer than one process.
    """
    if count < 1:
        raise ConfigError(f"--processes: {count} is not at least 1")
    with contextlib.ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        command = [*(program or (sys.executable, "-m", "jaxformers")), *argv]
        secret = stack.enter_context(tempfile.NamedTemporaryFile(prefix="jaxformers-"))  # mode 600
        secret.write(secrets.token_hex(32).encode())
        secret.flush()
        port, children = _free_port(), []
        stack.callback(end_all, children)
        for process in range(count):
            environment = _environment(process, count, port, devices) | {SECRET_FILE: secret.name}
            children.append(_start(command, environment, errors[process] if process else None))
        stack.enter_context(forwarding(children))
        first = _wait(children)
        status = children[first].returncode
        if first and status:
            _show(first, status, errors[first])
    return 128 - status if status < 0 else status


def join(facts: Facts | None = None, say: Callable[[str], None] = print) -> Link:
    """Finds this process's pod, calls its roll and connects JAX; a link to nobody when alone.

    Call it before JAX looks for devices.

    Args:
        facts: what all hosts must have in common, the code apart.
        say: takes the lines that a person should see while the hosts gather.

    Raises:
        ConfigError: a place that cannot be, no secret, too low a limit of open files, or hosts
            that differ.
        Ended: hosts that did not come.
    """
    pod = find_pod(os.environ, read_metadata)
    if on_tpu_machine() and (line := clear_stale_lock()):
        say(line)
    give_compiler_stacks()
    if pod is None:
        return Link()
    link = roll_call(pod, {**code_facts(), **(facts or {})}, say)
    with link:
        _connect(link)
    return link


def _connect(link: Link) -> None:
    import jax

    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_num_cpu_devices", int(os.environ.get(DEVICES, "1")))
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        _hide_gloo()
    jax.distributed.initialize(
        link.coordinator,
        link.pod.processes,
        link.pod.process,
        # By default JAX's service would listen at every address of host 0.
        coordinator_bind_address=link.coordinator if link.pod.process == 0 else None,
        cluster_detection_method="deactivate",  # our own has found it, and the roll-call agreed
        initialization_timeout=math.ceil(link.pod.deadline),
        heartbeat_timeout_seconds=HEARTBEAT,
        shutdown_timeout_seconds=HEARTBEAT,
    )


def _environment(process: int, count: int, port: int, devices: int) -> dict[str, str]:
    ours = {
        PROCESS: str(process),
        PROCESSES: str(count),
        COORDINATOR: f"127.0.0.1:{port}",
        DEVICES: str(devices),
        PARENT: str(os.getpid()),
        "JAX_PLATFORMS": "cpu",
    }
    return {**os.environ, **ours}


def _start(command: Sequence[str], environment: dict, errors: IO | None) -> subprocess.Popen:
    # A session of its own: the terminal's Ctrl-C must reach it once, through us, not twice.
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=None if errors is None else subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
    )


def _wait(children: list[subprocess.Popen]) -> int:
    """Waits for all, or for one to fail and the rest to be ended; which one decides the status."""
    while True:
        codes = [child.poll() for child in children]
        failed = [i for i, code in enumerate(codes) if code]
        if failed:
            deadline = time.monotonic() + GRACE
            while None in [c.poll() for c in children] and time.monotonic() < deadline:
                time.sleep(0.05)
            # One that says what is wrong tells more than one that its peers' end took along.
            first = min(failed, key=lambda i: codes[i] < 0)
            # Process 0 has said it on the terminal when it ended for the same reason.
            return 0 if children[0].poll() == codes[first] else first
        if None not in codes:
            return 0
        time.sleep(0.05)


def _show(process: int, status: int, errors: IO) -> None:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").splitlines()
    ended = f"by signal {-status}" if status < 0 else f"with status {status}"
    print(f"process {process} ended {ended}; it said last:", file=sys.stderr)
    print("\n".join(lines[-20:]), file=sys.stderr)


def _hide_gloo() -> None:
    """Keeps gloo's lines, printed from C++ whenever it connects, out of what Python prints."""
    sys.stdout.flush()
    ours = os.dup(1)
    sys.stdout = os.fdopen(ours, "w", buffering=1, encoding=sys.stdout.encoding)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

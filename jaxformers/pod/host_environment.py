"""This process's place in its pod, from environment variables or a TPU VM's metadata."""

from __future__ import annotations

import os
import socket
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxformers.errors import ConfigError

PROCESS = "JAXFORMERS_PROCESS"
PROCESSES = "JAXFORMERS_PROCESSES"
COORDINATOR = "JAXFORMERS_COORDINATOR"
DEADLINE = "JAXFORMERS_DEADLINE"
SECRET_FILE = "JAXFORMERS_SECRET_FILE"
"""Names the file of the secret by which the hosts of a pod know one another."""
SECRET_LENGTHS = 16, 4096
"""Bytes that a secret has, at least and at most."""
PORT = 8490
"""Where process 0 listens, unless the coordinator's address says otherwise."""
LONGEST = 1e9
"""Seconds that a deadline may have: JAX counts them in 32 bits."""
GOOGLE = "0x1ae0"
"""The vendor of the PCI devices that every machine with a TPU has."""

Metadata = Callable[[str], str | None]


@dataclass(frozen=True)
class Pod:
    """A process's place among those of all hosts."""

    process: int
    """Its number, from 0."""
    processes: int
    """How many there are."""
    coordinator: str
    """The host of process 0, and its port: `host:port`."""
    names: tuple[str, ...] = ()
    """Host names by process, where they are known; empty strings where not."""
    deadline: float = 300.0
    """Seconds to wait until every process has come."""
    began: float = field(default_factory=time.time)
    """Unix time at which this start of the run began."""
    secret: bytes = field(default=b"", repr=False)
    """What only the hosts of this pod have; never sent, printed or logged."""

    def called(self, process: int, name: str = "") -> str:
        """`host 3 (its name)`, by the name it gave or the one that the surroundings told."""
        name = name or (self.names[process] if process < len(self.names) else "")
        return f"host {process} ({name})" if name else f"host {process}"

    @property
    def address(self) -> tuple[str, int]:
        """Where process 0 listens."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def find_pod(environment: Mapping[str, str], metadata: Metadata) -> Pod | None:
    """This process's place, or None where it is alone; with the secret of its pod.

    Our own variables come first, then those of GKE, then a TPU VM's metadata. Where
    JAX_PLATFORMS is `cpu` only ours count.

    Args:
        environment: of this process.
        metadata: a value of the machine's metadata server; None where it has none.

    Raises:
        ConfigError: variables that do not fit together, or no secret.
    """
    pod = _place(environment, metadata)
    return pod and replace(pod, secret=read_secret(environment))


def read_secret(environment: Mapping[str, str]) -> bytes:
    """The secret in the file that the environment names.

    Raises:
        ConfigError: no such file, one that everybody may read, or too short or long a secret.
    """
    path = environment.get(SECRET_FILE)
    if not path:
        raise ConfigError(
            f"{SECRET_FILE} is not set: it names a file with a secret, the same on every host of "
            "the pod (openssl rand -hex 32 > secret; chmod 600 secret; copy it to every host)"
        )
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{SECRET_FILE}: {path} is no file")
        if status.st_mode & stat.S_IRWXO:
            raise ConfigError(f"{SECRET_FILE}: everybody may read {path}: chmod 600 {path}")
        with open(path, "rb") as file:
            secret = file.read(SECRET_LENGTHS[1] + 1).strip()
    except OSError as error:
        raise ConfigError(f"{SECRET_FILE}: cannot read {path}: {error.strerror}") from None
    if not SECRET_LENGTHS[0] <= len(secret) <= SECRET_LENGTHS[1]:
        raise ConfigError(
            f"{SECRET_FILE}: {path} holds {len(secret):,} bytes; a secret has "
            f"{SECRET_LENGTHS[0]} to {SECRET_LENGTHS[1]:,}"
        )
    return secret


def _place(environment: Mapping[str, str], metadata: Metadata) -> Pod | None:
    """The process's place without the secret; None where it is alone."""
    deadline = _number(environment, DEADLINE, "300", float)
    if not 0 < deadline <= LONGEST:  # NaN neither
        raise ConfigError(
            f"{DEADLINE} is {environment[DEADLINE]!r}; it must be seconds above 0, "
            f"at most {LONGEST:.0e}"
        )
    if PROCESSES in environment:
        process, count = (_number(environment, name) for name in (PROCESS, PROCESSES))
        return _checked(Pod(process, count, environment.get(COORDINATOR, ""), (), deadline))
    if environment.get("JAX_PLATFORMS") == "cpu":
        return None
    if "TPU_WORKER_HOSTNAMES" in environment:
        hosts = environment["TPU_WORKER_HOSTNAMES"].split(",")
        worker = _number(environment, "TPU_WORKER_ID", "0")
    elif endpoints := metadata("worker-network-endpoints"):
        # Either host names, or name:id:address of each.
        hosts = [endpoint.split(":")[-1] for endpoint in endpoints.split(",")]
        worker = int(metadata("agent-worker-number") or 0)
        environment = {**_assignments(metadata("tpu-env") or ""), **environment}
    else:
        return None
    return _of_slice(environment, [host.strip() for host in hosts], worker, deadline)


def _of_slice(
    environment: Mapping[str, str], hosts: list[str], worker: int, deadline: float
) -> Pod | None:
    """The place of a worker of one slice among all slices."""
    slices = _number(environment, "MEGASCALE_NUM_SLICES", "1")
    at = _number(environment, "MEGASCALE_SLICE_ID", "0") * len(hosts)
    count = slices * len(hosts)
    if count == 1:
        return None
    first = environment.get("MEGASCALE_COORDINATOR_ADDRESS", "") if slices > 1 else hosts[0]
    names = ["" for _ in range(count)]
    names[at : at + len(hosts)] = hosts
    # The port in Megascale's own address is Megascale's.
    coordinator = f"{first.split(':')[0]}:{PORT}"
    return _checked(Pod(at + worker, count, coordinator, tuple(names), deadline))


def _number(
    environment: Mapping[str, str], name: str, default: str = "", kind: type = int
) -> int | float:
    text = environment.get(name, default)
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}; it must be a number in a pod") from None


def _checked(pod: Pod) -> Pod:
    host, _, port = pod.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port[:6]) < 1 << 16:
        raise ConfigError(
            f"{COORDINATOR} is {pod.coordinator!r}; it must be host:port of process 0 in a pod, "
            "the port from 1 to 65535"
        )
    if not 0 <= pod.process < pod.processes:
        raise ConfigError(f"process {pod.process} is not below the {pod.processes} of its pod")
    return pod


def _assignments(text: str) -> dict[str, str]:
    """The lines `NAME: 'value'` of a TPU VM's environment."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs if value.strip()}


def read_metadata(key: str) -> str | None:
    """A value of this machine's metadata server; None at once where no TPU can be.

    Raises:
        ConfigError: there must be a server, and it does not answer.
    """
    if "TPU_SKIP_MDS_QUERY" in os.environ or not on_tpu_machine():
        return None
    server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    url = f"http://{server}/computeMetadata/v1/instance/attributes/{key}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    for _ in range(3):
        try:
            with urllib.request.urlopen(request, timeout=3) as answer:
                return answer.read(1 << 20).decode()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
        except OSError:
            continue
    raise ConfigError(
        f"the metadata server does not tell this TPU host its place ({key}); set {PROCESS}, "
        f"{PROCESSES} and {COORDINATOR}, or TPU_SKIP_MDS_QUERY=1 to train on this host alone"
    )


def on_tpu_machine(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether this machine has a device of the TPUs' maker, as a laptop never has."""
    try:
        return any(path.read_text().strip() == GOOGLE for path in devices.glob("*/vendor"))
    except OSError:
        return False


def own_name() -> str:
    """The name that this host's operating system gives it."""
    return socket.gethostname()

"""Where a process stands: by our variables, GKE's, a TPU VM's metadata; or alone."""

from __future__ import annotations

import os
import time

import pytest

from jaxformers.errors import ConfigError
from jaxformers.pod import host_environment
from jaxformers.pod.host_environment import PORT, on_tpu_machine, read_metadata

NONE = {}.get
SECRET = "0123456789abcdef"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def find_pod(secret):
    def find(environment, metadata):
        named = {"JAXFORMERS_SECRET_FILE": str(secret)} | environment
        return host_environment.find_pod(named, metadata)

    return find


OURS = {
    "JAXFORMERS_PROCESS": "1",
    "JAXFORMERS_PROCESSES": "4",
    "JAXFORMERS_COORDINATOR": "10.0.0.1:99",
}
GKE = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "job-0-0.job,job-0-1.job"}
SLICES = {
    "MEGASCALE_NUM_SLICES": "3",
    "MEGASCALE_SLICE_ID": "2",
    "MEGASCALE_COORDINATOR_ADDRESS": "job-slice-0-0.job:8080",
}


def identity(pod):
    return pod.process, pod.processes, pod.coordinator


def test_our_own_variables_come_first(find_pod):
    pod = find_pod({**GKE, **OURS, "JAXFORMERS_DEADLINE": "20"}, NONE)
    assert identity(pod) == (1, 4, "10.0.0.1:99")
    assert pod.address == ("10.0.0.1", 99)
    assert pod.deadline == 20.0


def test_on_gke_the_first_host_of_the_list_is_the_coordinator(find_pod):
    pod = find_pod(GKE, NONE)
    assert identity(pod) == (1, 2, f"job-0-0.job:{PORT}")
    assert pod.called(1) == "host 1 (job-0-1.job)"


def test_with_several_slices_the_workers_are_numbered_slice_by_slice(find_pod):
    pod = find_pod({**GKE, **SLICES}, NONE)
    assert identity(pod) == (5, 6, f"job-slice-0-0.job:{PORT}")
    assert pod.names == ("", "", "", "", "job-0-0.job", "job-0-1.job")
    assert pod.called(0) == "host 0" and pod.called(0, "a") == "host 0 (a)"


@pytest.mark.parametrize("endpoints", ["a,b,c,d", "n:1:a,n:2:b,n:3:c,n:4:d"])
def test_on_a_tpu_vm_the_metadata_tell(endpoints, find_pod):
    metadata = {"agent-worker-number": "3", "worker-network-endpoints": endpoints}
    pod = find_pod({}, metadata.get)
    assert identity(pod) == (3, 4, f"a:{PORT}")
    metadata["tpu-env"] = "".join(f"{name}: '{value}'\n" for name, value in SLICES.items())
    assert identity(find_pod({}, metadata.get)) == (11, 12, f"job-slice-0-0.job:{PORT}")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"},
        {**GKE, "JAX_PLATFORMS": "cpu"},
    ],
)
def test_a_single_host_is_alone(environment, find_pod):
    assert find_pod(environment, NONE) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JAXFORMERS_PROCESS": "4"}, "process 4 is not below the 4 of its pod"),
        ({"JAXFORMERS_PROCESS": "x"}, "JAXFORMERS_PROCESS is 'x'; it must be a number"),
        ({"JAXFORMERS_COORDINATOR": "host"}, "'host'; it must be host:port of process 0"),
        ({"JAXFORMERS_COORDINATOR": "a:0"}, "'a:0'; it must be .* the port from 1 to 65535"),
        ({"JAXFORMERS_COORDINATOR": "a:99999"}, "'a:99999'; it must be .* from 1 to 65535"),
        ({"JAXFORMERS_DEADLINE": "soon"}, "JAXFORMERS_DEADLINE is 'soon'; it must be a number"),
        *(
            ({"JAXFORMERS_DEADLINE": text}, f"'{text}'; it must be seconds above 0")
            for text in ("nan", "inf", "1e10", "-1", "0")
        ),
    ],
)
def test_a_place_that_cannot_be_is_told(change, message, find_pod):
    with pytest.raises(ConfigError, match=message):
        find_pod({**OURS, **change}, NONE)


def test_a_machine_without_a_tpu_is_known_by_its_devices_and_never_asks(tmp_path):
    device = tmp_path / "0000:00:04.0"
    device.mkdir()
    (device / "vendor").write_text("0x8086\n")
    assert not on_tpu_machine(tmp_path)
    (device / "vendor").write_text("0x1ae0\n")
    assert on_tpu_machine(tmp_path)
    start = time.monotonic()
    assert on_tpu_machine() or read_metadata("agent-worker-number") is None
    assert time.monotonic() - start < 1


def test_the_secret_comes_from_its_file_and_is_never_shown(find_pod):
    pod = find_pod(OURS, NONE)
    assert pod.secret == SECRET.encode()
    assert SECRET not in repr(pod) and SECRET not in str(pod)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "cannot read .*: No such file"),
        (lambda path: path.write_text("short"), "holds 5 bytes; a secret has 16 to 4,096"),
        (lambda path: path.write_text("x" * 5000), "holds 4,097 bytes"),
        (lambda path: path.chmod(0o644), "everybody may read .*: chmod 600"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is no file"),
        (lambda path: (path.unlink(), path.mkdir()), "is no file"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused(change, message, secret, find_pod):
    change(secret)
    with pytest.raises(ConfigError, match=f"JAXFORMERS_SECRET_FILE: .*{message}"):
        find_pod(OURS, NONE)


def test_a_pod_without_a_secret_is_refused_with_the_way_to_make_one(find_pod):
    with pytest.raises(ConfigError, match=r"JAXFORMERS_SECRET_FILE is not set: .*openssl rand"):
        host_environment.find_pod(OURS, NONE)
    assert host_environment.find_pod({}, NONE) is None

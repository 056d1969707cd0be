"""Where a process stands: by our variables, GKE's, a TPU VM's metadata; or alone."""

from __future__ import annotations

import time

import pytest

from jaxformers.errors import ConfigError
from jaxformers.pod.host_environment import PORT, find_pod, on_tpu_machine, read_metadata

NONE = {}.get
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


def place(pod):
    return pod.process, pod.processes, pod.coordinator


def test_our_own_variables_come_first():
    pod = find_pod({**GKE, **OURS, "JAXFORMERS_DEADLINE": "20"}, NONE)
    assert place(pod) == (1, 4, "10.0.0.1:99")
    assert pod.address == ("10.0.0.1", 99)
    assert pod.deadline == 20.0


def test_on_gke_the_first_host_of_the_list_is_the_coordinator():
    pod = find_pod(GKE, NONE)
    assert place(pod) == (1, 2, f"job-0-0.job:{PORT}")
    assert pod.called(1) == "host 1 (job-0-1.job)"


def test_with_several_slices_the_workers_are_numbered_slice_by_slice():
    pod = find_pod({**GKE, **SLICES}, NONE)
    assert place(pod) == (5, 6, f"job-slice-0-0.job:{PORT}")
    assert pod.names == ("", "", "", "", "job-0-0.job", "job-0-1.job")
    assert pod.called(0) == "host 0" and pod.called(0, "a") == "host 0 (a)"


@pytest.mark.parametrize("endpoints", ["a,b,c,d", "n:1:a,n:2:b,n:3:c,n:4:d"])
def test_on_a_tpu_vm_the_metadata_tell(endpoints):
    metadata = {"agent-worker-number": "3", "worker-network-endpoints": endpoints}
    pod = find_pod({}, metadata.get)
    assert place(pod) == (3, 4, f"a:{PORT}")
    metadata["tpu-env"] = "".join(f"{name}: '{value}'\n" for name, value in SLICES.items())
    assert place(find_pod({}, metadata.get)) == (11, 12, f"job-slice-0-0.job:{PORT}")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"},
        {**GKE, "JAX_PLATFORMS": "cpu"},
    ],
)
def test_a_single_host_is_alone(environment):
    assert find_pod(environment, NONE) is None


@pytest.mark.parametrize(
    ("change", "said"),
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
def test_a_place_that_cannot_be_is_told(change, said):
    with pytest.raises(ConfigError, match=said):
        find_pod({**OURS, **change}, NONE)


def test_a_machine_without_a_tpu_is_known_by_its_devices_and_never_asks(tmp_path):
    device = tmp_path / "0000:00:04.0"
    device.mkdir()
    (device / "vendor").write_text("0x8086\n")
    assert not on_tpu_machine(tmp_path)
    (device / "vendor").write_text("0x1ae0\n")
    assert on_tpu_machine(tmp_path)
    began = time.monotonic()
    assert on_tpu_machine() or read_metadata("agent-worker-number") is None
    assert time.monotonic() - began < 1

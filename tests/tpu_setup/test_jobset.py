"""The JobSet: valid by its schema, one pod a host, restarted by the statuses that ask for it."""

from __future__ import annotations

import json
import subprocess
import sys

import fastjsonschema
import pytest
from jobset_schema import JOBSET
from pods import GKE, SCRIPTS

valid = fastjsonschema.compile(JOBSET)


def manifest(tmp_path, config: str = GKE) -> dict:
    file = tmp_path / "pod.conf"
    file.write_text(config)
    command = [sys.executable, SCRIPTS / "config.py", file]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = ["run=123456", "version=0123456789ab", *(row.replace("\t", "=", 1) for row in rows)]
    command = [sys.executable, SCRIPTS / "jobset.py", *pairs]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def pod(jobset: dict) -> dict:
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("topology", ["v4:2x2x2", "v5e:4x4", "v5p:4x4x4", "v6e:16x16"])
def test_the_jobset_is_valid_and_has_a_pod_a_host(topology, tmp_path):
    jobset = manifest(tmp_path, GKE.replace("v6e:4x4", topology))
    valid(jobset)
    chips = 1
    for side in topology.partition(":")[2].split("x"):
        chips *= int(side)
    (slices,) = jobset["spec"]["replicatedJobs"]
    assert slices["replicas"] == 2
    job = slices["template"]["spec"]
    limit = pod(jobset)["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == chips // limit
    assert pod(jobset)["nodeSelector"]["cloud.google.com/gke-tpu-topology"] in topology


def test_the_schema_refuses_a_field_that_is_not_there(tmp_path):
    jobset = manifest(tmp_path)
    pod(jobset)["restartPolicies"] = "Never"
    with pytest.raises(fastjsonschema.JsonSchemaException):
        valid(jobset)


def test_only_a_status_that_asks_for_it_or_an_eviction_restarts_the_set(tmp_path):
    jobset = manifest(tmp_path)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    evicted, failed = job["podFailurePolicy"]["rules"]
    assert evicted["action"] == "Count"
    assert evicted["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert failed["action"] == "FailJob"
    assert failed["onExitCodes"] == {"operator": "NotIn", "values": [75, 134, 137]}
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_words_of_a_person_stay_strings(tmp_path):
    jobset = manifest(tmp_path)
    container = pod(jobset)["containers"][0]
    assert container["args"] == ["--note", "it's: [a, {b}]"]
    assert container["command"][:3] == ["jaxformers", "train", "experiments/x.py"]
    assert pod(jobset)["serviceAccountName"] == "trainer"

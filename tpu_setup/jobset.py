"""Prints the JobSet (jobset.x-k8s.io/v1alpha2) of a run on GKE, as JSON, which kubectl reads.

`python3 jobset.py name=... image=... argument=...` takes the pairs of `config.py`. Values only
ever become JSON strings and numbers, so none of them can add a field.
"""

from __future__ import annotations

import json
import sys
from typing import Any

RESUME = [75, 134, 137]  # stopped with a checkpoint, or a peer was lost
RESTARTS = 100
SECRET = "/etc/jaxformers"


def jobset(values: dict[str, str], arguments: list[str]) -> dict[str, Any]:
    """The manifest: one Job a slice, one pod a host.

    A pod that ends with a status of RESUME, or is evicted, restarts the whole set; any other
    failure ends it at once, by the reason `PodFailurePolicy`.
    """
    hosts = int(values["hosts"])
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Count",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": RESUME}},
            ]
        },
        "template": {"spec": pod(values, arguments)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": values["name"],
            "labels": {"jaxformers-run": values["run"]},
            "annotations": {
                # One slice, one node pool.
                "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
            },
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": RESTARTS,
                "rules": [
                    {
                        "name": "mistake",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": "slice", "replicas": int(values["slices"]), "template": {"spec": job}}
            ],
        },
    }


def pod(values: dict[str, str], arguments: list[str]) -> dict[str, Any]:
    """One host's pod: all its chips, shared memory for the data workers, time to save."""
    container = {
        "name": "train",
        "image": f"{values['image']}:{values['version']}",
        "command": ["jaxformers", "train", values["experiment"], "--folder", values["folder"]],
        "args": arguments,
        "resources": {"limits": {"google.com/tpu": int(values["chips_per_host"])}},
        "env": [{"name": "JAXFORMERS_SECRET_FILE", "value": f"{SECRET}/secret"}],
        "volumeMounts": [
            {"name": "memory", "mountPath": "/dev/shm"},
            {"name": "secret", "mountPath": SECRET, "readOnly": True},
        ],
    }
    secret = {"secretName": f"{values['name']}-rendezvous", "defaultMode": 0o400}
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 120,
        # As process 1 of its container an abort would not end with 134.
        "shareProcessNamespace": True,
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": values["label"],
            "cloud.google.com/gke-tpu-topology": values["size"],
            "jaxformers-pod": values["name"],
        },
        "containers": [container],
        "volumes": [
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "secret", "secret": secret},
        ],
    }
    if values["service_account"]:
        spec["serviceAccountName"] = values["service_account"]
    return spec


def main() -> None:
    """Print the manifest of the pairs on the command line."""
    pairs = [pair.partition("=")[::2] for pair in sys.argv[1:]]
    arguments = [value for key, value in pairs if key == "argument"]
    print(json.dumps(jobset(dict(pairs), arguments), indent=1))


if __name__ == "__main__":
    main()

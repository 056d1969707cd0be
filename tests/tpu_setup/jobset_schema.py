"""The fields of a JobSet that a training run may have, as a JSON schema.

Names and types are those of the API of JobSet v1alpha2, as all releases from 0.6 to 0.12 have it,
and of the Job and Pod of Kubernetes in it. The schema is closed: a field that is misspelled, or
stands where the API has none, fails, although an API server may drop it in silence.
"""

from __future__ import annotations

TEXT = {"type": "string"}
NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
LABEL = {"type": "string", "pattern": r"^([A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?)?$"}
COUNT = {"type": "integer", "minimum": 0}
BOOL = {"type": "boolean"}


def one_of(*values: str) -> dict:
    return {"enum": list(values)}


def many(item: dict, **more) -> dict:
    return {"type": "array", "items": item, **more}


def table(value: dict) -> dict:
    return {"type": "object", "additionalProperties": value}


def fields(required: str = "", **properties: dict) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


METADATA = fields("name", name=NAME, labels=table(LABEL), annotations=table(TEXT), namespace=NAME)
CONTAINER = fields(
    "name image",
    name=NAME,
    image=TEXT,
    command=many(TEXT),
    args=many(TEXT),
    workingDir=TEXT,
    env=many(fields("name", name=TEXT, value=TEXT)),
    resources=fields(limits=table({"type": ["integer", "string"]})),
    volumeMounts=many(fields("name mountPath", name=NAME, mountPath=TEXT, readOnly=BOOL)),
)
POD = fields(
    "containers restartPolicy",
    containers=many(CONTAINER, minItems=1),
    restartPolicy=one_of("Never", "OnFailure"),
    terminationGracePeriodSeconds=COUNT,
    shareProcessNamespace=BOOL,
    hostNetwork=BOOL,
    dnsPolicy=one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    nodeSelector=table(LABEL),
    serviceAccountName=NAME,
    volumes=many(
        fields(
            "name",
            name=NAME,
            emptyDir=fields(medium=TEXT, sizeLimit=TEXT),
            secret=fields("secretName", secretName=NAME, defaultMode=COUNT),
        )
    ),
)
POD_FAILURE_RULE = fields(
    "action",
    action=one_of("FailJob", "Ignore", "Count", "FailIndex"),
    onExitCodes=fields(
        "operator values",
        containerName=NAME,
        operator=one_of("In", "NotIn"),
        values=many({"type": "integer", "minimum": 1, "maximum": 255}, minItems=1),
    ),
    onPodConditions=many(fields("type status", type=TEXT, status=one_of("True", "False"))),
)
JOB = fields(
    "template",
    parallelism=COUNT,
    completions=COUNT,
    completionMode=one_of("Indexed", "NonIndexed"),
    backoffLimit=COUNT,
    podFailurePolicy=fields("rules", rules=many(POD_FAILURE_RULE, maxItems=20)),
    template=fields("spec", spec=POD),
)
FAILURE_RULE = fields(
    "name action",
    name={"type": "string", "pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    action=one_of(
        "FailJobSet",
        "RestartJobSet",
        "RestartJobSetAndIgnoreMaxRestarts",
    ),
    onJobFailureReasons=many(
        one_of(
            "BackoffLimitExceeded",
            "DeadlineExceeded",
            "FailedIndexes",
            "MaxFailedIndexesExceeded",
            "PodFailurePolicy",
        )
    ),
    targetReplicatedJobs=many(NAME),
)
JOBSET = fields(
    "apiVersion kind metadata spec",
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=METADATA,
    spec=fields(
        "replicatedJobs",
        replicatedJobs=many(
            fields("name template", name=NAME, replicas=COUNT, template=fields("spec", spec=JOB)),
            minItems=1,
        ),
        failurePolicy=fields(
            maxRestarts=COUNT,
            rules=many(FAILURE_RULE),
        ),
        network=fields(enableDNSHostnames=BOOL, subdomain=NAME),
        suspend=BOOL,
        ttlSecondsAfterFinished=COUNT,
    ),
)

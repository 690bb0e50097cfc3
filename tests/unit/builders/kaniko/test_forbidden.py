"""What a hostile Dockerfile cannot do in a build pod, by the pod's description: each operation with
what keeps it from that.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from imagemill.builders.kaniko.job import Circumstances, own_secrets
from imagemill.builders.kaniko.overlay import executor, pod_spec
from imagemill.builders.kaniko.validation import valid_job
from imagemill.config import KanikoBuilder
from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference

Job = dict[str, Any]

HASH = "0123456789abcdef" * 4
IMAGE = ImageReference.parse("registry.example.com/team/app").with_tag(HASH)
STORES = {
    "s3": {"build_context_store": "s3://bucket/contexts"},
    "claim": {"build_context_store": "file:///contexts", "context_volume_claim": "contexts"},
}


@pytest.fixture(params=STORES)
def job(request: pytest.FixtureRequest) -> Job:
    """The Job of a build with a login, as configs have it that say no more than they must."""
    store = STORES[request.param]
    section = KanikoBuilder.model_validate({"destination": IMAGE.repository, **store})
    inputs = BuildInputs(IMAGE, source_hash=HASH, build_id="build-1")
    name = valid_job(section, inputs, f"{store['build_context_store']}/{HASH}.tar.gz")["metadata"][
        "name"
    ]
    facts = Circumstances(
        docker_secret=f"{name}-registry",
        context_secret=f"{name}-context" if section.is_signed else None,
    )
    return valid_job(section, inputs, f"{store['build_context_store']}/{HASH}.tar.gz", facts)


def mounts(job: Job) -> list[Job]:
    return list(executor(job).get("volumeMounts") or ())


def volumes(job: Job) -> list[Job]:
    return list(pod_spec(job).get("volumes") or ())


def secrets(job: Job) -> Iterator[str]:
    """The Secrets that the pod can read."""
    yield from (volume["secret"]["secretName"] for volume in volumes(job) if "secret" in volume)
    for variable in executor(job)["env"]:
        if "valueFrom" in variable:
            yield variable["valueFrom"]["secretKeyRef"]["name"]


def lacks(capability: str) -> Callable[[Job], bool]:
    def check(job: Job) -> bool:
        given = executor(job)["securityContext"]["capabilities"]
        return given["drop"] == ["ALL"] and capability not in given["add"]

    return check


def is_unset(name: str) -> Callable[[Job], bool]:
    return lambda job: not pod_spec(job).get(name)


def has_no_variable(start: str) -> Callable[[Job], bool]:
    return lambda job: not any(each["name"].startswith(start) for each in executor(job)["env"])


FORBIDDEN: dict[str, Callable[[Job], bool]] = {
    "ask the cluster's API with a token of the pod's": lambda job: (
        pod_spec(job)["automountServiceAccountToken"] is False
        and not any("projected" in volume for volume in volumes(job))
    ),
    "be an identity in the cloud that the config has not named": is_unset("serviceAccountName"),
    "read a Secret that is not this build's own": lambda job: (
        set(secrets(job)) == set(own_secrets(job))
    ),
    "read the key of a store at Amazon": has_no_variable("AWS_"),
    "read the key of a store at Google": has_no_variable("GOOGLE_"),
    "read the key of a store at Azure": has_no_variable("AZURE_"),
    "read another build's context in the claim": lambda job: all(
        mount.get("subPath") == f"{HASH}.tar.gz"
        for mount in mounts(job)
        if mount["name"] == "imagemill-context"
    ),
    "learn from its environment where the namespace's services are": lambda job: (
        pod_spec(job)["enableServiceLinks"] is False
    ),
    "change what is mounted": lambda job: all(mount["readOnly"] for mount in mounts(job)),
    "read or write a folder of the node": lambda job: (
        not any("hostPath" in volume for volume in volumes(job))
    ),
    "listen on the node's network": is_unset("hostNetwork"),
    "see the node's processes": is_unset("hostPID"),
    "use the node's shared memory": is_unset("hostIPC"),
    "see the processes of other containers": is_unset("shareProcessNamespace"),
    "have a port on the node": lambda job: not executor(job).get("ports"),
    "be privileged": lambda job: not executor(job)["securityContext"].get("privileged"),
    "gain privileges by a program with setuid": lambda job: (
        executor(job)["securityContext"]["allowPrivilegeEscalation"] is False
    ),
    "call what the runtime's seccomp profile forbids": lambda job: (
        pod_spec(job)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    ),
    "mount a file system": lacks("SYS_ADMIN"),
    "load a module into the kernel": lacks("SYS_MODULE"),
    "trace processes": lacks("SYS_PTRACE"),
    "send raw packets, and so another's address": lacks("NET_RAW"),
    "change interfaces and routes": lacks("NET_ADMIN"),
    "open files by their handles, past the container": lacks("DAC_READ_SEARCH"),
    "make devices": lacks("MKNOD"),
    "set the clock": lacks("SYS_TIME"),
    "leave its root folder": lacks("SYS_CHROOT"),
}


@pytest.mark.parametrize("operation", FORBIDDEN)
def test_a_dockerfile_cannot(operation: str, job: Job) -> None:
    assert FORBIDDEN[operation](job)

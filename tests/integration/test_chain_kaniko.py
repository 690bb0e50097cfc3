"""The chain with Kaniko as its builder: real workers, a real registry, and a cluster in which the
test plays Kaniko.
"""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from urllib3 import request

import servers
from imagemill.builders.kaniko.api import JOBS, PODS, SECRETS, Resource, connect
from imagemill.messages import BuildReport, State
from imagemill.reference import ImageReference
from images import OCI_INDEX
from kaniko_chain import CONFIG, MANIFEST, begin, destination, job, push
from kubernetes_server import KubernetesServer
from service import Service, service, until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesServer]:
    with KubernetesServer(tmp_path) as server:
        yield server


@pytest.fixture
def running(
    tmp_path: Path, redis_url: str, key_prefix: str, registry: str, cluster: KubernetesServer
) -> Iterator[Service]:
    """A light worker; the pool for Kaniko is started by the test."""
    config = tmp_path / "launch-config.yaml"
    name = key_prefix.strip(":")
    config.write_text(
        CONFIG.format(registry=registry, name=name, store=(tmp_path / "contexts").as_uri())
    )
    settings = {
        "IMAGEMILL_CONFIG": str(config),
        "IMAGEMILL_REDELIVERY_SECONDS": "2",
        "KUBECONFIG": str(cluster.kubeconfig),
    }
    with service(redis_url, redis_url, key_prefix, tmp_path, **settings) as workers:
        workers.start("light", queues="imagemill")
        yield workers


@pytest.fixture
def guarded(running: Service, registry: str, tmp_path: Path) -> Iterator[str]:
    """The address of a registry that wants a login, which the workers have; builds go there."""
    users, config = tmp_path / "htpasswd", tmp_path / "launch-config.yaml"
    users.write_bytes(
        subprocess.check_output([servers.program("htpasswd"), "-Bbn", "ann", "s3cr3t"])
    )
    with servers.docker_registry(tmp_path / "guarded", auth=users) as address:
        (tmp_path / ".docker").mkdir()
        login = {"auth": base64.b64encode(b"ann:s3cr3t").decode()}
        (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": {address: login}}))
        config.write_text(config.read_text().replace(registry, address))
        yield address


@pytest.fixture
def build(running: Service, tmp_path: Path) -> str:
    """The id of a build that has been asked for."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return running.client.submit(source=str(project), tags=["newest"])


def start_pool(running: Service, name: str = "kaniko") -> int:
    return running.start(name, queues="imagemill.kaniko", pool="threads", concurrency=4)


def another_job(
    cluster: KubernetesServer, running: Service, first: dict[str, Any]
) -> dict[str, Any]:
    """The Job of the first one's name, once it is there."""
    uid = first["metadata"]["uid"]
    until(
        lambda: (
            all(job["metadata"]["uid"] != uid for job in cluster.jobs()) and len(cluster.jobs()) > 0
        ),
        "another Job",
        lambda: running.log,
    )
    return job(cluster, running)


def digest_of(image: ImageReference) -> str | None:
    """What an open registry has under the image's tag."""
    url = f"http://{image.registry}/v2/{image.path}/manifests/{image.tag}"
    return request("HEAD", url, headers={"Accept": MANIFEST}).headers.get("Docker-Content-Digest")


def ended(running: Service, build: str) -> BuildReport:
    return running.client.wait(build, timeout=60)


def objects(cluster: KubernetesServer, resource: Resource) -> list[str]:
    """The names of all objects of a kind."""
    found = connect({"KUBECONFIG": str(cluster.kubeconfig)}).list(resource)["items"]
    return [item["metadata"]["name"] for item in found]


def contexts(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "contexts").iterdir())


def nothing_is_left(cluster: KubernetesServer, tmp_path: Path) -> bool:
    return not contexts(tmp_path) and not any(
        objects(cluster, resource) for resource in (JOBS, PODS, SECRETS)
    )


def test_a_job_makes_the_image_and_leaves_nothing(
    running: Service, cluster: KubernetesServer, build: str, tmp_path: Path
) -> None:
    start_pool(running)
    made = job(cluster, running)
    pod = begin(cluster, made)
    cluster.log(pod, [f"INFO[0001] Pushing image to {destination(made)}"])
    digest = push(made)
    cluster.finish(made, 0, digest)
    report = ended(running, build).raise_for_status()

    assert (report.built, report.builder, report.digest) == (True, "kaniko", digest)
    assert report.tags[-1].endswith(":newest")
    assert [digest_of(ImageReference.parse(tag)) for tag in report.tags] == [digest, digest]
    assert [step.state for step in report.steps] == [*State]
    assert any("Building stage" in line for line in running.client.logs(build))
    until(lambda: nothing_is_left(cluster, tmp_path), "the end of it all", lambda: cluster.jobs())


def test_several_platforms_are_a_job_each_on_nodes_of_its_own(
    running: Service, cluster: KubernetesServer, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    start_pool(running)
    both = "linux/amd64,linux/arm64"
    build = running.client.submit(source=str(project), platform=both)
    until(lambda: len(cluster.jobs()) == 2, "both Jobs", lambda: running.log)
    digests = {}
    for made in cluster.jobs():
        begin(cluster, made)
        node = made["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/arch"]
        digests[node] = push(made, node)
        cluster.finish(made, 0, digests[node])
    report = ended(running, build).raise_for_status()

    image = ImageReference.parse(report.image or "")
    url = f"http://{image.registry}/v2/{image.path}/manifests/{image.digest}"
    index = request("GET", url, headers={"Accept": OCI_INDEX}).json()
    found = {entry["platform"]["architecture"]: entry["digest"] for entry in index["manifests"]}
    assert found == digests
    assert digests.keys() == {"amd64", "arm64"}


def test_a_worker_that_dies_leaves_its_job_to_the_next(
    running: Service, cluster: KubernetesServer, build: str, tmp_path: Path
) -> None:
    first = start_pool(running, "first")
    made = job(cluster, running)
    begin(cluster, made)
    until(
        lambda: any("Building stage" in line for line in running.client.logs(build)),
        "the log",
        lambda: running.log,
    )
    running.kill(first)
    start_pool(running, "second")
    until(lambda: "begins anew" in running.log, "the redelivery", lambda: running.log)
    digest = push(made)
    cluster.finish(made, 0, digest)
    report = ended(running, build).raise_for_status()

    assert report.digest == digest
    assert len([event for event in running.client.events(build, follow=False) if event.report]) == 1
    until(lambda: nothing_is_left(cluster, tmp_path), "the end of it all", lambda: cluster.jobs())


def test_a_worker_that_is_told_to_end_leaves_its_job_to_the_next_at_once(
    running: Service, cluster: KubernetesServer, build: str, tmp_path: Path
) -> None:
    first = start_pool(running, "first")
    made = job(cluster, running)
    begin(cluster, made)
    until(
        lambda: any("Building stage" in line for line in running.client.logs(build)),
        "the log",
        lambda: running.log,
    )
    running.end(first, within=10)
    start_pool(running, "second")
    until(
        lambda: any("another one goes on" in line for line in running.client.logs(build)),
        "the word of the first worker",
    )
    digest = push(made)
    cluster.finish(made, 0, digest)
    report = ended(running, build).raise_for_status()

    assert report.digest == digest
    assert "begins anew" not in running.log
    until(lambda: nothing_is_left(cluster, tmp_path), "the end of it all", lambda: cluster.jobs())


def test_a_build_that_is_cancelled_takes_its_job_with_it(
    running: Service, cluster: KubernetesServer, build: str, tmp_path: Path
) -> None:
    start_pool(running)
    begin(cluster, job(cluster, running))
    with running.monitored() as events:
        running.client.cancel(build)
        assert ended(running, build).status == "cancelled"

        def told() -> set[str]:
            return {event["type"] for event in list(events) if event.get("uuid") == build}

        until(lambda: "task-revoked" in told(), "its end in Flower")
    assert "task-failed" not in told()
    until(lambda: nothing_is_left(cluster, tmp_path), "the end of it all", lambda: cluster.jobs())


def test_a_build_that_is_cancelled_after_its_worker_has_died_takes_its_job_with_it(
    running: Service, cluster: KubernetesServer, build: str, tmp_path: Path
) -> None:
    first = start_pool(running, "first")
    begin(cluster, job(cluster, running))
    running.kill(first)
    running.client.cancel(build)
    start_pool(running, "second")

    assert ended(running, build).status == "cancelled"
    until(lambda: nothing_is_left(cluster, tmp_path), "the end of it all", lambda: cluster.jobs())


def test_the_job_of_a_build_that_ended_elsewhere_is_removed_by_any_worker_of_the_cluster(
    running: Service, cluster: KubernetesServer, build: str, tmp_path: Path
) -> None:
    """Whoever ended it could not reach the cluster."""
    first = start_pool(running, "first")
    begin(cluster, job(cluster, running))
    running.kill(first)
    running.records(grace=2).finish(build)
    start_pool(running, "second")

    until(lambda: not objects(cluster, JOBS), "the end of the Job", lambda: running.log)
    assert not objects(cluster, PODS)
    assert not objects(cluster, SECRETS)


def test_a_second_try_with_more_memory_is_in_the_report(
    running: Service, cluster: KubernetesServer, build: str
) -> None:
    start_pool(running)
    first = job(cluster, running)
    begin(cluster, first)
    cluster.finish(first, 137, reason="OOMKilled")
    second = job(cluster, running, "-2")
    begin(cluster, second)
    cluster.finish(second, 0, push(second))
    report = ended(running, build).raise_for_status()

    (warning,) = report.warnings
    assert "ran out of memory" in warning


def test_a_build_whose_pod_is_evicted_is_built_by_another_job(
    running: Service, cluster: KubernetesServer, build: str, tmp_path: Path
) -> None:
    start_pool(running)
    first = job(cluster, running)
    pod = begin(cluster, first)
    cluster.pod_status(
        pod, {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}
    )
    second = another_job(cluster, running, first)
    begin(cluster, second)
    digest = push(second)
    cluster.finish(second, 0, digest)
    report = ended(running, build).raise_for_status()

    assert report.digest == digest
    assert any(
        "evicted by its node" in line and "trying again" in line
        for line in running.client.logs(build)
    )
    until(lambda: nothing_is_left(cluster, tmp_path), "the end of it all", lambda: cluster.jobs())


def test_a_digest_that_the_registry_does_not_have_is_not_reported(
    running: Service, cluster: KubernetesServer, build: str, tmp_path: Path
) -> None:
    start_pool(running)
    made = job(cluster, running)
    begin(cluster, made)
    pushed, told = push(made), f"sha256:{'ab' * 32}"
    cluster.finish(made, 0, told)
    report = ended(running, build)

    assert report.error is not None
    assert (report.error.kind, report.error.state) == ("TransientError", State.VERIFYING)
    assert f"The registry has {pushed}" in report.error.message
    assert f"where {told} was pushed" in report.error.message
    assert digest_of(destination(made).with_tag("newest")) is None
    until(lambda: nothing_is_left(cluster, tmp_path), "the end of it all", lambda: cluster.jobs())


@pytest.mark.usefixtures("guarded")
def test_what_kaniko_says_of_the_dockerfile_is_the_reason_and_only_the_job_stays(
    running: Service, cluster: KubernetesServer, build: str, tmp_path: Path
) -> None:
    start_pool(running)
    made = job(cluster, running)
    pod = begin(cluster, made)
    until(lambda: len(objects(cluster, SECRETS)) == 1, "the Secret", lambda: running.log)
    said = "parsing dockerfile: dockerfile parse error line 2: unknown instruction: COP"
    cluster.log(pod, [f"error building image: {said}"])
    cluster.finish(made, 1)
    report = ended(running, build)

    assert report.error is not None
    assert report.error.kind == "UserError"
    assert "unknown instruction: COP" in report.error.message
    assert report.error.state == State.BUILDING
    until(lambda: not contexts(tmp_path), "the end of the context", lambda: running.log)
    assert objects(cluster, SECRETS) == []
    assert objects(cluster, JOBS) == [made["metadata"]["name"]]
    assert objects(cluster, PODS) == [pod["metadata"]["name"]]

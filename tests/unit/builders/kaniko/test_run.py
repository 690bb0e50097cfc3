"""How the Kaniko builder and a Kubernetes API get along where no pod runs: on the server of our
own, or a real cluster.

`make test-cluster` runs it on the cluster of KUBECONFIG. The Jobs are suspended, or their pods are
for a scheduler that does not exist, so nothing is started there. The Jobs' controller is the
cluster's.
"""

import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from kubernetes import config
from kubernetes.client import Configuration

from builds import Watched, until
from clusters import any_cluster, fresh_namespace
from imagemill.builders.kaniko import secrets
from imagemill.builders.kaniko.api import JOBS, PODS, SECRETS, Cluster
from imagemill.builders.kaniko.logins import BuildLogins
from imagemill.builders.kaniko.run import attempt
from imagemill.builders.kaniko.task import Ending, Task
from imagemill.config.model import LocalEnvironment
from imagemill.errors import (
    BuildCancelled,
    ImagemillError,
    OperatorError,
    TransientError,
    UserError,
)
from imagemill.ports import BuildInputs, Credentials
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig
from kaniko_builds import (
    DESTINATION,
    DIGEST,
    Logins,
    Object,
    Passwords,
    PlayedCluster,
    container,
    section,
    unscheduled_builds,
)


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with any_cluster(tmp_path_factory.mktemp("kubernetes")) as path:
        yield path


@pytest.fixture
def cluster(kubeconfig: Path) -> Iterator[Cluster]:
    """A namespace of its own."""
    with fresh_namespace(kubeconfig) as fresh:
        configuration = Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        yield Cluster(configuration, fresh.namespace)


def task(cluster: Cluster, source_hash: str = "", **settings: object) -> tuple[Task, Watched]:
    """A build whose Job is suspended."""
    source_hash, progress = source_hash or uuid.uuid4().hex * 2, Watched()
    inputs = BuildInputs(
        ImageReference.parse(f"{DESTINATION}:{source_hash}"), source_hash=source_hash, build_id="b"
    )
    registry = Passwords(Logins(Credentials("ann", "s3cr3t")), frozenset())
    given = section(kaniko_config={"spec": {"suspend": True}}, **settings)
    uri = f"s3://bucket/contexts/{source_hash}.tar.gz"
    none = DockerConfig(Path("/nonexistent"))
    local = LocalEnvironment()
    logins = BuildLogins(given, local, inputs, registry, none, frozenset())
    return Task(cluster, given, local, inputs, uri, registry, logins, progress), progress


def begun(task: Task) -> Future[Ending | None]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(attempt, task)
    pool.shutdown(wait=False)
    return future


def stop(progress: Watched, error: ImagemillError) -> None:
    """Make the build's next check raise this."""

    def check() -> None:
        raise error

    progress.check = check  # type: ignore[method-assign]


def count(cluster: Cluster) -> list[int]:
    """How many Jobs and Secrets there are."""
    return [len(cluster.list(resource)["items"]) for resource in (JOBS, SECRETS)]


def test_the_job_and_its_secret_are_accepted_and_go_together_when_the_build_is_cancelled(
    cluster: Cluster,
) -> None:
    wanted, progress = task(cluster)
    build = begun(wanted)
    assert until(lambda: count(cluster) == [1, 1])
    stop(progress, BuildCancelled("The build was cancelled"))
    assert isinstance(build.exception(30), BuildCancelled)
    assert until(lambda: count(cluster) == [0, 0], 60)


def test_a_job_that_is_there_is_adopted(cluster: Cluster) -> None:
    wanted, progress = task(cluster)
    first = begun(wanted)
    assert until(lambda: count(cluster) == [1, 1])
    (job,) = cluster.list(JOBS)["items"]
    stop(progress, TransientError("the worker lost its lock"))
    assert isinstance(first.exception(30), TransientError)
    again, progress = task(cluster, wanted.inputs.source_hash)
    second = begun(again)
    assert until(lambda: any("Found the Job" in line for line in progress.lines))
    assert [each["metadata"]["uid"] for each in cluster.list(JOBS)["items"]] == [
        job["metadata"]["uid"]
    ]
    stop(progress, BuildCancelled("The build was cancelled"))
    assert isinstance(second.exception(30), BuildCancelled)
    assert until(lambda: count(cluster) == [0, 0], 60)


def test_a_job_that_is_deleted_under_a_build_is_noticed(cluster: Cluster) -> None:
    wanted, _ = task(cluster)
    build = begun(wanted)
    assert until(lambda: count(cluster) == [1, 1])
    (job,) = cluster.list(JOBS)["items"]
    cluster.delete(JOBS, job["metadata"]["name"])
    ending = build.result(30)
    assert ending is not None
    assert isinstance(ending.error, TransientError)


def test_a_job_that_stays_suspended_is_given_up(cluster: Cluster) -> None:
    wanted, progress = task(cluster, scheduling_timeout=1)
    ending = begun(wanted).result(30)
    assert ending is not None
    assert isinstance(ending.error, OperatorError)
    assert "is suspended" in ending.error.message
    assert any(line.startswith("Waiting: ") for line in progress.lines)
    assert until(lambda: count(cluster) == [0, 0], 60)


def test_a_secret_is_put_in_the_place_of_an_older_one(cluster: Cluster) -> None:
    wanted, progress = task(cluster)
    build = begun(wanted)
    assert until(lambda: count(cluster) == [1, 1])
    (job,) = cluster.list(JOBS)["items"]
    (before,) = cluster.list(SECRETS)["items"]
    secrets.put(
        cluster, secrets.docker_secret(job, {"registry.example.com": Credentials("ann", "another")})
    )
    (after,) = cluster.list(SECRETS)["items"]
    assert (after["metadata"]["name"], after["type"]) == (
        before["metadata"]["name"],
        before["type"],
    )
    assert after["data"] != before["data"]
    stop(progress, BuildCancelled("The build was cancelled"))
    assert isinstance(build.exception(30), BuildCancelled)


def test_whoever_may_do_everything_lacks_no_permission(cluster: Cluster) -> None:
    assert cluster.missing_permissions() == ()


# what the Jobs' controller concludes from what becomes of their pods


@pytest.fixture
def played(kubeconfig: Path, tmp_path: Path) -> Iterator[PlayedCluster]:
    with unscheduled_builds(kubeconfig, tmp_path) as played:
        yield played


def conditions(job: Object) -> list[tuple[str, str]]:
    return [(condition["type"], condition["reason"]) for condition in job["status"]["conditions"]]


def test_a_job_whose_pod_succeeds_is_complete_and_its_build_has_the_digest(
    played: PlayedCluster,
) -> None:
    build = played.build()
    job = played.succeed()
    assert conditions(job)[0] == ("SuccessCriteriaMet", "CompletionsReached")
    assert build.result() == DIGEST
    assert played.is_empty()


def test_a_job_whose_pod_is_killed_has_failed_and_the_second_one_has_more_memory(
    played: PlayedCluster,
) -> None:
    build = played.build(kaniko_config=container(resources={"limits": {"memory": "2Gi"}}))
    first = played.server.finish(played.run()[0], 137, reason="OOMKilled")
    assert conditions(first)[0] == ("FailureTarget", "BackoffLimitExceeded")
    again = played.job(2)["spec"]["template"]["spec"]
    assert (again["schedulerName"], again["containers"][0]["resources"]["limits"]["memory"]) == (
        "nobody",
        "4Gi",
    )
    played.succeed(2)
    assert build.result() == DIGEST


def test_a_job_over_its_deadline_has_failed_and_has_no_pod(played: PlayedCluster) -> None:
    build = played.build()
    job, _ = played.run()
    assert conditions(played.server.fail_job(job, "DeadlineExceeded"))[-1] == (
        "Failed",
        "DeadlineExceeded",
    )
    assert isinstance(build.error(), UserError)
    assert until(lambda: played.objects(PODS) == [])


def test_a_job_whose_pod_is_deleted_has_failed(played: PlayedCluster) -> None:
    build = played.build()
    job, pod = played.run()
    played.server.delete_pod(pod)
    assert conditions(played.server.fail_job(job))[-1] == ("Failed", "BackoffLimitExceeded")
    assert isinstance(build.error(), TransientError)


def test_a_job_waits_for_a_pod_that_stays(played: PlayedCluster) -> None:
    build = played.build()
    job, pod = played.run()
    played.server.keep_terminating()
    build.stop(BuildCancelled("cancelled"))
    assert isinstance(build.error(), BuildCancelled)
    assert until(lambda: "deletionTimestamp" in played.server.pod(pod)["metadata"])
    assert played.server.job(job)["metadata"]["uid"] == job["metadata"]["uid"]
    played.server.keep_terminating(False)
    assert played.is_empty()


def test_a_build_whose_pod_no_node_takes_fails_in_the_schedulers_words(
    played: PlayedCluster,
) -> None:
    build = played.build(scheduling_timeout=1)
    played.server.unschedulable(
        played.server.start_pod(played.job()), "0/3 nodes are available: 3 Insufficient cpu."
    )
    error = build.error()
    assert isinstance(error, OperatorError)
    assert "3 Insufficient cpu" in error.message

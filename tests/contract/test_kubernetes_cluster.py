"""How the Kaniko builder and a Kubernetes API get along where no pod runs: on the server of our own, or a real cluster.

`make test-cluster` runs it on the cluster of KUBECONFIG. The Jobs are suspended, so nothing is started there.
"""

import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from kubernetes import config
from kubernetes.client import Configuration

from builds import Watched, until
from imagemill.builders.kaniko import secrets
from imagemill.builders.kaniko.attempt import Attempt, Ending, Task
from imagemill.builders.kaniko.cluster import JOBS, SECRETS, Cluster
from imagemill.config.model import LocalEnvironment
from imagemill.errors import BuildCancelled, ImagemillError, OperatorError, TransientError
from imagemill.ports import BuildInputs, Credentials
from imagemill.reference import ImageReference
from imagemill.registries.oci import OciRegistry
from kaniko_builds import DESTINATION, Logins, section
from kubernetes_server.cluster import any_cluster, fresh_namespace


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
    inputs = BuildInputs(ImageReference.parse(f"{DESTINATION}:{source_hash}"), source_hash=source_hash, build_id="b")
    registry = OciRegistry(Logins(Credentials("ann", "s3cr3t")), frozenset())
    given = section(kaniko_config={"spec": {"suspend": True}}, **settings)
    uri = f"s3://bucket/contexts/{source_hash}.tar.gz"
    return Task(cluster, given, LocalEnvironment(), inputs, uri, registry, progress), progress


def begun(task: Task) -> Future[Ending | None]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(Attempt(task).run)
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


def test_the_job_and_its_secret_are_accepted_and_go_together_when_the_build_is_cancelled(cluster: Cluster) -> None:
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
    assert [each["metadata"]["uid"] for each in cluster.list(JOBS)["items"]] == [job["metadata"]["uid"]]
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
    secrets.put(cluster, secrets.docker_secret(job, "registry.example.com", Credentials("ann", "another")))
    (after,) = cluster.list(SECRETS)["items"]
    assert (after["metadata"]["name"], after["type"]) == (before["metadata"]["name"], before["type"])
    assert after["data"] != before["data"]
    stop(progress, BuildCancelled("The build was cancelled"))
    assert isinstance(build.exception(30), BuildCancelled)


def test_whoever_may_do_everything_lacks_no_permission(cluster: Cluster) -> None:
    assert cluster.missing_permissions() == ()

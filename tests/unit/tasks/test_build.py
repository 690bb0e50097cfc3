"""A build from its source to the image in the registry, with Kaniko as it is played: what is stored
for it, what is looked at again, and what is left.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builds import until
from imagemill.messages import State
from in_process import Service, service
from kaniko_chain import begin, push
from kubernetes_server import KubernetesServer
from registry_server import RegistryServer, registry_server
from tasks.build import MOST_UPLOADS

CONFIG = """\
builder:
  type: kaniko
  destination: {registry}/team/app
  build-context-store: {store}
  context-volume-claim: contexts
"""


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with registry_server() as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesServer]:
    with KubernetesServer(tmp_path) as server:
        yield server


@pytest.fixture
def contexts(tmp_path: Path) -> Path:
    return tmp_path / "contexts"


@pytest.fixture
def running(
    tmp_path: Path,
    registry: RegistryServer,
    cluster: KubernetesServer,
    contexts: Path,
) -> Iterator[Service]:
    config = CONFIG.format(registry=registry.address, store=contexts.as_uri())
    environment = {"KUBECONFIG": str(cluster.kubeconfig)}
    with service(tmp_path, config, environment=environment, max_retries=1) as found:
        yield found


@contextmanager
def kaniko(cluster: KubernetesServer, *plays: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Each Job that comes while the block runs is played by the next of these."""

    def play() -> None:
        seen: set[str] = set()
        for each in plays:
            found: list[dict[str, Any]] = []

            def look(found: list[dict[str, Any]] = found) -> bool:
                found[:] = [job for job in cluster.jobs() if job["metadata"]["uid"] not in seen]
                return bool(found)

            assert until(look, 60)
            seen.add(found[0]["metadata"]["uid"])
            each(found[0])

    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(play)
        yield
        playing.result(timeout=60)


def pushes(cluster: KubernetesServer) -> Callable[[dict[str, Any]], None]:
    """Kaniko makes the image."""

    def play(job: dict[str, Any]) -> None:
        begin(cluster, job)
        cluster.finish(job, 0, push(job))

    return play


def fails(cluster: KubernetesServer, line: str) -> Callable[[dict[str, Any]], None]:
    """Kaniko ends with this in its log."""

    def play(job: dict[str, Any]) -> None:
        cluster.log(begin(cluster, job), [line])
        cluster.finish(job, 1)

    return play


def until_step(running: Service, step: str) -> None:
    """Run what waits up to this step."""
    while running.step() != step:
        running.reaper.send_later()


def test_what_is_not_there_is_built_once_and_leaves_nothing(
    running: Service, cluster: KubernetesServer, registry: RegistryServer, contexts: Path
) -> None:
    source = running.source(app="1")
    with kaniko(cluster, pushes(cluster)):
        report = running.build(source, tags=["newest"])
    assert (report.status, report.built, report.builder) == ("succeeded", True, "kaniko")
    kept = registry.repositories["team/app"].manifests
    assert kept["newest"] == kept[report.source_hash or ""] == kept[report.digest or ""]
    assert list(contexts.iterdir()) == []
    again = running.build(source)
    assert (again.digest, again.built) == (report.digest, False)
    states = [each.state for each in report.steps]
    assert states.index(State.UPLOADING) < states.index(State.BUILDING)
    assert State.UPLOADING not in [each.state for each in again.steps]


def test_what_kaniko_says_is_the_reason_and_the_context_goes(
    running: Service, cluster: KubernetesServer, contexts: Path
) -> None:
    said = "error building image: parsing dockerfile: dockerfile parse error line 2: unknown instruction: COP"
    with kaniko(cluster, fails(cluster, said)):
        report = running.build(running.source())
    assert report.error is not None
    assert (report.error.kind, report.error.state) == ("UserError", State.BUILDING)
    assert "unknown instruction: COP" in report.error.message
    assert any("unknown instruction" in line for line in report.error.log)
    assert list(contexts.iterdir()) == []


def test_a_context_that_is_gone_is_stored_again(
    running: Service, cluster: KubernetesServer, contexts: Path
) -> None:
    build = running.client.submit(str(running.source()))
    until_step(running, "upload_context")
    for path in contexts.iterdir():
        path.unlink()
    with kaniko(cluster, pushes(cluster)):
        report = running.finished(build)
    assert report.status == "succeeded"
    assert [each.state for each in report.steps].count(State.UPLOADING) == 2


def test_a_context_that_is_gone_time_and_again_ends_the_build(
    running: Service, contexts: Path
) -> None:
    build = running.client.submit(str(running.source()))
    for _ in range(MOST_UPLOADS):
        until_step(running, "upload_context")
        for path in contexts.iterdir():
            path.unlink()
    report = running.finished(build)
    assert report.error is not None
    assert report.error.kind == "OperatorError"
    assert "is not to be found on the worker that builds, worker@test" in report.error.message


def test_a_source_that_changes_after_it_was_hashed_is_not_built(running: Service) -> None:
    source = running.source(app="1")
    build = running.client.submit(str(source))
    until_step(running, "hash_source")
    (source / "app").write_text("2")
    report = running.finished(build)
    assert report.error is not None
    assert report.error.kind == "UserError"
    assert "changed between being hashed and being packed" in report.error.message


def test_an_image_that_came_meanwhile_is_not_built_again(
    running: Service, cluster: KubernetesServer, registry: RegistryServer
) -> None:
    source = running.source()
    with kaniko(cluster, pushes(cluster)):
        first = running.build(source)
    repository = registry.repositories.pop("team/app")
    build = running.client.submit(str(source))
    until_step(running, "upload_context")
    registry.repositories["team/app"] = repository
    report = running.finished(build)
    assert (report.digest, report.built) == (first.digest, False)


def test_what_is_to_be_built_anew_is(running: Service, cluster: KubernetesServer) -> None:
    source = running.source()
    with kaniko(cluster, pushes(cluster), pushes(cluster)):
        assert running.build(source).built
        assert running.build(source, force=True).built


def test_a_digest_that_the_registry_does_not_have_is_not_reported(
    running: Service, cluster: KubernetesServer
) -> None:
    told = f"sha256:{'ab' * 32}"

    def lies(job: dict[str, Any]) -> None:
        begin(cluster, job)
        push(job)
        cluster.finish(job, 0, told)

    with kaniko(cluster, lies):
        report = running.build(running.source())
    assert report.error is not None
    assert (report.error.kind, report.error.state) == ("TransientError", State.VERIFYING)
    assert f"where {told} was pushed" in report.error.message


def test_a_build_that_is_cancelled_while_it_builds_ends_its_job(
    running: Service, cluster: KubernetesServer
) -> None:
    build = running.client.submit(str(running.source()))

    def cancels(job: dict[str, Any]) -> None:
        begin(cluster, job)
        running.client.cancel(build)

    with kaniko(cluster, cancels):
        report = running.finished(build)
    assert report.status == "cancelled"
    assert until(lambda: cluster.jobs() == [])


def test_several_platforms_are_built_each_by_itself_under_one_digest(
    running: Service, cluster: KubernetesServer, registry: RegistryServer
) -> None:
    def plays(job: dict[str, Any]) -> None:
        begin(cluster, job)
        arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
        (platform,) = [text for text in arguments if text.startswith("--custom-platform=")]
        cluster.finish(job, 0, push(job, platform.rpartition("/")[2]))

    with kaniko(cluster, plays, plays):
        report = running.build(running.source(), platform="linux/amd64,linux/arm64")
    assert report.error is None
    kept = registry.repositories["team/app"].manifests
    media_type, text = kept[report.digest or ""]
    assert "index" in media_type
    assert b'"arm64"' in text
    assert b'"amd64"' in text


def test_a_platform_that_fails_ends_the_build_and_is_named(
    running: Service, cluster: KubernetesServer
) -> None:
    said = "error building image: parsing dockerfile: dockerfile parse error line 2: unknown instruction: COP"
    with kaniko(cluster, fails(cluster, said)):
        build = running.client.submit(str(running.source()), platform="linux/amd64,linux/arm64")
        report = running.finished(build)
    assert report.error is not None
    assert report.error.message.startswith("For linux/")
    assert "unknown instruction" in report.error.message

"""The chain end to end: real brokers, real workers, a real engine and a real registry."""

import contextlib
import json
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest
from celery import Celery

import servers
from imagemill.client import Client
from imagemill.embedded import EmbeddedService
from imagemill.messages import BuildFailed, BuildReport, State
from service import QUICK, service

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
COPY app.txt /app.txt
"""


@pytest.fixture(scope="module", params=["redis", "rabbitmq", "embedded"])
def running(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    engine: str,
    docker_cli: str,
) -> Iterator[tuple[Client, Path]]:
    """A client of a running service, and a folder that its workers may read."""
    folder = tmp_path_factory.mktemp("chain")
    settings = {"IMAGEMILL_DOCKER_HOST": engine, "IMAGEMILL_DOCKER_CLI": docker_cli, **QUICK}
    if request.param == "embedded":
        settings["IMAGEMILL_SOURCE_ROOTS"] = str(folder)
        with (
            EmbeddedService(folder / "cache", settings, {}) as started,
            started.connect() as client,
        ):
            yield client, folder
        return
    redis = request.getfixturevalue("redis_url")
    broker = redis if request.param == "redis" else request.getfixturevalue("rabbitmq_url")
    with service(broker, redis, f"chain-{request.param}:", folder, **settings) as workers:
        workers.start()
        yield workers.client, folder


@pytest.fixture
def client(running: tuple[Client, Path]) -> Client:
    return running[0]


@pytest.fixture
def project(running: tuple[Client, Path], busybox: Path, request: pytest.FixtureRequest) -> Path:
    """A project that has never been built before."""
    folder = running[1] / re.sub(r"\W+", "-", f"project-{request.node.name}").strip("-")
    folder.mkdir()
    (folder / "busybox").write_bytes(busybox.read_bytes())
    (folder / "busybox").chmod(0o755)
    (folder / "app.txt").write_text(request.node.nodeid)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


@pytest.fixture
def repository(registry: str, project: Path) -> str:
    """A repository that no other test pushes to."""
    return f"{registry}/{project.name.replace('_', '-').lower()}"


def build(client: Client, project: Path, repository: str, **more: Any) -> BuildReport:
    return client.wait(
        client.submit(source=str(project), destination=repository, **more), timeout=120
    )


def passed(client: Client, image: str) -> BuildReport:
    """The report of an image that needs no build."""
    return client.wait(client.submit(source=f"docker-image://{image}"), timeout=60)


def labels(report: BuildReport) -> dict[str, str]:
    """The labels of the image as the registry has it."""
    assert report.image is not None
    repository, digest = report.image.split("@")
    host, path = repository.split("/", 1)
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    request = urllib.request.Request(f"http://{host}/v2/{path}/manifests/{digest}", headers=accept)
    with urllib.request.urlopen(request) as answer:
        config = json.load(answer)["config"]["digest"]
    with urllib.request.urlopen(f"http://{host}/v2/{path}/blobs/{config}") as answer:
        found: dict[str, str] = json.load(answer)["config"]["Labels"]
    return found


def test_a_source_becomes_an_image_pinned_to_its_digest(
    client: Client, project: Path, repository: str
) -> None:
    report = build(client, project, repository).raise_for_status()

    assert report.built
    assert report.builder == "docker"
    assert report.image == f"{repository}@{report.digest}"
    assert report.tags == (f"{repository}:{report.source_hash}",)
    assert labels(report)["dev.imagemill.source-hash"] == report.source_hash
    states = [step.state for step in report.steps]
    assert states == [*State]
    assert all(step.ended is not None and step.ended >= step.started for step in report.steps)


def test_what_is_there_already_is_not_built_again(
    client: Client, project: Path, repository: str
) -> None:
    first = build(client, project, repository)
    again = build(client, project, repository)

    assert first.built
    assert not again.built
    assert again.digest == first.digest
    assert State.BUILDING not in [step.state for step in again.steps]


def test_a_changed_file_makes_another_image(client: Client, project: Path, repository: str) -> None:
    first = build(client, project, repository)
    (project / "app.txt").write_text("changed")
    second = build(client, project, repository)

    assert second.built
    assert second.source_hash != first.source_hash
    assert second.digest != first.digest


def test_a_forced_build_builds_what_is_there(
    client: Client, project: Path, repository: str
) -> None:
    build(client, project, repository)

    assert build(client, project, repository, force=True).raise_for_status().built


def test_further_tags_name_the_same_digest(client: Client, project: Path, repository: str) -> None:
    first = build(client, project, repository, tags=["v1"])
    again = build(client, project, repository, tags=["v2", "latest"])

    assert first.tags == (f"{repository}:{first.source_hash}", f"{repository}:v1")
    assert not again.built
    for tag in ("v1", "v2", "latest"):
        assert passed(client, f"{repository}:{tag}").digest == first.digest


def test_no_tag_is_left_in_the_engine(
    client: Client, project: Path, repository: str, engine: str
) -> None:
    build(client, project, repository).raise_for_status()

    with contextlib.closing(docker.DockerClient(base_url=engine)) as looking:
        tags = [tag for image in looking.images.list() for tag in image.tags]
    assert not [tag for tag in tags if tag.startswith(repository)]


def test_one_of_many_equal_requests_is_built(
    client: Client, project: Path, repository: str
) -> None:
    with ThreadPoolExecutor(6) as pool:
        reports = list(pool.map(lambda _: build(client, project, repository), range(6)))

    assert [report.status for report in reports] == ["succeeded"] * 6
    assert sum(report.built for report in reports) == 1
    assert len({report.digest for report in reports}) == 1


def test_an_image_passes_through_pinned(client: Client, project: Path, repository: str) -> None:
    made = build(client, project, repository)
    seen = passed(client, f"{repository}:{made.source_hash}")

    assert seen.raise_for_status().image == made.image
    assert not seen.built


def test_a_failed_build_says_where_and_why(client: Client, project: Path, repository: str) -> None:
    (project / "Dockerfile").write_text(
        DOCKERFILE + 'RUN ["/bin/busybox", "sh", "-c", "echo so far; exit 7"]\n'
    )
    report = build(client, project, repository)

    assert report.status == "failed"
    assert report.error is not None
    assert report.error.kind == "UserError"
    assert report.error.state == State.BUILDING
    assert "Line 4" in report.error.message
    assert any("so far" in line for line in report.error.log)
    assert report.error.hint
    with pytest.raises(BuildFailed, match="Line 4"):
        report.raise_for_status()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dockerfile": "Dockerfil"}, "Dockerfile"),
        ({"source": "/"}, "may not read"),
        ({"source": "ftp://host/x"}, "ftp"),
        ({"config": "absent"}, "absent"),
        ({"timeout": 1e6}, "1000000 s"),
        ({"target": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_request_is_refused_with_a_hint(
    client: Client, project: Path, repository: str, fields: dict[str, Any], message: str
) -> None:
    report = client.wait(
        client.submit(**{"source": str(project), "destination": repository, **fields}), timeout=60
    )

    assert report.error is not None
    assert report.error.kind in ("UserError", "ConfigError", "PermissionDenied")
    assert message in report.error.message
    assert report.error.hint


def test_a_registry_that_is_away_is_neither_yes_nor_no(client: Client, project: Path) -> None:
    report = build(client, project, f"localhost:{servers.free_port()}/x", timeout=4)

    assert report.error is not None
    assert report.error.kind == "ServiceUnreachable"
    assert report.error.state == State.CHECKING
    assert any("trying again" in line for line in report.error.log)


def test_a_running_build_can_be_cancelled(client: Client, project: Path, repository: str) -> None:
    (project / "Dockerfile").write_text(
        DOCKERFILE + 'RUN ["/bin/busybox", "sh", "-c", "echo begun; /bin/busybox sleep 600"]\n'
    )
    building = client.submit(source=str(project), destination=repository)
    for line in client.logs(building, follow=True):
        if "begun" in line and "echo" not in line:
            client.cancel(building)
            break
    report = client.wait(building, timeout=60)

    assert report.status == "cancelled"
    assert client.status(building).state == "CANCELLED"


def test_any_celery_client_can_ask_for_a_build(
    running: tuple[Client, Path], client: Client, project: Path, repository: str
) -> None:
    app: Celery = client.app
    request = {"source": str(project), "destination": repository}
    result = app.send_task("imagemill.build_image", kwargs={"request": request}, queue="imagemill")

    report = result.get(timeout=60)
    assert report["status"] == "succeeded"
    assert report["id"] == result.id
    assert client.status(result.id).state == "SUCCEEDED"


def test_a_celery_client_gets_the_error_raised(client: Client) -> None:
    result = client.app.send_task(
        "imagemill.build_image", kwargs={"request": {"surce": "x"}}, queue="imagemill"
    )

    with pytest.raises(Exception, match="surce"):
        result.get(timeout=60)
    assert client.status(result.id).state == "FAILED"


def test_a_failure_is_reported_once(client: Client, project: Path, repository: str) -> None:
    building = client.submit(source=str(project), destination=repository, dockerfile="absent")
    client.wait(building, timeout=60)
    after = client.wait(client.submit(source=str(project), destination=repository), timeout=60)

    assert after.status == "succeeded"
    assert len([event for event in client.events(building, follow=False) if event.report]) == 1

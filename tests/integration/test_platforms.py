"""One image for several platforms: a build for each, and an index over them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

import trees
from imagemill.builders.graft.grafting import UNKNOWN
from imagemill.client import Client
from imagemill.messages import BuildReport, State
from images import DOCKER_LIST, OCI_INDEX
from service import service

BOTH = "linux/amd64,linux/arm64"


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, engine: str, docker_cli: str
) -> Iterator[tuple[Client, Path]]:
    folder = tmp_path_factory.mktemp("platforms")
    settings = {"IMAGEMILL_DOCKER_HOST": engine, "IMAGEMILL_DOCKER_CLI": docker_cli}
    with service(redis_url, redis_url, "platforms:", folder, **settings) as workers:
        workers.start(concurrency=3)
        yield workers.client, folder


def project(folder: Path, name: str, dockerfile: str) -> str:
    return str(trees.make(folder / name, {"Dockerfile": dockerfile, "app.txt": name}))


def stored(image: str | None) -> dict[str, Any]:
    """What the registry has of an image, which is named by its digest."""
    assert image is not None
    repository, digest = image.split("@")
    host, path = repository.split("/", 1)
    url = f"http://{host}/v2/{path}/manifests/{digest}"
    answer = urllib3.request("GET", url, headers={"Accept": f"{OCI_INDEX}, {DOCKER_LIST}"})
    assert answer.status == 200, answer.data
    found: dict[str, Any] = json.loads(answer.data)
    return found


def built(client: Client, source: str, repository: str, **more: Any) -> BuildReport:
    build = client.submit(source=source, destination=repository, **more)
    return client.wait(build, timeout=120)


def test_several_platforms_have_one_digest_and_what_is_there_is_not_built_again(
    running: tuple[Client, Path], registry: str
) -> None:
    client, folder = running
    source = project(folder, "both", "FROM scratch\nARG TARGETARCH\nCOPY app.txt /$TARGETARCH\n")
    repository = f"{registry}/platforms/both"
    alone = built(client, source, repository, platform="linux/arm64").raise_for_status()
    report = built(client, source, repository, platform=BOTH, tags=["both"]).raise_for_status()

    entries = stored(report.image)["manifests"]
    platforms = [(entry["platform"]["os"], entry["platform"]["architecture"]) for entry in entries]
    assert platforms == [("linux", "amd64"), ("linux", "arm64")]
    assert entries[1]["digest"] == alone.digest
    assert report.tags == (f"{repository}:{report.source_hash}", f"{repository}:both")
    log = client.logs(report.id)
    assert any(line.startswith("linux/amd64: ") for line in log)
    assert f"linux/arm64 is {alone.image}" in log
    assert State.BUILDING in [step.state for step in report.steps]
    again = built(client, source, repository, platform="linux/arm64, linux/amd64")
    assert (again.digest, again.built) == (report.digest, False)


def test_a_change_of_code_needs_no_builder_for_any_platform(
    running: tuple[Client, Path], registry: str
) -> None:
    client, folder = running
    source = project(folder, "code", "FROM scratch\nCOPY app.txt /\n")
    repository = f"{registry}/platforms/code"
    first = built(client, source, repository, platform=BOTH).raise_for_status()
    assert not first.grafted
    assert first.not_grafted == f"linux/amd64: {UNKNOWN}"
    for number in range(50):
        (Path(source) / "app.txt").write_text(str(number))
        report = built(client, source, repository, platform=BOTH).raise_for_status()
        if report.grafted:
            break
        assert UNKNOWN in (report.not_grafted or "")  # nor has it been read yet
    assert report.grafted
    assert report.not_grafted is None


def test_what_fails_for_one_platform_is_said_and_ends_the_others(
    running: tuple[Client, Path], registry: str
) -> None:
    client, folder = running
    dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY only-$TARGETARCH /\n"
    source = project(folder, "one", dockerfile)
    (Path(source) / "only-amd64").write_text("x")
    report = built(client, source, f"{registry}/platforms/one", platform=BOTH)

    assert report.error is not None
    assert report.error.message.startswith("For linux/arm64: ")
    assert report.image is None


def test_a_cancelled_build_cancels_its_parts(
    running: tuple[Client, Path], registry: str, busybox: Path
) -> None:
    client, folder = running
    dockerfile = 'FROM scratch\nCOPY busybox /\nRUN ["/busybox", "sleep", "1000"]\n'
    source = project(folder, "slow", dockerfile)
    (Path(source) / "busybox").write_bytes(busybox.read_bytes())
    (Path(source) / "busybox").chmod(0o755)
    both = "linux/amd64,linux/386"
    build = client.submit(source=source, destination=f"{registry}/platforms/slow", platform=both)
    parts: set[str] = set()
    for event in client.events(build, timeout=60):
        if event.line and "is built by itself, as build " in event.line:
            parts.add(event.line.rpartition(" ")[2])
        if len(parts) == 2:
            break
    client.cancel(build)

    assert client.wait(build, timeout=60).status == "cancelled"
    assert {client.wait(part, timeout=60).status for part in parts} == {"cancelled"}

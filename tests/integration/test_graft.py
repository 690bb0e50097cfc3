"""Images of code alone, made through the chain: real brokers, workers, engine and registry."""

import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis

from benchmarks.proxy import counting
from builds import SHELL, PushedImage
from graft_trial import flattened
from http_faults import FaultyProxy
from imagemill.cli.commands import cli
from imagemill.messages import BuildReport
from imagemill.reference import ImageReference
from service import Service, service, until
from trees import make

DOCKERFILE = f"""\
{SHELL}COPY lock.txt /
RUN /bin/busybox mkdir -p /srv/app/own && /bin/busybox ln -s /srv/app /app \\
    && /bin/busybox chown 1000:1000 /srv/app && /bin/busybox chmod 700 /srv/app
WORKDIR /app
COPY --chown=5:6 . .
CMD ["serve"]
"""


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, engine: str, docker_cli: str, redis_url: str
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("graft")
    (folder / "off.yaml").write_text("builder:\n  graft: false\n")
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_CONFIG_DIR": str(folder),
    }
    with service(redis_url, redis_url, f"{uuid.uuid4().hex}:", folder, **settings) as started:
        started.start()
        yield started


class Project:
    """A project in a folder that the workers may read."""

    def __init__(self, running: Service, registry: str) -> None:
        self.name = f"graft-{uuid.uuid4().hex}"
        self.folder = running.folder / self.name
        self.destination = f"{registry}/{self.name}"
        self._running, self._redis = running, Redis.from_url(running.backend)

    def build(self, **more: Any) -> BuildReport:
        """Build it, and wait until what the next build may want to know is known."""
        known = self._known()
        request = {"source": str(self.folder), "destination": self.destination, **more}
        client = self._running.client
        report = client.wait(client.submit(**request), timeout=120).raise_for_status()
        if report.built and not report.grafted and report.not_grafted:
            until(lambda: self._known() != known, "a record", lambda: self._running.log)
        return report

    def _known(self) -> list[Any]:
        names = list(self._redis.scan_iter(f"{self._running.prefix}imagemill:graft:image:*"))
        return sorted(filter(None, map(self._redis.get, names)))


@pytest.fixture
def project(running: Service, registry: str, busybox: Path) -> Project:
    project = Project(running, registry)
    own = {"lock.txt": project.name}  # so that no other test's image is one to start from
    make(project.folder, {"Dockerfile": DOCKERFILE, "serve.py": "1", "a/a.py": "2", **own})
    make(project.folder, {"busybox*": busybox.read_bytes()})
    return project


def image_of(report: BuildReport) -> PushedImage:
    assert report.image is not None
    return PushedImage(ImageReference.parse(report.image))


def test_a_change_of_code_needs_no_builder_and_gives_what_the_builder_gives(
    project: Project,
) -> None:
    first = project.build()
    make(project.folder, {"serve.py": "another", "a/new/b.py": "3", "link@": "serve.py"})
    (project.folder / "a/a.py").unlink()
    second = project.build(tags=("latest",))
    built = project.build(graft=False, destination=f"{project.destination}/built")
    assert not first.grafted
    assert second.grafted, second.not_grafted
    assert second.built
    assert not built.grafted
    assert flattened(image_of(second)) == flattened(image_of(built))
    mine, its = image_of(second).config, image_of(built).config
    assert mine["config"] == its["config"]
    assert [entry["created_by"] for entry in mine["history"]] == [
        entry["created_by"] for entry in its["history"]
    ]


def test_another_command_comments_at_the_top_and_fewer_labels_need_no_builder(
    project: Project,
) -> None:
    text = f'# About one.\n{DOCKERFILE}ENTRYPOINT ["/bin/busybox", "echo"]\n'
    make(project.folder, {"Dockerfile": text})
    project.build(revision="1", source_url="https://example.com/a", labels={"team": "a"})
    text = text.replace("one", "another").replace('"echo"', '"cat", "x y"')
    make(project.folder, {"Dockerfile": text.replace('"serve"', '"z"')})
    made = project.build()
    assert made.grafted, made.not_grafted
    built = project.build(graft=False, destination=f"{project.destination}/built")
    mine, its = image_of(made).config, image_of(built).config
    assert mine["config"] == its["config"]
    assert [entry["created_by"] for entry in mine["history"]] == [
        entry["created_by"] for entry in its["history"]
    ]


def test_a_plan_says_how_long_it_took_before(project: Project, running: Service) -> None:
    project.build()
    make(project.folder, {"serve.py": "another"})
    second = project.build()
    project.build()  # nothing is made
    options = ["--broker", running.broker, "--key-prefix", running.prefix]
    planned = CliRunner().invoke(
        cli, [*options, "plan", str(project.folder), "--json"], standalone_mode=False
    )
    before = json.loads(planned.stdout)["before"]
    assert [each["way"] for each in before] == ["code", "builder"]
    assert before[0]["seconds"] == round(second.seconds, 3)
    planned = CliRunner().invoke(
        cli, [*options, "plan", str(project.folder)], standalone_mode=False
    )
    assert re.search(r"before +[\d.]+ m?s without a builder, .* by the builder", planned.stdout)


@pytest.mark.parametrize(
    ("changes", "wish"),
    [
        ({"lock.txt": "another"}, {}),
        ({"Dockerfile": f"{DOCKERFILE}# another\n"}, {}),
        ({"serve.py": "another"}, {"build_args": {"A": "b"}}),
        ({"serve.py": "another"}, {"platform": "linux/amd64/v2"}),
    ],
)
def test_what_may_change_more_than_code_is_built_by_the_builder(
    project: Project, changes: dict[str, str], wish: dict[str, Any]
) -> None:
    project.build()
    make(project.folder, changes)
    report = project.build(**wish)
    assert not report.grafted
    assert "code alone" in (report.not_grafted or "")


@pytest.mark.parametrize("wish", [{"graft": False}, {"force": True}, {"config": "off"}])
def test_it_can_be_turned_off(project: Project, wish: dict[str, Any]) -> None:
    project.build()
    make(project.folder, {"serve.py": "another"})
    report = project.build(**wish)
    assert report.built
    assert not report.grafted
    assert report.not_grafted is None


@pytest.mark.parametrize("lost", ["GET .*/blobs/sha256", "PUT .*/manifests/"])
def test_where_the_registry_has_lost_the_earlier_image_the_builder_builds(
    project: Project, registry: str, lost: str
) -> None:
    with FaultyProxy(f"http://{registry}") as proxy:
        project.destination = f"{proxy.url.removeprefix('http://')}/{project.name}"
        project.build()
        make(project.folder, {"serve.py": "another"})
        proxy.fail_next(404, match=lost)  # without a word, as some do
        report = project.build()
        assert report.built
        assert not report.grafted
        assert "404" in (report.not_grafted or "")
        assert "/serve.py" in "".join(f"/{path}" for path in flattened(image_of(report)))


def test_why_an_image_is_none_to_start_from_is_said_by_the_next_build(
    project: Project, running: Service, registry: str
) -> None:
    absent = b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'
    with FaultyProxy(f"http://{registry}") as proxy:
        project.destination = f"{proxy.url.removeprefix('http://')}/{project.name}"
        proxy.fail_next(404, match="GET .*/manifests/sha256", body=absent)
        first = running.client.submit(source=str(project.folder), destination=project.destination)
        running.client.wait(first, timeout=120).raise_for_status()
        until(lambda: "is no image to start from" in running.log, "a no", lambda: running.log)
        make(project.folder, {"serve.py": "another"})
        report = project.build()
    assert not report.grafted
    assert "is not in the registry any more" in (report.not_grafted or "")


def test_layers_below_come_from_another_repository_without_being_sent(project: Project) -> None:
    project.build()
    make(project.folder, {"serve.py": "another"})
    report = project.build(destination=f"{project.destination}/other")
    assert report.grafted, report.not_grafted
    assert "/serve.py" in "".join(f"/{path}" for path in flattened(image_of(report)))


def test_a_change_of_code_sends_no_weights_and_reads_no_layer(
    project: Project, running: Service, registry: str
) -> None:
    make(project.folder, {"weights.bin": os.urandom(17 << 20), "text.bin": b"ab" * (9 << 20)})
    with counting(registry) as (address, counts):
        project.destination = f"{address}/{project.name}"
        first = project.build()
        make(project.folder, {"serve.py": "another"})
        counts.clear()
        second = project.build()
        assert second.grafted, second.not_grafted
        assert counts.sent < 1_500_000  # of which busybox is one million
        assert counts.received < 100_000
        assert len(counts.requests) <= 20
        built = project.build(graft=False, destination=f"{project.destination}/built")
        assert flattened(image_of(second)) == flattened(image_of(built))
        layers = [len(image_of(report).manifest["layers"]) for report in (first, second)]
        assert layers[1] == layers[0] + 2
        types = {
            layer["mediaType"].rpartition(".")[2] for layer in image_of(second).manifest["layers"]
        }
        assert types == {"gzip", "tar"}

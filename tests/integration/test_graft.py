"""Images of code alone, made through the chain: real brokers, workers, engine and registry."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from builds import SHELL
from imagemill.messages import BuildReport
from service import Service, service, until
from trees import make

DOCKERFILE = f"""\
{SHELL}RUN /bin/busybox mkdir -p /srv/app && /bin/busybox ln -s /srv/app /app
WORKDIR /app
COPY --chown=5:6 . .
CMD ["serve"]
"""


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, engine: str, docker_cli: str, redis_url: str
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("graft")
    settings = {"IMAGEMILL_DOCKER_HOST": engine, "IMAGEMILL_DOCKER_CLI": docker_cli}
    with service(redis_url, redis_url, "graft:", folder, **settings) as started:
        started.start()
        yield started


class Project:
    """A project in a folder that the workers may read."""

    def __init__(self, running: Service, registry: str, redis_url: str) -> None:
        self.name = f"graft-{uuid.uuid4().hex}"
        self.folder = running.folder / self.name
        self.destination = f"{registry}/{self.name}"
        self._log = lambda: running.log[-6000:]
        self._client, self._redis = running.client, Redis.from_url(redis_url)

    def build(self, **more: Any) -> BuildReport:
        """Build it, and wait until what the next build may want to know is known."""
        images = self._images()
        submitted = self._client.submit(
            source=str(self.folder), destination=self.destination, **more
        )
        report = self._client.wait(submitted, timeout=120).raise_for_status()
        if report.built and not report.grafted:
            until(
                lambda: self._images() != images, "a record of the image", lambda: self._log(), 20
            )
        return report

    def _images(self) -> set[bytes]:
        names = self._redis.keys("graft:imagemill:graft:image:*")
        return {self._redis.get(name) for name in names}  # type: ignore[union-attr, misc]


@pytest.fixture
def project(running: Service, registry: str, redis_url: str, busybox: Path) -> Project:
    project = Project(running, registry, redis_url)
    make(project.folder, {"Dockerfile": DOCKERFILE, "serve.py": "1", "package/a.py": "2"})
    make(project.folder, {"busybox*": busybox.read_bytes()})
    return project


def test_a_change_of_code_needs_no_builder(project: Project) -> None:
    first = project.build()
    (project.folder / "serve.py").write_text("another")
    second = project.build()
    assert not first.grafted
    assert second.grafted, second.not_grafted

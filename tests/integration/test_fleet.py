"""Projects that have one lock file and are built at the same time: what comes before their code is
made once.
"""

import hashlib
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from builds import SHELL, PushedImage
from graft_trial import Trials, flattened
from http_faults import FaultyProxy
from imagemill.client import Client
from imagemill.messages import BuildReport, State
from imagemill.reference import ImageReference
from service import Service, service, until
from trees import make

DOCKERFILE = f"""\
{SHELL}COPY lock.txt /
RUN --mount=type=cache,id=GATE,target=/gate /bin/busybox cat /proc/sys/kernel/random/uuid > /made \\
    && n=$(/bin/busybox ls /gate | /bin/busybox wc -l) && /bin/busybox touch /gate/$n \\
    && if [ $n -lt HELD ]; then echo begun; /bin/busybox sleep 25; fi
COPY . /app/
CMD ["NAME"]
"""
"""The first HELD times that its RUN runs, it waits."""


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, engine: str, docker_cli: str, redis_url: str
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("fleet")
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_REDELIVERY_SECONDS": "3",
    }
    with service(redis_url, redis_url, f"{uuid.uuid4().hex}:", folder, **settings) as started:
        started.start("light", queues="imagemill")
        yield started


class Fleet:
    """Projects with one lock file, and destinations of their own."""

    def __init__(self, running: Service, registry: str, busybox: Path) -> None:
        self.client: Client = running.client
        self.registry = registry
        self._running, self._busybox = running, busybox
        self._name = f"fleet-{uuid.uuid4().hex}"

    def submit(self, size: int, *, held: int = 0, code: str = "", weights: int = 0) -> list[str]:
        """Have its projects built, with so many bytes of weights each; returns the builds."""
        return [self._submit(str(number), held, code, weights) for number in range(size)]

    def _submit(self, name: str, held: int, code: str, weights: int) -> str:
        text = DOCKERFILE.replace("GATE", self._name).replace("HELD", str(held))
        folder = self._running.folder / self._name / name
        make(folder, {"Dockerfile": text.replace("NAME", name), "lock.txt": self._name})
        make(folder, {"busybox*": self._busybox.read_bytes(), "code.py": code or name})
        if weights:
            make(folder, {"weights": random.Random(self._name).randbytes(weights)})
        destination = f"{self.registry}/{self._name}/{name}"
        return self.client.submit(source=str(folder), destination=destination)

    def reports(self, builds: list[str]) -> list[BuildReport]:
        return [self.client.wait(build, timeout=120) for build in builds]

    def building(self, builds: list[str]) -> str:
        """The build that makes what comes before the code, once all others wait for it."""
        found: list[str] = []

        def waiting() -> bool:
            found[:] = [b for b in builds if self.client.status(b).state == State.BUILDING]
            told = [b for b in builds if f"Waiting for build {(found or [''])[0]}" in self.said(b)]
            return len(found) == 1 and len(told) == len(builds) - 1

        until(waiting, "a build that all others wait for", lambda: self._running.log)
        return found[0]

    def said(self, build: str) -> str:
        return "\n".join(self.client.logs(build))


@pytest.fixture
def fleet(running: Service, registry: str, busybox: Path) -> Fleet:
    return Fleet(running, registry, busybox)


@pytest.fixture
def docker(running: Service) -> Iterator[int]:
    """A worker that builds, by its process id."""
    yield _docker(running)
    _end(running)


def _docker(running: Service) -> int:
    return running.start(f"docker{uuid.uuid4().hex[:6]}", queues="imagemill.docker")


def _end(running: Service) -> None:
    for worker in running.workers[1:]:
        if worker.poll() is None:
            running.kill(worker.pid)


def files(report: BuildReport) -> dict[str, str]:
    """Path → digest of the content."""
    image = PushedImage(ImageReference.parse(report.raise_for_status().image or ""))
    return {path: node[-1] for path, node in flattened(image).items() if node[0] == "file"}


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def command(report: BuildReport) -> list[str]:
    image = PushedImage(ImageReference.parse(report.image or ""))
    return list(image.config["config"]["Cmd"])


@pytest.mark.usefixtures("docker")
def test_one_lock_file_is_one_dependency_build_and_an_image_for_each(fleet: Fleet) -> None:
    reports = fleet.reports(fleet.submit(6))
    made = [files(report) for report in reports]
    assert [report.grafted for report in reports].count(False) == 1, reports
    assert len({each["made"] for each in made}) == 1
    assert [each["app/code.py"] for each in made] == [digest_of(f"{number}") for number in range(6)]
    assert [command(report) for report in reports] == [[str(number)] for number in range(6)]


def test_where_the_worker_is_killed_that_makes_them_its_successor_does(
    fleet: Fleet, running: Service, docker: int
) -> None:
    builds = fleet.submit(3, held=1)
    first = fleet.building(builds)
    until(lambda: "begun" in fleet.said(first), "its RUN", lambda: fleet.said(first))
    running.kill(docker)
    _docker(running)
    reports = fleet.reports(builds)
    assert [report.id for report in reports if not report.grafted] == [first]
    assert len({files(report)["made"] for report in reports}) == 1


@pytest.mark.usefixtures("docker")
def test_where_builds_fail_that_others_wait_for_each_of_those_tries_itself(fleet: Fleet) -> None:
    builds = fleet.submit(4, held=2)
    for _ in range(2):
        first = fleet.building(builds)
        fleet.client.cancel(first)
        builds.remove(first)
    assert {report.status for report in fleet.reports(builds)} == {"succeeded"}


@pytest.mark.usefixtures("docker")
def test_layers_are_read_by_one_at_a_time_and_by_another_where_that_is_killed(
    fleet: Fleet, running: Service, registry: str
) -> None:
    reads, sends = "GET .*/blobs/sha256", "PUT .*/blobs/uploads/"
    with FaultyProxy(f"http://{registry}") as proxy:
        fleet.registry = proxy.url.removeprefix("http://")
        held = proxy.hold_next(reads)
        fleet.submit(1, weights=17 << 20)
        assert held.came.wait(60)
        until(lambda: "being read already" in running.log, "a second", lambda: running.log)
        assert proxy.asked(reads) == 1
        proxy.clear()
        running.kill(running.workers[0].pid)
        held.go.set()
        running.start("light2", queues="imagemill")
        running.workers[0] = running.workers.pop()
        until(lambda: proxy.asked(sends) > 0, "a layer of the weights", lambda: running.log)
        (second,) = fleet.reports(fleet.submit(1, code="another", weights=17 << 20))
        assert second.grafted
        # The layer of the weights, once; then what changed: the code, and the image's config.
        assert proxy.asked(sends) == 3


def test_layers_that_the_registry_does_not_mount_are_copied(
    tmp_path: Path, docker_cli: str, engine: str, registry: str, redis_url: str, busybox: Path
) -> None:
    folder = make(tmp_path / "a", {"Dockerfile": "FROM scratch\nCOPY b /b\nCOPY a /a\n"})
    make(folder, {"a": "1", "b": "2"})
    with FaultyProxy(f"http://{registry}") as proxy, Redis.from_url(redis_url) as redis:
        address = proxy.url.removeprefix("http://")
        trials = Trials(docker_cli, engine, address, redis, tmp_path, busybox)
        before = trials.built(folder, uuid.uuid4().hex)
        make(folder, {"a": "3"})
        name = uuid.uuid4().hex
        proxy.fail_next(202, match="POST .*mount=", times=2)
        digest = trials.grafted(folder, name, before)
        image = PushedImage(ImageReference.parse(f"{address}/{name}@{digest}"))
        contents = {path: node[-1] for path, node in flattened(image).items()}
        assert contents == {"a": digest_of("3"), "b": digest_of("2")}

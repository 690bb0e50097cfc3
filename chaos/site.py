"""A whole service to be broken: broker, Redis, engine, registry behind a faulty proxy, workers that
a supervisor starts again, and an eye on what builds.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import urllib3
from celery.result import AsyncResult

import servers
from chaos.history import Answered, Broken, Building, Died, Event, Left, Reported, Stored, Submitted
from imagemill.client import Client

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from builds import MANIFEST  # noqa: E402
from http_faults import FaultyProxy  # noqa: E402
from images import OCI_MANIFEST  # noqa: E402

REDELIVERY = 6
"""Seconds after which the message of a worker that died is given to another, in these runs."""

SETTINGS = {
    "IMAGEMILL_REDELIVERY_SECONDS": str(REDELIVERY),
    "IMAGEMILL_LOCK_LEASE": "6",
    "IMAGEMILL_WAIT_INTERVAL": "0.5",
    "IMAGEMILL_BUILD_TIMEOUT": "300",
    "IMAGEMILL_MAX_DELIVERIES": "20",
}
"""What workers of these runs are set to: quick, so that a run does not take hours."""

LABEL = "dev.imagemill.chaos"
"""The label by which a docker command is known: it names the image that it builds."""

LOOK = 0.1
"""Seconds between two looks at what builds."""

START = 90.0
"""Seconds within which all workers take tasks."""

RISE = 0.5
"""Seconds after which a supervisor starts a worker again that has ended."""


@dataclass
class Worker:
    """A worker and its supervisor."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    touched: bool = False
    """Whether somebody has ended it on purpose since it was started."""

    def start(self) -> None:
        """Start it; it takes tasks some seconds later."""
        self.touched = False
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended(self) -> int | None:
        """Its exit status, if it has ended."""
        return self.process.poll() if self.process else None

    def kill(self) -> None:
        """End it with all its processes, as when its node is lost."""
        self.touched = True
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Site:
    """What is broken, and all that was seen of it."""

    folder: Path
    broker: servers.Server
    redis: servers.Server
    engine: servers.Server | None
    """None: the machine's own, which is not to be killed."""
    engine_url: str
    registry: servers.Server
    proxy: FaultyProxy
    workers: list[Worker] = field(default_factory=list)
    history: list[Event] = field(default_factory=list)
    prefix: str = field(default_factory=lambda: f"chaos-{uuid.uuid4().hex[:8]}:")

    def __post_init__(self) -> None:
        self.points = self.folder / "points"
        self.sources = self.folder / "sources"
        for made in (self.points, self.sources):
            made.mkdir()
        self.client = Client(self.broker.url, self.redis.url, key_prefix=self.prefix)
        self._open: dict[str, str] = {}
        self._settled: dict[str, None] = {}
        self._timers: list[threading.Timer] = []
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=loop, args=(each, seconds), daemon=True)
            for loop, each, seconds in (
                (self._repeat, self._raise_workers, RISE),
                (self._repeat, self._look, LOOK),
            )
        ]

    # --- Workers ---

    def start(self, *, light: int = 2, docker: int = 1, concurrency: int = 2) -> None:
        """Start the pools and what watches them; return when all workers take tasks."""
        for number in range(light):
            self._add(f"light{number}", "imagemill", concurrency)
        for number in range(docker):
            self._add(f"docker{number}", "imagemill.docker", concurrency)
        names = {f"{worker.name}@chaos" for worker in self.workers}
        if not self.until(lambda: names <= self.client.workers().keys(), START):
            raise TimeoutError(f"the workers do not take tasks after {START:.0f} s")
        for thread in self._threads:
            thread.start()

    def _add(self, name: str, queues: str, concurrency: int) -> None:
        command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker"]
        command += ["-I", "chaos.points", "-n", f"{name}@chaos", "-Q", queues]
        command += ["-c", str(concurrency), "-E"]
        worker = Worker(name, command, self._environment(), self.folder / f"{name}.log")
        self.workers.append(worker)
        worker.start()

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "CHAOS_POINTS": str(self.points),
            "IMAGEMILL_BROKER": self.broker.url,
            "IMAGEMILL_BACKEND": self.redis.url,
            "IMAGEMILL_KEY_PREFIX": self.prefix,
            "IMAGEMILL_STATE_DIR": str(self.folder / "state"),
            "IMAGEMILL_SOURCE_ROOTS": str(self.sources),
            "IMAGEMILL_DOCKER_HOST": self.engine_url,
            "IMAGEMILL_DOCKER_CLI": servers.docker_cli(),
            **SETTINGS,
        }

    def owner(self, pid: int) -> Worker:
        """The worker that a process belongs to."""
        line = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
        return next(each for each in self.workers if each.process and each.process.pid in line)

    def _raise_workers(self) -> None:
        for worker in self.workers:
            status = worker.ended()
            if status is None or self._closed.is_set():
                continue
            if not worker.touched:
                self.history.append(Died(time.time(), worker.name, status))
            worker.start()

    # --- Builds ---

    def source(self, name: str, *, seconds: float = 0.5) -> Path:
        """Make a project that nobody else has, whose build runs a command for so long."""
        project = self.sources / name
        project.mkdir()
        shutil.copy(servers.busybox(), project / "busybox")
        (project / "app.txt").write_text(f"{self.prefix}{name}")
        run = json.dumps(["/bin/busybox", "sleep", str(seconds)])
        (project / "Dockerfile").write_text(
            f"FROM scratch\nCOPY busybox /bin/busybox\nCOPY app.txt /app.txt\nRUN {run}\n"
        )
        return project

    def submit(self, project: Path, *, expected: str = "succeeded") -> str:
        """Ask for a build of the project, as any Celery client may; returns its id."""
        host = self.proxy.origin.removeprefix("http://")
        build = self.client.submit(
            source=str(project),
            destination=f"{host}/{project.name}",
            labels={LABEL: project.name},
        )
        self._open[build] = project.name
        self.history.append(Submitted(time.time(), build, project.name, expected))
        return build

    def later(self, seconds: float, mend: Callable[[], object]) -> None:
        """Have something mended after a while; `mended` waits for it."""
        timer = threading.Timer(seconds, mend)
        self._timers.append(timer)
        timer.start()

    def mended(self) -> None:
        """Return when all that was to be mended later has been."""
        while self._timers:
            self._timers.pop().join()

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition comes true within so many seconds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(LOOK / 5)
        return True

    def broke(self, fault: str, target: str = "", *, mended: bool = False) -> None:
        """Note what was done to the service."""
        self.history.append(Broken(time.time(), fault, target, mended))

    def settle(self, seconds: float) -> None:
        """Wait until the builds that are open have a report, for at most so long, and note what
        they came to.
        """
        self.until(lambda: all(map(self._reports, self._open)), seconds)
        # The plain result is stored after the report.
        self.until(lambda: self._answered() is None, seconds / 4)
        for build in self._open:
            self.history += self._reports(build)
            self.history.append(Answered(time.time(), build, self._state(build)))
        self.history += [Stored(time.time(), digest) for digest in self._digests()]
        self._settled |= dict.fromkeys(self._open)
        self._open.clear()

    def reported_again(self, seconds: float) -> list[str]:
        """The builds that have another report than the one that was noted, after some time in which
        one could come.
        """
        time.sleep(seconds)
        counted = Counter(each.build for each in self.history if isinstance(each, Reported))
        more = {build: self._reports(build)[counted[build] :] for build in self._settled}
        for reports in more.values():
            self.history += reports
        return [build for build, reports in more.items() if reports]

    def _answered(self) -> str | None:
        """An open build whose plain result is not final, if there is one."""
        final = {"SUCCESS", "FAILURE"}
        return next((build for build in self._open if self._state(build) not in final), None)

    def _state(self, build: str) -> str:
        return str(AsyncResult(build, app=self.client.app).state)

    def _digests(self) -> set[str]:
        """The digests of all tags of the images that open builds were to make."""
        found = set()
        for name in set(self._open.values()):
            for tag in self._get(f"{name}/tags/list", {}).get("tags") or ():
                found.add(self._digest(f"{name}/manifests/{tag}"))
        return found

    def _get(self, path: str, absent: dict[str, Any]) -> dict[str, Any]:
        answer = urllib3.request("GET", f"http://{self.registry.url}/v2/{path}")
        found: dict[str, Any] = answer.json() if answer.status == 200 else absent
        return found

    def _digest(self, path: str) -> str:
        accept = {"Accept": ", ".join((MANIFEST, OCI_MANIFEST))}
        answer = urllib3.request("HEAD", f"http://{self.registry.url}/v2/{path}", headers=accept)
        return str(answer.headers["Docker-Content-Digest"])

    def _reports(self, build: str) -> list[Reported]:
        return [
            Reported(
                event.at,
                build,
                event.report.status,
                event.report.digest,
                event.report.error.message if event.report.error else "",
            )
            for event in self.client.events(build, follow=False)
            if event.report is not None
        ]

    # --- What is seen ---

    def _look(self) -> None:
        """Note the docker builds that run, if there are more than none."""
        mark = f"--label={LABEL}="
        found = [
            (word.removeprefix(mark), str(process.info["pid"]))
            for process in psutil.process_iter(["pid", "cmdline"])
            for word in process.info["cmdline"] or ()
            if word.startswith(mark)
        ]
        if found:
            self.history.append(Building(time.time(), tuple(sorted(found))))

    def _repeat(self, do: Any, seconds: float) -> None:
        while not self._closed.wait(seconds):
            do()

    def note_left_over(self, seconds: float = 60) -> None:
        """Note what is still there of builds that have ended, after some time to be cleaned up."""
        self.until(lambda: not self._left_over(), seconds)
        self.history += self._left_over()

    def _left_over(self) -> list[Left]:
        now, state = time.time(), self.folder / "state"
        found = [
            Left(now, "folder", str(path.relative_to(state)))
            for path in (state / "scratch").glob("*")
        ]
        redis = self.client._journal.redis
        keys = [key.decode() for key in redis.scan_iter(match=f"{self.prefix}*")]
        found += [Left(now, "key without end", key) for key in keys if redis.ttl(key) == -1]
        found += [Left(now, "lock", key) for key in keys if ":lock:" in key]
        return [each for each in found if "_kombu.binding" not in each.name]

    def close(self) -> None:
        """End the workers and what watches them."""
        self._closed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        for worker in self.workers:
            worker.kill()
        self.client.close()


@contextlib.contextmanager
def site(folder: Path, *, broker: str = "redis") -> Iterator[Site]:
    """A service whose workers are not started yet; everything ends with the block."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(servers.redis(folder / "redis"))
        queue = redis
        if broker == "rabbitmq":
            queue = stack.enter_context(servers.rabbitmq(folder / "rabbitmq"))
        engine_url, engine = servers.existing_engine(), None
        if engine_url is None:
            engine = stack.enter_context(servers.engine(folder / "engine"))
            engine_url = engine.url
        registry = stack.enter_context(servers.registry(folder / "registry"))
        proxy = stack.enter_context(FaultyProxy(f"http://{registry.url}"))
        running = Site(folder, queue, redis, engine, engine_url, registry, proxy)
        stack.callback(running.close)
        yield running

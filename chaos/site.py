"""A whole service to be broken: broker, Redis, engine or cluster, registry behind a faulty proxy,
workers that a supervisor starts again, and an eye on what builds.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import urllib3
from celery.result import AsyncResult

import servers
from builds import MANIFEST
from chaos.builders import BUILDERS, Builder
from chaos.cluster import Cluster, cluster
from chaos.history import Answered, Broken, Building, Died, Event, Left, Reported, Stored, Submitted
from http_faults import FaultyProxy
from imagemill.client import Client
from imagemill.names import DEAD, POOLS, STEPS, Pool
from images import OCI_MANIFEST

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

LOOK = 0.1
"""Seconds between two looks at what builds."""

START = 90.0
"""Seconds within which all workers take tasks."""

SEEN = 0.5
"""Seconds for which it is taken as known how many builds are open."""

FIRST = 120.0
"""Seconds within which the image is made and known that all others differ from in their code."""

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

    @property
    def pid(self) -> int:
        """The id of its main process."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it; it takes tasks some seconds later."""
        self.touched = False
        self.process = servers.start_worker(self.command, self.environment, self.log)

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
    builder: Builder
    broker: servers.Server
    redis: servers.Server
    engine: servers.Server | None
    """None: the machine's own, which is not to be killed, or none at all."""
    engine_url: str | None
    cluster: Cluster | None
    registry: servers.Server
    proxy: FaultyProxy
    workers: list[Worker] = field(default_factory=list)
    history: list[Event] = field(default_factory=list)
    prefix: str = field(default_factory=lambda: f"chaos-{uuid.uuid4().hex[:8]}:")

    def __post_init__(self) -> None:
        self.points = self.folder / "points"
        self.sources = self.folder / "sources"
        for made in (self.points, self.sources, self.folder / ".docker"):
            made.mkdir()
        self.label = f"dev.imagemill.{self.prefix.strip(':')}"
        """The label by which a docker command and an image are known as ours; its value is the
        project's name."""
        # The registry wants none; but a login is what builders leave behind.
        auths = {self.registry_host: {"auth": base64.b64encode(b"ann:secret").decode()}}
        (self.folder / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
        self.client = Client(self.broker.url, self.redis.url, key_prefix=self.prefix)
        self._open: dict[str, str] = {}
        self._settled: dict[str, None] = {}
        self._unreported: set[str] = set()
        self._counted = 0.0
        self._projects = 0
        self._timers: list[threading.Timer] = []
        self._closed = threading.Event()
        self._watching: list[Future[None]] = []

    # --- Workers ---

    def start(self, *, light: int = 2, concurrency: int = 4, builders: int = 5) -> None:
        """Start the pools and what watches them; return when all workers take tasks.

        There are `light` workers for the light steps, each with `concurrency` processes, and one
        that builds, with `builders`.
        """
        for number in range(light):
            self._add(f"light{number}", POOLS["light"], concurrency)
        if self.builder.pool:
            self._add(self.builder.pool, POOLS[self.builder.pool], builders)
        names = {f"{worker.name}@chaos" for worker in self.workers}
        if not self.until(lambda: names <= self.client.workers().keys(), START):
            raise TimeoutError(f"the workers do not take tasks after {START:.0f} s")
        pool = ThreadPoolExecutor(2)
        for look, seconds in ((self._raise_workers, RISE), (self._look, LOOK)):
            self._watching.append(pool.submit(self._repeat, look, seconds))
        pool.shutdown(wait=False)
        if self.builder.code_last:
            self._make_first()

    def _add(self, name: str, pool: Pool, concurrency: int) -> None:
        where = (f"{name}@chaos", ",".join(pool.queues), pool.celery_pool)
        command = servers.worker_command(*where, concurrency, "-I", "chaos.points", "-E")
        worker = Worker(name, command, self._environment(), self.folder / f"{name}.log")
        self.workers.append(worker)
        worker.start()

    def _make_first(self) -> None:
        """Make the image that all others differ from in their code alone, and see that they do."""
        self.submit(self.source())
        self.settle(FIRST)
        known = f"{self.prefix}imagemill:graft:image:*"
        if not self.until(lambda: any(self._redis.scan_iter(match=known)), FIRST):
            raise TimeoutError("what is in the first image is not known")
        build = self.submit(self.source())
        report = self.client.wait(build, timeout=FIRST)
        self.settle(FIRST)
        if not report.grafted:
            raise RuntimeError(f"the second image was not made of the first: {report.not_grafted}")

    def _environment(self) -> dict[str, str]:
        engine: dict[str, str] = {}
        if self.engine_url:
            engine["IMAGEMILL_DOCKER_HOST"] = self.engine_url
            engine["IMAGEMILL_DOCKER_CLI"] = servers.docker_cli()
        if self.cluster:
            engine["KUBECONFIG"] = str(self.cluster.server.kubeconfig)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "CHAOS_POINTS": str(self.points),
            "IMAGEMILL_BROKER": self.broker.url,
            "IMAGEMILL_BACKEND": self.redis.url,
            "IMAGEMILL_KEY_PREFIX": self.prefix,
            "IMAGEMILL_STATE_DIR": str(self.folder / "state"),
            "IMAGEMILL_SOURCE_ROOTS": str(self.sources),
            "IMAGEMILL_CONFIG": str(self._launch_config()),
            **engine,
            **SETTINGS,
        }

    def _launch_config(self) -> Path:
        path, store = self.folder / "launch-config.yaml", (self.folder / "contexts").as_uri()
        text = self.builder.config or "builder:\n  type: docker\n"
        path.write_text(text.format(registry=self.registry_host, store=store))
        return path

    @property
    def registry_host(self) -> str:
        """Host and port of the proxy before the registry."""
        return self.proxy.origin.removeprefix("http://")

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

    def source(self, *, seconds: float = 0.5) -> Path:
        """Make a project that nobody else has, whose build runs a command for so long."""
        self._projects += 1
        project = self.sources / f"project{self._projects}"
        project.mkdir()
        shutil.copy(servers.busybox(), project / "busybox")
        (project / "app.txt").write_text(f"{self.prefix}{project.name}")
        run = json.dumps(["/bin/busybox", "sleep", str(seconds)])
        lines = ["COPY app.txt /app.txt", f"RUN {run}"]
        lines = ["COPY busybox /bin/busybox", *sorted(lines, reverse=self.builder.code_last)]
        (project / "Dockerfile").write_text("\n".join(["FROM scratch", *lines, ""]))
        return project

    def submit(self, project: Path) -> str:
        """Ask for a build of the project, as any Celery client may; returns its id."""
        build = self.client.submit(
            source=str(project),
            destination=f"{self.registry_host}/{project.name}",
            labels={self.label: project.name},
        )
        self._open[build] = project.name
        self._unreported.add(build)
        expected = self.builder.expected
        self.history.append(Submitted(time.time(), build, project.name, expected))
        return build

    def open(self) -> int:
        """How many builds had no report a moment ago."""
        if time.monotonic() - self._counted > SEEN:
            self._unreported = {build for build in self._unreported if not self._reports(build)}
            self._counted = time.monotonic()
        return len(self._unreported)

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
        for build, name in self._open.items():
            reports = self._reports(build)
            self.history += reports
            self.history.append(Answered(time.time(), build, self._state(build)))
            digests = {each.digest for each in reports if each.digest}
            stored = [digest for digest in digests if self._is_stored(name, digest)]
            self.history += [Stored(time.time(), digest) for digest in stored]
        self._settled |= dict.fromkeys(self._open)
        self._open.clear()

    def _answered(self) -> str | None:
        """An open build whose plain result is not final, if there is one."""
        final = {"SUCCESS", "FAILURE"}
        return next((build for build in self._open if self._state(build) not in final), None)

    def _state(self, build: str) -> str:
        return str(AsyncResult(build, app=self.client.app).state)

    def _is_stored(self, name: str, digest: str) -> bool:
        accept = {"Accept": ", ".join((MANIFEST, OCI_MANIFEST))}
        url = f"http://{self.registry.url}/v2/{name}/manifests/{digest}"
        return urllib3.request("HEAD", url, headers=accept).status == 200

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
        """Note what builds, if there is more than nothing."""
        found = [*self.cluster.at_work()] if self.cluster else [*self._commands()]
        if found:
            self.history.append(Building(time.time(), tuple(sorted(found))))

    def _commands(self) -> Iterator[tuple[str, str]]:
        """The projects that docker commands build, and the commands' process ids."""
        mark = f"--label={self.label}="
        for process in psutil.process_iter(["pid", "cmdline"]):
            for word in process.info["cmdline"] or ():
                if word.startswith(mark):
                    yield word.removeprefix(mark), str(process.info["pid"])

    def _repeat(self, do: Any, seconds: float) -> None:
        while not self._closed.wait(seconds):
            do()

    def finish(self, seconds: float = 60) -> None:
        """Note what is still there of builds that have ended, after some time to be cleaned up, and
        reports of theirs that have come since, after some in which a message would come again.
        """
        time.sleep(REDELIVERY)
        watching = [*self._watching, *([self.cluster.playing] if self.cluster else [])]
        for each in watching:
            if each.done():
                each.result()  # raises what has ended it
        self.until(lambda: not self._left_over(), seconds)
        self.history += self._left_over()
        counted = Counter(each.build for each in self.history if isinstance(each, Reported))
        for build in self._settled:
            self.history += self._reports(build)[counted[build] :]

    def _left_over(self) -> list[Left]:
        now, found = time.time(), [*self._keys(), *self._tags(), *self._messages()]
        found += [("process", str(pid)) for pid in self._orphans()]
        for folder in (self.folder / "state" / "scratch", self.folder / "contexts"):
            found += [("folder", str(path.relative_to(self.folder))) for path in folder.glob("*")]
        left = [Left(now, kind, name) for kind, name in found]
        return [*left, *self.cluster.left_over()] if self.cluster else left

    @property
    def _redis(self) -> Any:
        return self.client._journal.redis

    def _keys(self) -> Iterator[tuple[str, str]]:
        for key in self._redis.scan_iter(match=f"{self.prefix}*"):
            name = key.decode()
            if ":lock:" in name:
                yield "lock", name
            elif self._redis.ttl(key) == -1 and "_kombu.binding" not in name:
                yield "key without end", name

    def _tags(self) -> Iterator[tuple[str, str]]:
        """Tags that hold an image in the engine while it is pushed."""
        if self.engine_url:
            command = [servers.docker_cli(), "--host", self.engine_url, "image", "ls"]
            command += ["--filter", f"label={self.label}", "--format", "{{.Repository}}:{{.Tag}}"]
            listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for tag in listed.splitlines():
                if tag != "<none>:<none>":
                    yield "tag", tag

    def _messages(self) -> Iterator[tuple[str, str]]:
        """Queues of RabbitMQ in which there is something; Redis has keys for those."""
        if self.broker is self.redis:
            return
        with self.client.app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            for name in (STEPS, DEAD, *POOLS["all"].queues):
                declared = channel.queue_declare(queue=name, passive=True)
                if declared.message_count:
                    yield "messages", f"{declared.message_count} in {name}"

    def _orphans(self) -> Iterable[int]:
        """Processes that workers have started and that are no worker's any more."""
        own: set[int] = set()
        for worker in self.workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(worker.pid)
                own |= {process.pid, *(each.pid for each in process.children(recursive=True))}
        for process in psutil.process_iter(["pid", "environ"]):
            environment = process.info["environ"] or {}
            if environment.get("HOME") == str(self.folder) and process.pid not in own:
                yield process.pid

    def close(self) -> None:
        """End the workers and what watches them."""
        self._closed.set()
        wait(self._watching)
        for worker in self.workers:
            worker.kill()
        self.client.close()


@contextlib.contextmanager
def site(folder: Path, *, builder: str = "docker", broker: str = "redis") -> Iterator[Site]:
    """A service whose workers are not started yet; everything ends with the block."""
    kind = BUILDERS[builder]
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(servers.redis(folder / "redis"))
        queue = redis
        if broker == "rabbitmq":
            queue = stack.enter_context(servers.rabbitmq(folder / "rabbitmq"))
        engine, engine_url, played = None, None, None
        if kind.pool == "docker":
            engine_url = servers.existing_engine()
            if engine_url is None:
                engine = stack.enter_context(servers.engine(folder / "engine"))
                engine_url = engine.url
        if kind.pool == "kaniko":
            played = stack.enter_context(cluster(folder / "cluster"))
        registry = stack.enter_context(servers.registry(folder / "registry"))
        proxy = stack.enter_context(FaultyProxy(f"http://{registry.url}"))
        running = Site(folder, kind, queue, redis, engine, engine_url, played, registry, proxy)
        stack.callback(running.close)
        yield running

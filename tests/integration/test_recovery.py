"""What a build survives: workers that die, brokers that go away, sources and contexts that
vanish.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

import servers
from imagemill.builders.docker.job_folder import note_tags
from imagemill.client import Client
from imagemill.errors import ServiceUnreachable, UserError
from imagemill.messages import Build, BuildReport, BuildRequest, State
from imagemill.state.journal import connect
from service import Service, service, until

SLOW = """\
FROM scratch
COPY busybox /bin/busybox
COPY app.txt /app.txt
RUN ["/bin/busybox", "sh", "-c", "echo begun; /bin/busybox sleep 4"]
"""


@pytest.fixture
def folder(tmp_path: Path, busybox: Path) -> Path:
    """A folder that the workers may read, with a project in it whose build takes a few seconds."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "busybox").write_bytes(busybox.read_bytes())
    (project / "busybox").chmod(0o755)
    (project / "app.txt").write_text(str(tmp_path))
    (project / "Dockerfile").write_text(SLOW)
    return tmp_path


@pytest.fixture
def settings(engine: str, docker_cli: str) -> dict[str, str]:
    return {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_BUILD_TIMEOUT": "60",
    }


@pytest.fixture
def redis_service(
    folder: Path, redis_url: str, key_prefix: str, settings: dict[str, str]
) -> Iterator[Service]:
    with service(redis_url, redis_url, key_prefix, folder, **settings) as running:
        yield running


@pytest.fixture
def request_fields(folder: Path, registry: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")
    return {"source": str(folder / "project"), "destination": f"{registry}/{name}"}


def await_run(client: Client, build: str) -> None:
    """Return when the Dockerfile's RUN has begun."""
    for line in client.logs(build, follow=True):
        if "begun" in line and "echo" not in line:
            return
    raise AssertionError(client.status(build))


def test_a_build_whose_child_process_is_killed_is_done_by_another(
    redis_service: Service, request_fields: dict[str, Any]
) -> None:
    worker = redis_service.start()
    client = redis_service.client
    build = client.submit(**request_fields)
    await_run(client, build)
    (building,) = [child for child in psutil.Process(worker).children() if child.children()]
    building.kill()
    report = client.wait(build, timeout=100).raise_for_status()

    assert report.built
    assert len([event for event in client.events(build, follow=False) if event.report]) == 1


def test_a_build_of_a_worker_that_dies_goes_on_elsewhere_on_rabbitmq(
    folder: Path,
    redis_url: str,
    rabbitmq_url: str,
    key_prefix: str,
    settings: dict[str, str],
    request_fields: dict[str, Any],
) -> None:
    with service(
        rabbitmq_url, redis_url, key_prefix, folder, **settings, IMAGEMILL_REDELIVERY_SECONDS="3"
    ) as running:
        first = running.start("first")
        client = running.client
        build = client.submit(**request_fields)
        await_run(client, build)
        running.start("second")
        running.kill(first)
        report = client.wait(build, timeout=100).raise_for_status()

    assert report.built


def test_a_build_of_a_worker_that_dies_is_redelivered_by_redis(
    folder: Path,
    redis_url: str,
    key_prefix: str,
    settings: dict[str, str],
    request_fields: dict[str, Any],
) -> None:
    with service(
        redis_url, redis_url, key_prefix, folder, **settings, IMAGEMILL_REDELIVERY_SECONDS="3"
    ) as running:
        first = running.start("first")
        client = running.client
        build = client.submit(**request_fields)
        await_run(client, build)
        running.kill(first)
        running.start("second")
        report = client.wait(build, timeout=100).raise_for_status()

    assert report.built


def test_what_a_killed_worker_left_on_its_node_is_removed_though_nobody_builds(
    folder: Path, redis_url: str, key_prefix: str, settings: dict[str, str]
) -> None:
    docker = [settings["IMAGEMILL_DOCKER_CLI"], "-H", settings["IMAGEMILL_DOCKER_HOST"]]
    tag, scratch = f"localhost/imagemill-build:{key_prefix.strip(':')}", folder / "state/scratch"
    empty = subprocess.check_output(["tar", "-c", "--files-from", os.devnull])
    subprocess.run([*docker, "import", "-", tag], input=empty, check=True)
    for name in ("scratch-dead", "docker-dead"):
        (scratch / name).mkdir(parents=True)
    note_tags(scratch / "docker-dead", (tag,))
    settings |= {"IMAGEMILL_REDELIVERY_SECONDS": "0.5"}
    with service(redis_url, redis_url, key_prefix, folder, **settings) as running:
        running.start(queues="imagemill.docker")
        until(lambda: not list(scratch.iterdir()), "an empty folder", lambda: running.log)
    assert not subprocess.check_output([*docker, "images", "--quiet", tag])


def test_a_step_that_outlasts_the_redelivery_is_run_once(
    folder: Path,
    redis_url: str,
    key_prefix: str,
    settings: dict[str, str],
    request_fields: dict[str, Any],
) -> None:
    with service(
        redis_url, redis_url, key_prefix, folder, **settings, IMAGEMILL_REDELIVERY_SECONDS="1"
    ) as running:
        running.start("first")
        running.start("second")
        client = running.client
        build = client.submit(**request_fields)
        report = client.wait(build, timeout=100).raise_for_status()

        assert reports(running, build) == [report]
        assert "begins anew" not in running.log


def test_another_request_takes_over_from_a_worker_that_died(
    redis_service: Service, request_fields: dict[str, Any]
) -> None:
    first = redis_service.start("first")
    client = redis_service.client
    lost = client.submit(**request_fields)
    await_run(client, lost)
    redis_service.kill(first)
    redis_service.start("second")
    report = client.wait(client.submit(**request_fields), timeout=60).raise_for_status()

    assert report.built


def test_a_build_that_waits_is_woken_by_the_end_of_the_other(
    redis_service: Service, request_fields: dict[str, Any]
) -> None:
    redis_service.settings["IMAGEMILL_WAIT_INTERVAL"] = "600"
    redis_service.start()
    client = redis_service.client
    first = client.submit(**request_fields)
    await_run(client, first)
    second = client.submit(**request_fields)
    next(line for line in client.logs(second, follow=True) if "Waiting for build" in line)
    assert client.wait(first, timeout=60).raise_for_status().built
    assert not client.wait(second, timeout=60).raise_for_status().built


def test_a_build_that_waits_for_a_server_is_cancelled_at_once(
    redis_service: Service, request_fields: dict[str, Any]
) -> None:
    redis_service.settings |= {
        "IMAGEMILL_RETRY_BACKOFF": "100",
        "IMAGEMILL_MAX_RETRIES": "9",
        "IMAGEMILL_BUILD_TIMEOUT": "600",
    }
    redis_service.start()
    client = redis_service.client
    nobody = f"localhost:{servers.free_port()}/app"
    build = client.submit(**request_fields | {"destination": nobody})
    next(line for line in client.logs(build, follow=True) if "trying again" in line)
    client.cancel(build)
    assert client.wait(build, timeout=40).status == "cancelled"


def test_the_lock_of_a_build_that_nobody_knows_holds_nobody_up(
    redis_service: Service, request_fields: dict[str, Any], redis_url: str
) -> None:
    redis_service.start()
    client = redis_service.client
    first = client.wait(client.submit(**request_fields), timeout=60).raise_for_status()
    with connect(redis_url) as redis:
        lock = f"{redis_service.prefix}imagemill:lock:{first.tags[0]}"
        redis.set(lock, "nobody", ex=600)
        client.wait(client.submit(**request_fields, force=True), timeout=60).raise_for_status()
        until(lambda: redis.get(lock) is None, "an end of the lock")


def test_a_step_that_kills_its_workers_is_given_up(
    redis_service: Service, request_fields: dict[str, Any]
) -> None:
    redis_service.settings["IMAGEMILL_MAX_DELIVERIES"] = "1"
    worker = redis_service.start()
    client = redis_service.client
    build = client.submit(**request_fields)
    await_run(client, build)
    (building,) = [child for child in psutil.Process(worker).children() if child.children()]
    building.kill()
    report = client.wait(build, timeout=100)

    assert report.error is not None
    assert report.error.kind == "OperatorError"
    assert "died" in report.error.message
    assert "memory" in report.error.hint


def test_a_broker_that_is_away_is_said_to_be(redis_url: str) -> None:
    away = f"redis://:hunter2@localhost:{servers.free_port()}/0"
    with (
        Client(away, redis_url) as client,
        pytest.raises(ServiceUnreachable, match="does not answer") as raised,
    ):
        client.submit(source="/x")
    assert "IMAGEMILL_BROKER" in raised.value.hint
    assert "hunter2" not in str(raised.value)


def test_a_service_goes_on_when_its_broker_comes_back(
    folder: Path,
    redis_url: str,
    settings: dict[str, str],
    request_fields: dict[str, Any],
    key_prefix: str,
) -> None:
    with (
        servers.redis(folder / "broker") as broker,
        service(broker.url, redis_url, key_prefix, folder, **settings) as running,
    ):
        running.start()
        client = running.client
        broker.kill()
        with pytest.raises(ServiceUnreachable):
            client.submit(**request_fields)
        broker.restart()
        report = client.wait(client.submit(**request_fields), timeout=60)

    assert report.status == "succeeded"


def test_a_build_goes_on_when_redis_goes_away_for_a_moment(
    folder: Path,
    rabbitmq_url: str,
    settings: dict[str, str],
    request_fields: dict[str, Any],
    key_prefix: str,
) -> None:
    with (
        servers.redis(folder / "results") as results,
        service(rabbitmq_url, results.url, key_prefix, folder, **settings) as running,
    ):
        running.start()
        client = running.client
        build = client.submit(**request_fields)
        await_run(client, build)
        results.pause()
        until(lambda: not answers(results.url), "a Redis that does not answer")
        results.resume()
        report = client.wait(build, timeout=60)

    assert report.status == "succeeded"
    assert [step.state for step in report.steps][-1] == State.REPORTING


@contextmanager
def full(redis: Redis) -> Iterator[None]:
    """A Redis that has no memory left."""
    redis.config_set("maxmemory", 1)
    yield
    redis.config_set("maxmemory", 0)


@contextmanager
def a_replica(redis: Redis) -> Iterator[None]:
    """A Redis in the middle of a failover: another one is to be the primary, and is not there."""
    redis.replicaof("127.0.0.1", servers.free_port())
    yield
    redis.replicaof("NO", "ONE")


@pytest.mark.parametrize("fault", [full, a_replica])
def test_a_build_outlasts_a_redis_that_takes_nothing(
    folder: Path,
    settings: dict[str, str],
    request_fields: dict[str, Any],
    key_prefix: str,
    fault: Callable[[Redis], AbstractContextManager[None]],
) -> None:
    """Broker and results are in it."""
    with (
        servers.redis(folder / "redis") as server,
        connect(server.url) as redis,
        service(server.url, server.url, key_prefix, folder, **settings) as running,
    ):
        running.start()
        client = running.client
        build = client.submit(**request_fields)
        await_run(client, build)
        with fault(redis):
            until(
                lambda: "The end of the step waits for Redis" in running.log,
                "a step that misses Redis",
                lambda: running.log,
            )
        report = client.wait(build, timeout=100).raise_for_status()

        assert report.built
        assert reports(running, build) == [report]
        assert running.workers[0].poll() is None


def test_a_build_and_those_who_wait_for_it_outlast_a_redis_that_hangs(
    folder: Path, settings: dict[str, str], request_fields: dict[str, Any], key_prefix: str
) -> None:
    """It is broker and backend, and hangs for longer than a lease lasts."""
    settings |= {"IMAGEMILL_REDELIVERY_SECONDS": "3"}
    with (
        servers.redis(folder / "redis") as server,
        service(server.url, server.url, key_prefix, folder, **settings) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        worker = running.start()
        client = running.client
        build = client.submit(**request_fields)
        await_run(client, build)
        waiting = pool.submit(client.wait, build, 100)
        command = subprocess.Popen(
            [sys.executable, "-m", "imagemill", "wait", build], env=running.environment
        )
        until(lambda: talks(command.pid, server.url), "a command that waits")
        server.pause()
        until(lambda: not builds(worker), "the end of docker's own work")
        server.resume()
        report = waiting.result().raise_for_status()

        assert command.wait(60) == 0
        assert report.built
        assert reports(running, build) == [report]
        assert running.workers[0].poll() is None


def talks(pid: int, url: str) -> bool:
    """Whether the process has a connection to the server."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    connections = psutil.Process(pid).net_connections()
    return any(each.raddr and each.raddr.port == port for each in connections)


def builds(worker: int) -> bool:
    """Whether a docker command of the worker runs."""
    return any(
        child.name() == "docker" and child.status() != psutil.STATUS_ZOMBIE
        for child in psutil.Process(worker).children(recursive=True)
    )


def send_step(running: Service, build: str, step: str, turn: int, **more: Any) -> None:
    """Send the message of a step, as somebody may who can write to the broker."""
    message = {"id": build, "turn": turn, **more}
    running.client.app.send_task(f"imagemill.{step}", args=(message,), queue="imagemill")


def reports(running: Service, build: str) -> list[BuildReport]:
    return [
        event.report
        for event in running.client.events(build, follow=False)
        if event.report is not None
    ]


def test_messages_from_the_past_or_made_up_change_nothing(
    redis_service: Service, request_fields: dict[str, Any]
) -> None:
    redis_service.start()
    client = redis_service.client
    build = client.submit(**request_fields)
    await_run(client, build)
    forged = Build(id=build, request=BuildRequest(source="/x"), started=0, digest="sha256:0").dump()
    for step in ("load_config", "hash_source", "check_registry", "upload_context", "report"):
        for turn in (0, 1, 2, 3, 4, 5, 6, 99):
            send_step(redis_service, build, step, turn, **forged)
    report = client.wait(build, timeout=60).raise_for_status()
    send_step(redis_service, build, "report", 6, **forged)
    client.wait(client.submit(source="docker-image://localhost:1/x@sha256:" + 64 * "0"), 60)

    assert report.built
    assert reports(redis_service, build) == [report]


def test_an_entry_that_comes_twice_begins_one_build(
    redis_service: Service, request_fields: dict[str, Any]
) -> None:
    client = redis_service.client
    for _ in range(3):
        client.app.send_task(
            "imagemill.build_image",
            kwargs={"request": BuildRequest(**request_fields).dump()},
            task_id="twice",
            queue="imagemill",
        )
    redis_service.start()
    until(lambda: known(redis_service, "twice"), "the build")
    report = client.wait("twice", timeout=60).raise_for_status()
    client.wait(client.submit(source="docker-image://localhost:1/x@sha256:" + 64 * "0"), 60)

    assert reports(redis_service, "twice") == [report]


def known(running: Service, build: str) -> bool:
    try:
        return bool(running.client.status(build))
    except UserError:
        return False


def test_a_message_that_is_lost_is_sent_again(
    folder: Path, redis_url: str, key_prefix: str, request_fields: dict[str, Any]
) -> None:
    """As the Redis transport does with what it has taken when its worker is killed."""
    config = folder / "noop.yaml"
    config.write_text("builder: {type: noop}\n")
    settings = {"IMAGEMILL_CONFIG": str(config), "IMAGEMILL_REDELIVERY_SECONDS": "1"}
    with service(redis_url, redis_url, key_prefix, folder, **settings) as running:
        records = running.records(grace=1)
        request = BuildRequest(source="docker-image://localhost:1/x@sha256:" + 64 * "0")
        begun = Build(id="lost", request=request, started=time.time())
        assert records.begin(begun, "load_config", "imagemill.steps", {})
        running.start()
        until(lambda: ended(running, "lost"), "the report", lambda: running.log)
        assert running.client.app.AsyncResult("lost").get(timeout=30)["status"] == "succeeded"


def test_a_worker_that_dies_in_the_report_leaves_nobody_waiting(
    folder: Path, redis_url: str, key_prefix: str
) -> None:
    """It dies after it has written the report, and before Celery has stored the result."""
    with service(
        redis_url, redis_url, key_prefix, folder, IMAGEMILL_REDELIVERY_SECONDS="1"
    ) as running:
        records = running.records(grace=0.5)
        request = BuildRequest(source="docker-image://localhost:1/x@sha256:" + 64 * "0")
        image = f"localhost:1/x@sha256:{64 * '0'}"
        begun = Build(id="dies", request=request, started=time.time(), image=image)
        records.begin(begun, "report", "imagemill.steps", {})
        assert records.claim("dies", 1, "report", "dead", State.REPORTING)
        first = BuildReport(id="dies", status="succeeded", image=image)
        running.journal.end("dies", first)
        running.start()
        result = running.client.app.AsyncResult("dies").get(timeout=30)

        assert BuildReport.load(result) == first
        assert reports(running, "dies") == [first]
        until(
            lambda: records.overdue(1) == [] and not records.open("dies"), "the end of the record"
        )


def test_a_step_waits_for_a_redis_that_is_away(
    folder: Path, rabbitmq_url: str, key_prefix: str
) -> None:
    with (
        servers.redis(folder / "results") as results,
        service(rabbitmq_url, results.url, key_prefix, folder) as running,
    ):
        worker = running.start()
        os.killpg(worker, signal.SIGSTOP)  # the message comes when Redis is away already
        build = running.client.submit(source="docker-image://localhost:1/x@sha256:" + 64 * "0")
        results.kill()
        os.killpg(worker, signal.SIGCONT)
        until(
            lambda: "Redis went away" in running.log,
            "a worker that misses Redis",
            lambda: running.log,
        )
        results.restart()
        until(lambda: ended(running, build), "the end of the build", lambda: running.log)


def ended(running: Service, build: str) -> bool:
    try:
        return running.client.status(build).report is not None
    except (UserError, ServiceUnreachable):
        return False


def answers(url: str) -> bool:
    """Whether a Redis answers within a second."""
    import redis

    try:
        return bool(redis.Redis.from_url(url, socket_timeout=1).ping())
    except redis.exceptions.TimeoutError:
        return False


def test_no_secret_is_in_the_log_the_events_or_the_results(
    redis_service: Service, request_fields: dict[str, Any], folder: Path
) -> None:
    (folder / "project" / "Dockerfile").write_text("FROM scratch\nCOPY absent /\n")
    redis_service.start()
    client = redis_service.client
    with redis_service.monitored() as events:
        build = client.submit(**request_fields, build_args={"TOKEN": "hunter2"})
        report = client.wait(build, timeout=100)
        until(
            lambda: any(event["type"] == "task-failed" for event in events),
            "the event of the failure",
        )

    assert report.status == "failed"
    assert "hunter2" not in redis_service.log
    assert "hunter2" not in report.model_dump_json()
    assert "hunter2" not in str(client.app.AsyncResult(build).result)
    assert "hunter2" not in str(events)

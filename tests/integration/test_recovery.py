"""What a build survives: workers that die, brokers that go away, sources and contexts that
vanish.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import servers
from imagemill.client import Client, open_journal
from imagemill.config import LaunchConfig
from imagemill.config.model import DockerBuilder
from imagemill.errors import ServiceUnreachable, UserError
from imagemill.messages import Build, BuildReport, BuildRequest, State
from imagemill.objects.file import FileStore
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
    with service(rabbitmq_url, redis_url, key_prefix, folder, **settings) as running:
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
        client.wait(client.submit(**request_fields), timeout=100).raise_for_status()

        assert running.log.count("Task imagemill.build[") == 2  # received, and ended
        assert "Redelivered" not in running.log


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


@pytest.fixture
def redelivered(folder: Path) -> Callable[..., None]:
    """Sends a step of a build, as it comes from a worker that died with it, with what the build
    knows by then.
    """

    def send(running: Service, build: str, **known: Any) -> None:
        app = running.client.app
        request = BuildRequest(source=str(folder))
        message = Build(id=build, request=request, started=time.time()).knowing(**known).dump()
        with app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            app.amqp.queues["imagemill"].bind(channel).declare()
            channel.queue_purge("imagemill")  # of what other tests have left there
            app.send_task(
                "imagemill.load_config",
                args=(message,),
                queue="imagemill",
                task_id=f"step-of-{build}",
            )
            channel.basic_reject(channel.basic_get("imagemill").delivery_tag, requeue=True)

    return send


def test_a_build_that_has_ended_is_not_made_to_fail_by_a_late_message(
    redis_service: Service, redelivered: Callable[..., None]
) -> None:
    redis_service.settings["IMAGEMILL_MAX_DELIVERIES"] = "1"
    client = redis_service.client
    ended = BuildReport(id="late", status="succeeded")
    records = open_journal(client.app, redis_service.backend, redis_service.prefix)
    records.end("late", ended)
    redelivered(redis_service, "late")
    redis_service.start()
    until(
        lambda: "has ended already" in redis_service.log,
        "the late message",
        lambda: redis_service.log,
    )

    assert [event.report for event in records.events("late")] == [ended]
    assert client.app.AsyncResult("step-of-late").state == "PENDING"


def test_a_worker_that_dies_before_it_has_cleaned_up_leaves_that_to_the_next_one(
    redis_service: Service, redelivered: Callable[..., None], tmp_path: Path
) -> None:
    client = redis_service.client
    records = open_journal(client.app, redis_service.backend, redis_service.prefix)
    records.end("died", BuildReport(id="died", status="succeeded"))
    store = FileStore((tmp_path / "store").as_uri())
    with store.create("left.tar.gz") as stream:
        stream.write(b"packed")
    builder = DockerBuilder(build_context_store=(tmp_path / "store").as_uri())
    redelivered(redis_service, "died", config=LaunchConfig(builder=builder), context="left.tar.gz")
    redis_service.start()
    until(
        lambda: not store.exists("left.tar.gz"), "the end of the context", lambda: redis_service.log
    )


def test_a_redelivered_message_waits_for_a_redis_that_is_away(
    folder: Path, rabbitmq_url: str, key_prefix: str, redelivered: Callable[..., None]
) -> None:
    with (
        servers.redis(folder / "results") as results,
        service(rabbitmq_url, results.url, key_prefix, folder) as running,
    ):
        redelivered(running, "waits")
        results.kill()
        running.start()
        until(
            lambda: "Redis went away" in running.log,
            "a worker that misses Redis",
            lambda: running.log,
        )
        results.restart()
        until(lambda: loaded(running, "waits"), "the step's run", lambda: running.log)

    assert "the worker that had this step is gone" in running.log


def loaded(running: Service, build: str) -> bool:
    try:
        return running.client.status(build).state == State.LOADING
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
    (folder / "project" / "Dockerfile").write_text("FROM nowhere.invalid/x\n")
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

"""The two users of docs/redis-users.acl, on a Redis that knows nobody else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

import servers
from imagemill.client import Client
from imagemill.errors import PermissionDenied
from imagemill.messages import BuildRequest
from service import Service, service, until

USERS = Path(__file__).parents[2] / "docs/redis-users.acl"
PREFIX = "builds:"
KEYS = f"{PREFIX}imagemill:"
BUILD = f"{KEYS}build:1:"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the Redis, HOST:PORT/0."""
    folder = tmp_path_factory.mktemp("redis-users")
    users = folder / "users.acl"
    users.write_text(USERS.read_text())
    with servers.redis(folder / "redis", users=users) as running:
        yield running.url.removeprefix("redis://")


def url(server: str, user: str) -> str:
    return f"redis://builds-{user}:{user.upper()}-PASSWORD@{server}"


@pytest.fixture(scope="module")
def running(
    server: str, registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A worker with the workers' user; the source of its builds is beside it."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "source").mkdir()
    (folder / "source/Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    config = folder / "config.yaml"
    config.write_text(f"builder: {{type: noop, destination: {registry}/redis-users}}\n")
    broker = url(server, "workers")
    settings = {"IMAGEMILL_CONFIG": str(config)}
    with service(broker, broker, PREFIX, folder, **settings) as started:
        started.start()
        yield started


@pytest.fixture
def client(server: str, running: Service) -> Iterator[Client]:
    """A client of that service with the clients' user."""
    with Client(url(server, "clients"), key_prefix=PREFIX, patience=5) as connected:
        yield connected


def asked(redis: Redis, *command: str) -> Any:
    try:
        return redis.execute_command(*command)  # type: ignore[no-untyped-call]
    finally:
        redis.close()


def test_a_client_submits_and_follows_its_builds(client: Client, running: Service) -> None:
    build = client.submit(source=str(running.folder / "source"))
    states = [event.state for event in client.events(build, timeout=60) if event.state]
    report = client.wait(build, timeout=60)

    assert report.error is not None
    assert "noop" in report.error.message, report
    assert states[0] == "QUEUED"
    assert client.status(build).report == report
    assert list(client.logs(build, follow=True)) is not None
    assert client.inputs(client.source_hash(build)).entries
    client.cancel(build)


def test_a_client_asks_and_cancels(client: Client, running: Service) -> None:
    request = BuildRequest.parse({"source": str(running.folder / "source")})
    assert client.plan_upload(request, timeout=60)

    build = client.submit(request)
    client.cancel(build)
    assert client.wait(build, timeout=60).status in ("cancelled", "failed")


@pytest.mark.parametrize(
    "command",
    [
        ("HGETALL", f"{BUILD}record"),
        ("HSET", f"{BUILD}record", "step", "report"),
        ("DEL", f"{BUILD}record"),
        ("DEL", f"{BUILD}events"),
        ("SET", f"{BUILD}record", "x"),
        ("ZADD", f"{KEYS}due", "0", "1"),
        ("HSET", f"{KEYS}workers", "a", "1"),
        ("SET", f"{KEYS}lock:x", "1"),
        ("XADD", f"{KEYS}dead", "*", "letter", "x"),
        ("SET", f"{KEYS}hash:x", "1"),
        ("SET", f"{KEYS}inputs:x", "1"),
        ("LPUSH", f"{PREFIX}imagemill.steps", "x"),
        ("LPUSH", f"{PREFIX}imagemill.docker", "x"),
        ("LPUSH", f"{PREFIX}celery", "x"),
        ("LRANGE", f"{PREFIX}imagemill", "0", "-1"),
        ("RPOP", f"{PREFIX}imagemill"),
        ("SET", f"{PREFIX}imagemill", "x"),
        ("DEL", f"{PREFIX}imagemill"),
        ("HGETALL", f"{PREFIX}unacked"),
        ("SADD", f"{PREFIX}_kombu.binding.celery.pidbox", "x"),
        ("PUBLISH", f"{PREFIX}/0.celery.pidbox", "x"),
        ("SUBSCRIBE", f"{PREFIX}/0.celeryev/worker.*"),
        ("EVAL", "while true do end", "0"),
        ("SCRIPT", "LOAD", "return 1"),
        ("SCAN", "0"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("SHUTDOWN", "NOSAVE"),
        ("GET", "celery-task-meta-1"),
    ],
    ids=" ".join,
)
def test_a_client_can_do_nothing_else(server: str, command: tuple[str, ...]) -> None:
    with pytest.raises(NoPermissionError):
        asked(Redis.from_url(url(server, "clients")), *command)


def test_a_client_is_told_what_its_user_may_not(client: Client) -> None:
    with pytest.raises(PermissionDenied, match="The Redis user of this client may not do that"):
        client.builds()
    with pytest.raises(PermissionDenied):
        client.workers()


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "others:x"),
        ("PUBLISH", "others:/0.celery.pidbox", "x"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("SHUTDOWN", "NOSAVE"),
    ],
    ids=" ".join,
)
def test_a_worker_has_its_service_alone(server: str, command: tuple[str, ...]) -> None:
    with pytest.raises(NoPermissionError):
        asked(Redis.from_url(url(server, "workers")), *command)


def test_nobody_comes_in_without_a_name(server: str) -> None:
    with pytest.raises(RedisError, match="authenticat"):
        asked(Redis.from_url(f"redis://{server}"), "PING")


def test_a_worker_has_all_that_it_asks_for(running: Service) -> None:
    """With its events, by which Flower and other workers know of it."""
    with running.monitored() as events:
        until(lambda: bool(events), "an event")
    assert "NoPermission" not in running.log
    assert "No permissions" not in running.log
    assert "no permissions" not in running.log

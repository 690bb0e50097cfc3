"""The hand-over of messages, with the oldest packages that are allowed: it leans on names of Kombu's
that are not public. All other tests run it with the newest.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from redis import Redis

import servers
from chaos.messages import NOTHING_TO_BUILD
from imagemill.state.dead_letters import DeadLetters
from service import ROOT, service, until

PACKAGES = ("celery", "kombu", "redis")


def lowest() -> dict[str, str]:
    """The lowest version of each package that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in project["dependencies"]]
    return {
        each.name: bound.version
        for each in wanted
        for bound in each.specifier
        if each.name in PACKAGES and bound.operator == ">="
    }


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with those versions."""
    folder = tmp_path_factory.mktemp("packages")
    wanted = [f"{name}=={version}" for name, version in lowest().items()]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(folder), *wanted], check=True)
    return folder


_WRITES_WITHOUT_REPLICAS = """
import sys
from imagemill.state.journal import LOST, connect
from worker import transport
transport.install()
redis = connect(sys.argv[1], patience=0)
redis.config_set("min-replicas-to-write", 1)
try:
    redis.set("a", "b")
except LOST as error:
    print(error)
"""


def test_a_redis_that_has_lost_its_replicas_is_one_that_is_away(tmp_path: Path) -> None:
    with servers.redis(tmp_path) as server:
        done = subprocess.run(
            [sys.executable, "-c", _WRITES_WITHOUT_REPLICAS, server.url],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == "Not enough good replicas to write.\n"


def test_a_worker_takes_messages_by_the_oldest_packages(
    tmp_path: Path, redis_url: str, key_prefix: str, packages: Path
) -> None:
    settings = {"PYTHONPATH": str(packages), "IMAGEMILL_REDELIVERY_SECONDS": "1"}
    with service(redis_url, redis_url, key_prefix, tmp_path, **settings) as running:
        told = "import redis, kombu, celery; print(celery.__file__, kombu.__file__, redis.__file__)"
        found = subprocess.check_output(
            [sys.executable, "-c", told], env=running.environment, text=True
        )
        assert all(str(packages) in path for path in found.split())
        first = running.start("first")
        client, redis = running.client, running.journal.redis
        assert client.wait(client.submit(**NOTHING_TO_BUILD), 60).status == "succeeded"
        redis.lpush(f"{key_prefix}imagemill", "nonsense")
        until(lambda: len(DeadLetters(redis, key_prefix).all()) == 1, "the dead letter")
        running.kill(first)
        build = client.submit(**NOTHING_TO_BUILD)
        take_and_die(redis, key_prefix, build)
        for number, text in enumerate(KILLED_WITH):
            note(redis, key_prefix, f"taken-{number}", text.encode())
        for number, kept in enumerate(NO_MESSAGES):
            keep(redis, key_prefix, b"%d \xff" % number, kept)
        running.start("second")
        assert client.wait(build, 60).status == "succeeded"
        until(lambda: redis.hlen(f"{key_prefix}unacked") == 0, "an end of all messages")
        letters = {each.message.get("text") for each in DeadLetters(redis, key_prefix).all()}
        assert {"nonsense", *KILLED_WITH} <= letters
        assert running.workers[-1].poll() is None
        until(lambda: redis.hlen(f"{key_prefix}imagemill:later:messages") == 0, "an end of those")


KILLED_WITH = ("still nonsense", "[]", '{"headers": {}}', f"{'[' * 200}{']' * 200}")
"""What workers were killed with after they had taken it, and before they saw that it is no message."""


NO_MESSAGES = (b"nonsense", b"\xff", b'{"task": 1, "args": 2, "options": 3}', b"[" * 100_000)
"""What cannot be sent later."""


def keep(redis: Redis, prefix: str, message: bytes, text: bytes) -> None:
    """Keep a message whose time has come."""
    redis.zadd(f"{prefix}imagemill:later", {message: 0})
    redis.hset(f"{prefix}imagemill:later:messages", message, text)


def take_and_die(redis: Redis, prefix: str, build: str) -> None:
    """Take the message of a build off its queue, as a worker does that is killed then."""
    text = redis.rpop(f"{prefix}imagemill")
    assert isinstance(text, bytes)
    assert build.encode() in text
    note(redis, prefix, "taken-dead", text)


def note(redis: Redis, prefix: str, tag: str, text: bytes) -> None:
    """Note a message as taken, long ago."""
    redis.hset(f"{prefix}unacked", tag, b'[%s, "", "imagemill"]' % text)
    redis.zadd(f"{prefix}unacked_index", {tag: 1})

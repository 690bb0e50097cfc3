"""What a requester cannot do, on real servers: docs/security.md names these tests."""

import base64
import json
import os
import random
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from celery import Celery
from redis import Redis

from imagemill.dockerfile.generate import SHARED
from imagemill.errors import ImagemillError, UserError
from imagemill.masking import HIDDEN
from imagemill.signing import own_keys
from imagemill.state.seal import Seal
from service import Service, service, until
from tasks.pipeline import MESSAGE

SPY = """\
#!/bin/sh
case "$1" in build | push) {{ env; cat "$DOCKER_CONFIG/config.json"; }} >> "{seen}" ;; esac
exec "{docker}" "$@"
"""
"""Notes what docker is given: its variables, and its config."""

SECRET = "s3cret-value-4711"
ARGUMENT = "argument-value-4711"
LOGINS = {
    host: {"auth": base64.b64encode(f"robot:of-{host}".encode()).decode()}
    for host in ("base.example.com", "other.example.com")
}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, engine: str, docker_cli: str, redis_url: str
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("trust")
    (folder / "secrets").mkdir()
    (folder / "secrets/npm").write_text(SECRET + "\n")
    docker = folder / "docker"
    docker.write_text(SPY.format(seen=folder / "seen", docker=docker_cli))
    docker.chmod(0o755)
    (folder / ".docker").mkdir()
    (folder / ".docker/config.json").write_text(json.dumps({"auths": LOGINS}))
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": str(docker),
        "IMAGEMILL_SOURCE_TOKENS": "git.example.com=git-token",
        "AWS_SECRET_ACCESS_KEY": "cloud-secret",
        "IMAGEMILL_BUILD_SECRETS_DIR": str(folder / "secrets"),
        "IMAGEMILL_REMOTE_CONTROL": "questions",
    }
    with service(redis_url, redis_url, f"trust-{uuid.uuid4().hex}:", folder, **settings) as started:
        started.start()
        yield started


@pytest.fixture
def project(running: Service, busybox: Path) -> Path:
    folder = running.folder / uuid.uuid4().hex
    folder.mkdir()
    (folder / "busybox").write_bytes(busybox.read_bytes())
    (folder / "busybox").chmod(0o755)
    (folder / "Dockerfile").write_text(
        f"FROM scratch\nLABEL id={folder.name}\nCOPY busybox /bin/busybox\n"
    )
    return folder


@pytest.fixture
def request_of(project: Path, registry: str) -> dict[str, Any]:
    return {"source": str(project), "destination": f"{registry}/trust-{project.name}"}


def asked(running: Service, request: dict[str, Any], build: str) -> Any:
    """The result of a request that any Celery client may send, with an id of its own choice."""
    app: Celery = running.client.app
    options: dict[str, Any] = {"task_id": build, "queue": "imagemill"}
    return app.send_task("imagemill.build_image", kwargs={"request": request}, **options).get(60)


@pytest.mark.parametrize(
    "build",
    ["x/../../../victim", "x/../../victim", "..", "a.b", "x" * 65],
)
def test_an_id_is_never_a_path(running: Service, request_of: dict[str, Any], build: str) -> None:
    victim = running.folder / "victim/data"
    victim.parent.mkdir(exist_ok=True)
    victim.touch()
    with pytest.raises(ImagemillError, match="is not the id of a build"):
        asked(running, request_of, build)

    assert victim.exists()


def test_the_value_of_a_build_secret_is_in_no_log(
    running: Service, project: Path, request_of: dict[str, Any]
) -> None:
    with (project / "Dockerfile").open("a") as file:
        file.write(
            'RUN --mount=type=secret,id=npm ["/bin/busybox", "cat", "/run/secrets/npm"]\n'
            'RUN --mount=type=secret,id=npm ["/bin/busybox", "cat", "/run/secrets/npm", "no-file"]\n'
        )
    build = running.client.submit(**request_of, secrets=["npm"])
    report = running.client.wait(build, timeout=60)

    said = [*running.client.logs(build), running.log, report.model_dump_json()]
    assert report.status == "failed"
    assert any(HIDDEN in line for line in said)
    assert not [line for line in said if SECRET in line]


def test_build_arguments_are_in_no_event_and_no_answer_of_a_worker(
    running: Service, project: Path, request_of: dict[str, Any]
) -> None:
    with (project / "Dockerfile").open("a") as file:
        file.write('ARG TOKEN\nRUN ["/bin/busybox", "sleep", "2"]\n')
    request = {**request_of, "build_args": {"TOKEN": ARGUMENT}}
    build = uuid.uuid4().hex
    with running.monitored() as events:
        running.client.app.send_task(
            "imagemill.build_image", kwargs={"request": request}, task_id=build, queue="imagemill"
        )
        until(lambda: any("building" in event["type"] for event in events), "the build", str)
        active = running.client.app.control.inspect(timeout=0.5).active()
        running.client.wait(build, timeout=60).raise_for_status()
        until(lambda: any(e["type"] == "task-succeeded" for e in events), "the end", lambda: events)

    assert build in json.dumps(active)
    assert ARGUMENT not in json.dumps([active, events], default=str)
    received = next(event for event in events if event.get("uuid") == build)
    assert request_of["destination"] in received["kwargs"]


def test_docker_gets_a_listed_environment_and_the_logins_of_this_build_alone(
    running: Service, project: Path, request_of: dict[str, Any]
) -> None:
    with (project / "Dockerfile").open("a") as file:
        file.write("FROM base.example.com/x AS unused\n")
        file.write("FROM scratch\nCOPY busybox /\n")
    seen = running.folder / "seen"
    seen.unlink(missing_ok=True)
    running.client.wait(running.client.submit(**request_of), timeout=60).raise_for_status()

    given = seen.read_text()
    assert LOGINS["base.example.com"]["auth"] in given
    assert LOGINS["other.example.com"]["auth"] not in given
    assert not re.findall(r"^(?:IMAGEMILL|AWS)_.*", given, re.MULTILINE)
    assert "git-token" not in given


def test_caches_of_two_destinations_are_apart(
    running: Service, project: Path, request_of: dict[str, Any]
) -> None:
    dockerfile = (project / "Dockerfile").read_text()

    def kept(name: str, destination: str) -> str:
        """What the mounted cache has, after a build has put a file there."""
        (project / "Dockerfile").write_text(
            f"{dockerfile}RUN --mount=type=cache,{SHARED}cache,target=/c "
            f'["/bin/busybox", "sh", "-c", "/bin/busybox touch /c/{name}; echo KEPT $(echo /c/*)"]\n'
        )
        build = running.client.submit(**{**request_of, "destination": destination})
        running.client.wait(build, timeout=60).raise_for_status()
        last = [line for line in running.client.logs(build) if "KEPT /c" in line][-1]
        return last.partition("KEPT ")[2]

    own, other = request_of["destination"], f"{request_of['destination']}-other"
    assert kept("first", own) == "/c/first"
    assert kept("second", own) == "/c/first /c/second"
    assert kept("third", other) == "/c/third"


@pytest.mark.parametrize(
    "order",
    [
        ("shutdown", {}),
        ("pool_shrink", {"n": 2}),
        ("cancel_consumer", {"queue": "imagemill"}),
        ("rate_limit", {"task_name": "imagemill.build_image", "rate_limit": "1/h"}),
        ("time_limit", {"task_name": "imagemill.build", "hard": 1}),
        ("revoke", {"task_id": "b" * 32}),
        ("hello", {"from_node": "other@test", "revoked": {"b" * 32: 0}}),
        ("conf", {}),
        ("memdump", {}),
    ],
    ids=lambda order: order[0],
)
def test_a_worker_obeys_no_order_of_remote_control(
    running: Service, order: tuple[str, dict[str, Any]]
) -> None:
    control = running.client.app.control
    asking = control.inspect(timeout=5, limit=1)
    before: Any = asking.stats()
    control.broadcast(order[0], arguments=order[1])

    assert "'imagemill'" in str(asking.active_queues())
    assert asking.revoked() == {"all@test": []}
    after: Any = asking.stats()
    assert after["all@test"]["pool"]["processes"] == before["all@test"]["pool"]["processes"]
    assert f"The order {order[0]} of remote" in running.log


def test_a_worker_does_not_listen_to_remote_control_unless_it_is_told_to(
    waiting: "Waiting",
) -> None:
    control = waiting.service.client.app.control
    assert control.inspect(timeout=0.5).ping() is None
    control.broadcast("shutdown")
    assert list(waiting.service.client.workers()) == ["light@test"]


def test_messages_that_no_worker_sent_change_nothing(
    running: Service, request_of: dict[str, Any]
) -> None:
    build, app = uuid.uuid4().hex, running.client.app
    for step in ("load_config", "build", "report", "verify"):
        for message in ({"id": build, "turn": 1}, {"id": build, "turn": 1, "seal": "a.b"}):
            app.send_task(f"imagemill.{step}", args=(message,), queue="imagemill.steps")
    done = running.client.wait(running.client.submit(**request_of), timeout=60)
    until(
        lambda: running.log.count("A message that no worker sent is passed over") >= 8,
        "what the log says of the messages",
        lambda: running.log,
    )

    assert done.status == "succeeded"
    with pytest.raises(UserError, match="Nothing is known"):
        running.client.status(build)


@dataclass
class Waiting:
    """A service without a worker that builds, and a build that waits for one."""

    service: Service
    redis: "Redis"
    build: str

    def key(self, what: str) -> str:
        return f"{self.service.prefix}imagemill:build:{self.build}:{what}"

    def known(self) -> dict[bytes, Any]:
        """All that Redis holds of builds: records, journals, what is due, locks."""
        keys = [
            key
            for key in self.redis.scan_iter(f"{self.service.prefix}imagemill:*", count=1000)
            if b":workers" not in key and b":served" not in key
        ]
        return {key: self.redis.dump(key) for key in keys}


@pytest.fixture(scope="module")
def waiting(
    running: Service, registry: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Waiting]:
    folder, prefix = tmp_path_factory.mktemp("waiting"), f"record-{uuid.uuid4().hex}:"
    (folder / "source").mkdir()
    (folder / "source/Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    (folder / "config.yaml").write_text("builder:\n  type: docker\n")
    settings = running.settings | {
        "IMAGEMILL_CONFIG": str(folder / "config.yaml"),
        "IMAGEMILL_REMOTE_CONTROL": "off",
        "IMAGEMILL_REDELIVERY_SECONDS": "600",
    }
    with (
        service(redis_url, redis_url, prefix, folder, **settings) as own,
        Redis.from_url(redis_url) as redis,
    ):
        own.start("light", queues="imagemill")
        source, destination = str(folder / "source"), f"{registry}/record-{uuid.uuid4().hex}"
        waiting = Waiting(own, redis, own.client.submit(source=source, destination=destination))
        until(lambda: redis.hget(waiting.key("record"), "step") == b"build", "the build step", str)
        yield waiting


STEPS = ("load_config", "hash_source", "check_registry", "upload_context", "build", "report")


def messages_of_nobody(waiting: Waiting, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Steps and messages: made up, such as were sent before, and changed ones."""
    chance = random.Random(11)
    seal = Seal(own_keys(waiting.service.folder / "state/signing-key"))
    turn = int(cast("bytes", waiting.redis.hget(waiting.key("record"), "turn")))
    for _ in range(count):
        step, at = chance.choice(STEPS), chance.randrange(1, turn)
        sealed = seal.close(MESSAGE, waiting.build, f"{at} {step}").partition("\n")[0]
        message: dict[str, Any] = {"id": waiting.build, "turn": at, "seal": sealed}
        match chance.randrange(6):
            case 0:
                message["seal"] = f"{chance.randbytes(8).hex()}.{chance.randbytes(32).hex()}"
            case 1:
                message["turn"] = turn
            case 2:
                place = chance.randrange(len(sealed))
                other = chance.choice("0123456789abcdef.".replace(sealed[place], ""))
                message["seal"] = sealed[:place] + other + sealed[place + 1 :]
            case 3:
                message["id"] = uuid.uuid4().hex
            case 4:
                step = chance.choice([each for each in STEPS if each != step])
                message["turn"] = turn
        yield step, message


MESSAGES = int(os.environ.get("IMAGEMILL_TEST_FORGED", "100"))
"""How many are tried: a thousand take a minute."""


def test_messages_that_are_made_up_changed_or_old_change_nothing(waiting: Waiting) -> None:
    app, log = waiting.service.client.app, waiting.service.folder / "worker-light.log"
    before, read = waiting.known(), len(log.read_text())
    with app.producer_pool.acquire(block=True) as producer:
        for step, message in messages_of_nobody(waiting, MESSAGES):
            options: dict[str, Any] = {"queue": "imagemill.steps", "producer": producer}
            app.send_task(f"imagemill.{step}", args=(message,), **options)

    until(
        lambda: log.read_text()[read:].count(" is passed over") >= MESSAGES,
        "the lines of the log",
        lambda: log.read_text()[read:],
        seconds=MESSAGES,
    )
    assert waiting.known() == before
    assert log.read_text()[read:].count(" is passed over") == MESSAGES


def test_a_record_that_somebody_changed_ends_the_build(waiting: Waiting, tmp_path: Path) -> None:
    victim = tmp_path / "victim/data"
    victim.parent.mkdir()
    victim.touch()
    own, key = waiting.service, waiting.key("record")
    sealed = waiting.redis.hget(key, "message")
    assert isinstance(sealed, bytes)
    seal, _, record = sealed.partition(b"\n")
    changed = {**json.loads(record), "context": str(victim.parent)}
    waiting.redis.hset(key, "message", seal + b"\n" + json.dumps(changed).encode())
    own.start("docker", queues="imagemill.docker")
    report = own.client.wait(waiting.build, timeout=60)

    assert report.error is not None
    assert report.error.message == "What Redis holds of the build is not what a worker wrote"
    assert victim.exists()


def test_a_build_begins_anew_where_its_config_is_another(waiting: Waiting, registry: str) -> None:
    own, config = waiting.service, waiting.service.folder / "config.yaml"
    for worker in own.workers[1:]:
        own.kill(worker.pid)
    destination = f"{registry}/config-{uuid.uuid4().hex}"
    source = str(own.folder / "source")  # with graft it would wait for the build of `waiting`
    build = own.client.submit(source=source, destination=destination, graft=False)
    waits = replace(waiting, build=build)
    until(lambda: waits.redis.hget(waits.key("record"), "step") == b"build", "the build step", str)
    sealed = cast("bytes", waits.redis.hget(waits.key("record"), "message"))
    named = json.loads(sealed.partition(b"\n")[2])["config"]
    config.write_text(f"builder:\n  type: docker\n  destination: {registry}/other\n")
    own.start("docker2", queues="imagemill.docker")
    report = own.client.wait(build, timeout=60).raise_for_status()

    assert named.keys() == {"digest", "builder"}
    assert report.built
    assert any("the build begins anew" in line for line in own.client.logs(build))


def test_workers_of_two_folders_work_together_only_by_a_key_that_was_given(
    registry: str, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("builder:\n  type: noop\n")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    prefix = f"folders-{uuid.uuid4().hex}:"
    settings = {"IMAGEMILL_CONFIG": str(tmp_path / "config.yaml")}
    with service(redis_url, redis_url, prefix, tmp_path, **settings) as own:
        for name, queue in (("light", "imagemill"), ("other", "imagemill.noop")):
            own.settings["IMAGEMILL_STATE_DIR"] = str(tmp_path / f"state-{name}")
            own.start(name, queues=queue)
        until(lambda: "sign with a key that this worker does not have" in own.log, "the log")
        build = own.client.submit(str(tmp_path), f"{registry}/folders")
        until(lambda: "A message that no worker sent is passed over" in own.log, "the log")
        assert own.client.status(build).report is None

        (tmp_path / "key").write_text("key-of-all" * 4)
        own.settings["IMAGEMILL_SIGNING_KEYS"] = str(tmp_path / "key")
        for pid in [worker.pid for worker in own.workers]:
            own.kill(pid)
        for name, queue in (("light2", "imagemill"), ("other2", "imagemill.noop")):
            own.settings["IMAGEMILL_STATE_DIR"] = str(tmp_path / f"state-{name}")
            own.start(name, queues=queue)
        error = own.client.wait(own.client.submit(str(tmp_path), f"{registry}/folders2")).error
        assert error is not None
        assert error.kind != "BrokenSealError"

"""What those who run workers see of them: health, metrics, log lines and webhooks."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import servers
from command_line import CommandLine
from images import Pusher
from service import Service, service, until
from webhook_receiver import Receiver

PORT = servers.free_port()


@pytest.fixture
def running(
    tmp_path: Path,
    redis_url: str,
    key_prefix: str,
    receiver: Receiver,
) -> Iterator[Service]:
    """A service of one worker that is watched, and tells a receiver on this machine."""
    secret = tmp_path / "webhook-secret"
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    with service(
        redis_url,
        redis_url,
        key_prefix,
        tmp_path,
        IMAGEMILL_METRICS_PORT=str(PORT),
        IMAGEMILL_WEBHOOKS=receiver.url,
        IMAGEMILL_WEBHOOK_NETWORKS="127.0.0.0/8",
        IMAGEMILL_INSECURE_WEBHOOKS="127.0.0.1",
        IMAGEMILL_WEBHOOK_SECRET_FILE=str(secret),
    ) as made:
        made.start()
        yield made


def asked(path: str) -> tuple[int, str]:
    """Status and text of an answer of the worker's."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def figure(name: str) -> float:
    """The value of a metric that is written so, with its labels; 0 if it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", asked("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_worker_is_watched(running: Service, registry: str, receiver: Receiver) -> None:
    assert asked("/healthz") == (200, "ok\n")
    assert asked("/readyz") == (200, "ok\n")
    assert asked("/else")[0] == 404

    Pusher(registry, "watched").image("v1")
    client = running.client
    good = client.submit(f"docker-image://{registry}/watched:v1")
    bad = client.submit("/no/such/folder", f"{registry}/watched")
    assert client.wait(good, timeout=60).status == "succeeded"
    assert client.wait(bad, timeout=60).status == "failed"

    until(
        lambda: figure("imagemill_builds_begun_total") == 2,
        "two builds that have begun",
        lambda: asked("/metrics")[1],
        seconds=10,
    )
    told = asked("/metrics")[1]
    assert re.search(r'imagemill_builds_total{.*status="succeeded",why="existed"} 1.0', told), told
    assert figure('imagemill_step_seconds_count{step="load_config"}') == 2
    assert figure('imagemill_queue_length{queue="imagemill"}') == 0
    assert figure('imagemill_queue_wait_seconds_count{queue="imagemill.steps"}') > 0

    for build, said in ((good, "succeeded"), (bad, "failed")):
        lines = [line for line in running.log.splitlines() if f"build={build}" in line]
        assert any("A build begins" in line for line in lines)
        assert any(f"The build has {said}" in line for line in lines)

    until(lambda: len(receiver.received) == 2, "two events")
    events = {(told := json.loads(body))["id"]: told["type"] for _, body in receiver.received}
    assert events == {
        good: "dev.imagemill.build.succeeded",
        bad: "dev.imagemill.build.failed",
    }
    assert all(headers["Webhook-Signature"] for headers, _ in receiver.received)


def test_an_event_is_sent_until_it_is_taken(
    running: Service,
    registry: str,
    receiver: Receiver,
) -> None:
    Pusher(registry, "watched").image("v1")
    receiver.status = 503
    build = running.client.submit(f"docker-image://{registry}/watched:v1")
    until(lambda: bool(receiver.received), "a first try")
    receiver.status = 204
    until(lambda: len(receiver.received) == 2, "a second try")
    first, second = ((headers["Webhook-Id"], body) for headers, body in receiver.received)
    assert first == second
    assert first[0] == build


def test_builds_are_listed_newest_first(running: Service, registry: str, tmp_path: Path) -> None:
    Pusher(registry, "watched").image("v1")
    client = running.client
    good = client.submit(f"docker-image://{registry}/watched:v1")
    client.wait(good, timeout=60)
    bad = client.submit("/no/such/folder", f"{registry}/other")
    client.wait(bad, timeout=60)

    newest, older = client.builds()
    assert (newest.id, newest.state, newest.destination) == (bad, "FAILED", f"{registry}/other")
    assert (older.id, older.state) == (good, "SUCCEEDED")
    assert older.image
    assert older.image.startswith(f"{registry}/watched@sha256:")
    assert newest.error
    assert [each.id for each in client.builds(states=["SUCCEEDED"])] == [good]
    assert [each.id for each in client.builds(destination="other")] == [bad]
    assert [each.id for each in client.builds(most=1)] == [bad]
    assert client.builds(since=0) == []

    command = CommandLine(tmp_path, running.environment)
    shown = command.run("list", "--state", "failed")
    assert shown.stdout.startswith(bad)
    assert len(shown.stdout.splitlines()) == 1
    wrong = command.run("list", "--state", "broken")
    assert wrong.returncode == 2
    assert "the states are queued" in wrong.stderr


def test_dead_letters_are_counted_and_shown(running: Service) -> None:
    running.journal.redis.lpush(f"{running.prefix}imagemill", "nonsense")
    until(lambda: figure("imagemill_dead_letters_total") == 1, "a dead letter")
    assert len(running.client.dead_letters()) == 1

"""The worker's settings, Celery configuration and log."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagemill.errors import OperatorError
from tasks.log_context import bound
from worker.celeryconfig import configuration
from worker.logging import JsonFormatter, LineFormatter, WithContext
from worker.settings import Settings, from_environment

REDIS = "redis://localhost:6379/0"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_BROKER", REDIS)
    monkeypatch.setenv("IMAGEMILL_SOURCE_ROOTS", "/src:/data")
    monkeypatch.setenv("IMAGEMILL_INSECURE_REGISTRIES", "a:5000, b")
    monkeypatch.setenv("IMAGEMILL_BUILD_TIMEOUT", "60")
    monkeypatch.setenv("DOCKER_HOST", "unix:///x")
    settings = from_environment()

    assert settings.backend == REDIS
    assert settings.sources.roots == (Path("/src"), Path("/data"))
    assert settings.insecure_registries == frozenset({"a:5000", "b"})
    assert settings.build_timeout == 60
    assert settings.docker_host == "unix:///x"


def test_a_missing_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEMILL_BROKER", raising=False)
    with pytest.raises(OperatorError, match="IMAGEMILL_BROKER"):
        from_environment()


def test_rabbitmq_needs_a_redis_for_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_BROKER", "amqp://guest:hunter2@localhost//")
    with pytest.raises(OperatorError, match="IMAGEMILL_BACKEND") as raised:
        from_environment()
    assert "hunter2" not in str(raised.value)


def test_no_password_is_in_the_settings_text() -> None:
    assert "hunter2" not in repr(Settings(broker="redis://:hunter2@localhost/0"))


def test_messages_are_json_only_and_acknowledged_late() -> None:
    celery = configuration(Settings(broker=REDIS))
    assert celery["accept_content"] == ["json"]
    assert celery["task_acks_late"]
    assert celery["task_reject_on_worker_lost"]
    assert celery["worker_prefetch_multiplier"] == 1


def test_a_killed_workers_lock_on_redelivery_ends_within_the_redelivery_time() -> None:
    transport = configuration(Settings(broker=REDIS, redelivery_seconds=6))[
        "broker_transport_options"
    ]
    assert transport["unacked_mutex_expire"] < 6


def test_a_log_record_says_which_build_and_step_it_is_of() -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "said %s", ("so",), None)
    with bound(build="b1", step="push"):
        WithContext().filter(record)
    entry = json.loads(JsonFormatter().format(record))

    assert entry["message"] == "said so"
    assert (entry["build"], entry["step"]) == ("b1", "push")
    assert entry["level"] == "INFO"


def test_what_others_wrote_begins_no_line_of_the_log() -> None:
    record = logging.LogRecord(
        "x", logging.ERROR, "f", 1, "a\n2026 %s", ("\x1b[31mforged\r\u2028",), None
    )
    try:
        raise ValueError("of\n2026 INFO forged\x1b[0m")
    except ValueError:
        record.exc_info = sys.exc_info()
    WithContext().filter(record)
    first, *others = LineFormatter().format(record).splitlines()

    assert first.endswith("x: a 2026 forged  ")
    assert others
    assert all(line.startswith("    ") and line.isprintable() for line in others)


@pytest.mark.parametrize(
    ("variable", "path", "said"),
    [
        ("IMAGEMILL_SIGNING_KEYS", "short", "short: A key for signatures is missing, or too short"),
        (
            "IMAGEMILL_STATE_DIR",
            "short/state",
            "The worker may not keep the key that it signs with",
        ),
    ],
)
def test_a_worker_that_cannot_sign_does_not_start(
    tmp_path: Path, variable: str, path: str, said: str
) -> None:
    (tmp_path / "short").write_text("key\n")
    environment = {**os.environ, "IMAGEMILL_BROKER": REDIS, variable: str(tmp_path / path)}
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hint: " in done.stderr

"""A worker that is killed between any two requests leaves nothing wrong, and its successor ends with
the same digest.
"""

import os
import signal
import uuid
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from benchmarks.proxy import Counts, counting
from builds import PushedImage
from graft_trial import Before, Trials, flattened
from imagemill.reference import ImageReference
from processes import forking
from trees import make

DOCKERFILE = "FROM scratch\nCOPY a /a\nCOPY b /b\n"


@pytest.fixture
def trials(
    tmp_path: Path, docker_cli: str, engine: str, registry: str, redis_url: str, busybox: Path
) -> Trials:
    redis = Redis.from_url(redis_url)
    return Trials(docker_cli, engine, registry, redis, tmp_path, busybox)


def graft(trials: Trials, redis_url: str, folder: Path, name: str, before: Before) -> None:
    """Make an image, in a process of its own."""
    replace(trials, redis=Redis.from_url(redis_url)).grafted(folder, name, before)


def killed_at(number: int, counts: Counts, arguments: tuple[object, ...]) -> bool:
    """Whether a process that makes an image was killed right before its request of this number."""
    worker = forking().Process(target=graft, args=arguments)
    counts.clear()

    def kill() -> None:
        if len(counts.requests) == number and worker.pid:
            os.kill(worker.pid, signal.SIGKILL)

    counts.on_request = kill
    worker.start()
    worker.join()
    counts.on_request = bool
    assert worker.exitcode in (0, -signal.SIGKILL)
    return worker.exitcode != 0


def test_whoever_comes_after_one_that_was_killed_makes_the_same_image(
    trials: Trials, registry: str, redis_url: str
) -> None:
    folder = make(trials.folder / "project", {"Dockerfile": DOCKERFILE, "a/x": "1", "b/y": "2"})
    before = trials.built(folder, uuid.uuid4().hex)
    make(folder, {"a/x": "3", "b/y": "4", "b/large": bytes(17 << 20)})
    whole = trials.grafted(folder, "whole", before)
    expected = flattened(PushedImage(ImageReference.parse(f"{registry}/whole@{whole}")))
    with counting(registry) as (address, counts):
        through = replace(trials, registry=address)
        number, killed = 0, True
        while killed:
            number, name = number + 1, f"killed-{uuid.uuid4().hex}"
            sent = replace(through, redis=cast(Redis, None))  # a connection cannot be sent
            killed = killed_at(number, counts, (sent, redis_url, folder, name, before))
            digest = through.grafted(folder, name, before)
            made = PushedImage(ImageReference.parse(f"{registry}/{name}@{digest}"))
            assert digest == whole
            assert flattened(made) == expected
    assert number > 8

"""Messages of which something has become something else, and a worker that has to outlive them.

python -m chaos.messages 10000
"""

import base64
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from redis import Redis

import servers
from chaos import ROOT  # noqa: F401 (what the tests have is found from there on)
from imagemill.state.dead_letters import DeadLetters
from service import service

NOTHING_TO_BUILD: dict[str, Any] = {"source": f"docker-image://localhost:1/x@sha256:{64 * '0'}"}
"""A request that needs neither builder nor registry."""


def send(redis: Redis, queue: str, *, count: int, seed: int) -> None:
    """Put so many messages at random into a queue."""
    chance = random.Random(seed)
    for number in range(count):
        redis.lpush(queue, json.dumps(_changed(chance, number)))


def nested(depth: int) -> Any:
    """A value within so many others."""
    value: Any = "x"
    for _ in range(depth):
        value = {"a": value}
    return value


def _changed(chance: random.Random, number: int) -> dict[str, Any]:
    """A message in which something may have become something else."""
    steps = ["build_image", "load_config", "build", "report", "sweep", "plan_upload", "nothing"]
    kwargs: dict[str, Any] = {"request": dict(NOTHING_TO_BUILD)}
    headers: dict[str, Any] = {
        "id": f"changed-{number}",
        "task": f"imagemill.{chance.choice(steps)}",
        "lang": "py",
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": None,
        "parent_id": None,
        "group": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "x",
        "ignore_result": None,
        "shadow": None,
        "stamps": {},
        "stamped_headers": None,
    }
    embedded: dict[str, Any] = {
        "callbacks": None,
        "errbacks": None,
        "chain": None,
        "chord": None,
    }
    properties: dict[str, Any] = {
        "delivery_info": {"exchange": "", "routing_key": "imagemill"},
        "body_encoding": "base64",
        "delivery_tag": "x",
        "priority": 0,
        "correlation_id": "x",
        "reply_to": "x",
        "delivery_mode": 2,
    }
    for part in (headers, embedded, properties, kwargs):
        if chance.random() < 0.5:
            part[chance.choice(list(part))] = _something(chance)
    body = json.dumps([[], kwargs, embedded]).encode()
    return {
        "body": base64.b64encode(body).decode(),
        "headers": headers,
        "properties": properties,
        "content-type": "application/json",
        "content-encoding": chance.choice(["utf-8", "utf-8", "utf-8", "x", None, 5]),
    }


def _something(chance: random.Random) -> Any:
    values: list[Any] = [
        None,
        True,
        -1,
        10**30,
        1e308,
        "",
        "x",
        "9999-12-31T23:59:59+00:00",
        [],
        {},
    ]
    return chance.choice(
        [*values, [[]], {"a": []}, nested(40), nested(500), [None], "\u0000", "imagemill"]
    )


def main() -> int:
    """Send as many as are asked for to a worker; 1 if it did not outlive them."""
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as name, servers.redis_server(Path(name) / "redis") as url:
        folder = Path(name)
        config = folder / "noop.yaml"
        config.write_text("builder: {type: noop}\n")
        with service(url, url, "", folder, IMAGEMILL_CONFIG=str(config)) as running:
            running.start()
            send(running.journal.redis, "imagemill", count=count, seed=count)
            build = running.client.submit(**NOTHING_TO_BUILD)
            report = running.client.wait(build, timeout=count)
            refused = len(DeadLetters(running.journal.redis, "").all())
            died = running.workers[0].poll() is not None or "Unrecoverable" in running.log
    print(f"{count} messages, of the last ones {refused} refused and kept; the build after them")
    print(f"has {report.status}; the worker {'died' if died else 'lives'}")
    return int(died or report.status != "succeeded")


if __name__ == "__main__":
    sys.exit(main())

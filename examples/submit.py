"""Asks for a build without Imagemill, Celery or any other package: a tenant's signed request, as a
message of Celery's (protocol 2) in Redis. Prints the result, once it is there.

    IMAGEMILL_TENANT_KEY=… python examples/submit.py HOST:PORT TENANT REQUEST.json

REQUEST.json is a request (docs/schema/build-request.json). Where the tenant has a queue of its own,
the signature may be left out, and the queue is imagemill.tenant.TENANT.
"""

import base64
import hashlib
import hmac
import json
import os
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import BinaryIO

QUEUE = "imagemill"


def arguments(build: str, request: str, tenant: str, key: str) -> dict[str, str]:
    """Return the signed request: docs/security.md has the lines that are signed."""
    issued = str(int(time.time()))
    lines = "\n".join(("imagemill-request-v1", tenant, build, issued, request))
    signature = hmac.digest(key.encode(), lines.encode(), hashlib.sha256).hex()
    return {"request": request, "tenant": tenant, "issued": issued, "signature": signature}


def message(build: str, kwargs: dict[str, str]) -> str:
    """Return the message as it lies in Redis."""
    body = json.dumps([[], kwargs, {}])
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {
                "task": "imagemill.build_image",
                "id": build,
                "root_id": build,
                "lang": "py",
            },
            "properties": {
                "correlation_id": build,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


def ask(redis: BinaryIO, *words: str) -> bytes | None:
    """Return what Redis answers to a command."""
    texts = [word.encode() for word in words]
    redis.write(b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(t), t) for t in texts))
    redis.flush()
    line = redis.readline()
    kind, rest = line[:1], line[1:].strip()
    if kind == b"-":
        raise OSError(rest.decode())
    if kind != b"$" or rest == b"-1":
        return None
    return redis.read(int(rest) + 2)[:-2]


def main() -> None:
    """Send the request, and wait for its result."""
    address, tenant, file = sys.argv[1:]
    host, _, port = address.rpartition(":")
    prefix, build = os.environ.get("IMAGEMILL_KEY_PREFIX", ""), uuid.uuid4().hex
    request = Path(file).read_text()
    kwargs = arguments(build, request, tenant, os.environ["IMAGEMILL_TENANT_KEY"])
    with (
        socket.create_connection((host, int(port))) as connection,
        connection.makefile("rwb") as redis,
    ):
        ask(redis, "LPUSH", prefix + QUEUE, message(build, kwargs))
        while True:
            result = ask(redis, "GET", f"{prefix}celery-task-meta-{build}")
            if result and json.loads(result)["status"] in ("SUCCESS", "FAILURE"):
                break
            time.sleep(0.2)
    print(result.decode())


if __name__ == "__main__":
    main()

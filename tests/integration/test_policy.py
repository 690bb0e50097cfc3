"""A service with two tenants, and a policy: what each may, on real servers."""

import base64
import json
import subprocess
import sys
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from imagemill.client import Client
from imagemill.errors import PermissionDenied
from service import Service, service, until

CONFIG = """\
policy:
  tags: ["v*"]
  sources: ["{folder}/**", "docker-image://**"]
  tenants:
    team-a:
      destinations: {registry}/a-*
      base-images: ["{registry}/a-*"]
    team-b:
      max-seconds: 30
    team-d:
      concurrent-builds: 1
    team-e:
      daily-builds: 1
    team-q:
      own-queue: true
      destinations: {registry}/q-*
"""
QUEUE_OF_Q = "imagemill.tenant.team-q"
EXAMPLE = str(Path(__file__).parents[2] / "examples/submit.py")
KEYS = types.MappingProxyType({f"team-{name}": name * 40 for name in "abde"})


@pytest.fixture(scope="module")
def tenants(
    tmp_path_factory: pytest.TempPathFactory,
    engine: str,
    docker_cli: str,
    registry: str,
    redis_url: str,
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("policy")
    (folder / "keys").mkdir()
    for tenant, key in KEYS.items():
        (folder / "keys" / tenant).write_text(key)
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(folder=folder, registry=registry))
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_CONFIG": str(config),
        "IMAGEMILL_TENANT_KEYS_DIR": str(folder / "keys"),
        "IMAGEMILL_SOURCE_ROOTS": "/",
    }
    prefix = f"policy-{uuid.uuid4().hex}:"
    with service(redis_url, redis_url, prefix, folder, **settings) as started:
        started.start()
        yield started


@pytest.fixture
def source(tenants: Service) -> Path:
    folder = tenants.folder / uuid.uuid4().hex
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY Dockerfile /\nLABEL id={folder.name}\n")
    return folder


def ends(tenants: Service, tenant: str | None, key: str = "", **request: Any) -> str:
    """How a build ends that a tenant asks for: its status, or what the policy says."""
    key = key or KEYS.get(tenant or "", "")
    prefix = tenants.prefix
    with Client(tenants.broker, key_prefix=prefix, tenant=tenant, key=key) as client:
        report = client.wait(client.submit(**request), timeout=60)
    return report.error.message if report.error else report.status


def test_a_tenant_builds_what_it_may(tenants: Service, source: Path, registry: str) -> None:
    destination = f"{registry}/a-x"
    ended = ends(tenants, "team-a", source=str(source), destination=destination, tags=["v1"])
    assert ended == "succeeded"


@pytest.mark.parametrize(
    ("tenant", "request_of", "rule"),
    [
        ("team-a", {"destination": "{registry}/b-x"}, "policy.tenants.team-a.destinations"),
        ("team-a", {"tags": ["latest"]}, "policy.tags"),
        ("team-a", {"source": "/etc"}, "policy.sources"),
        ("team-a", {"source": "{folder}/../../etc"}, "policy.sources"),
        ("team-a", {"source": "git+https://example.com/x"}, "policy.sources"),
        ("team-b", {"timeout": 31}, "policy.tenants.team-b.max-seconds"),
    ],
)
def test_what_it_may_not_names_the_rule(
    tenants: Service,
    source: Path,
    registry: str,
    tenant: str,
    request_of: dict[str, Any],
    rule: str,
) -> None:
    request: dict[str, Any] = {"source": str(source), "destination": f"{registry}/a-x"}
    request |= request_of
    for name in ("source", "destination"):
        request[name] = request[name].format(folder=tenants.folder, registry=registry)
    assert f"The rule {rule} of the launch config" in ends(tenants, tenant, **request)


def test_a_dockerfile_builds_from_what_it_may(
    tenants: Service, source: Path, registry: str
) -> None:
    (source / "Dockerfile").write_text(f"FROM {registry}/b-secret\n")
    said = ends(tenants, "team-a", source=str(source), destination=f"{registry}/a-x", force=True)
    assert "The rule policy.tenants.team-a.base-images of the launch config" in said


@pytest.mark.parametrize(
    ("tenant", "key", "said"),
    [
        (None, "", "A request that no tenant has signed is not served here"),
        ("team-a", "b" * 40, "The request is not signed with the key of the tenant team-a"),
        ("team-c", "c" * 40, "The workers have no key of a tenant team-c"),
    ],
)
def test_who_is_no_tenant_is_not_served(
    tenants: Service, source: Path, tenant: str | None, key: str, said: str
) -> None:
    assert said in ends(tenants, tenant, key, source=str(source), destination="a.io/x")


def test_a_tenant_has_so_many_builds_at_a_time(
    tenants: Service, source: Path, registry: str
) -> None:
    source_text = f"docker-image://{registry}/nobody"
    with Client(tenants.broker, key_prefix=tenants.prefix, tenant="team-d", key="d" * 40) as client:
        builds = [client.submit(source_text) for _ in range(4)]
        reports = [client.wait(build, timeout=60) for build in builds]
        logs = [line for build in builds for line in client.logs(build)]

    assert {report.status for report in reports} <= {"succeeded", "failed"}
    assert not [report for report in reports if report.error and "policy" in report.error.message]
    with Redis.from_url(tenants.backend) as redis:
        until(
            lambda: redis.zcard(f"{tenants.prefix}imagemill:tenant:team-d:line") == 0,
            "the end",
            str,
        )
    assert all("builds of this tenant are before it" in line for line in logs if "Waiting" in line)


def test_a_tenant_has_so_many_builds_a_day(tenants: Service, source: Path, registry: str) -> None:
    request: dict[str, Any] = {"source": str(source), "destination": f"{registry}/e-x"}
    assert ends(tenants, "team-e", **request) == "succeeded"
    assert "policy.tenants.team-e.daily-builds" in ends(tenants, "team-e", **request)


def sent(tenants: Service, queue: str, request: dict[str, Any], **more: Any) -> Any:
    """The report of a request that is sent to a queue by any Celery client."""
    app, kwargs = tenants.client.app, {"request": request, **more}
    return app.send_task("imagemill.build_image", kwargs=kwargs, queue=queue).get(60)


def test_who_may_write_to_a_tenants_queue_is_the_tenant(
    tenants: Service, source: Path, registry: str
) -> None:
    request = {"source": str(source), "destination": f"{registry}/q-x"}
    queue = QUEUE_OF_Q
    assert sent(tenants, queue, request)["status"] == "succeeded"
    with pytest.raises(PermissionDenied, match=r"policy.tenants.team-q.destinations"):
        sent(tenants, queue, request | {"destination": f"{registry}/a-x"})
    with pytest.raises(PermissionDenied, match="through the queue of the tenant team-q"):
        sent(tenants, queue, request, tenant="team-a")


def envelope(build: str, body: str, queue: str) -> str:
    """A message in Redis that says that it came through this queue."""
    ways = {"delivery_info": {"exchange": queue, "routing_key": queue}, "delivery_tag": build}
    return json.dumps(
        {
            "body": body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": "imagemill.build_image", "id": build, "lang": "py"},
            "properties": {**ways, "correlation_id": build, "body_encoding": "base64"},
        }
    )


def test_a_message_cannot_say_through_which_queue_it_came(
    tenants: Service, source: Path, registry: str
) -> None:
    request = {"source": str(source), "destination": f"{registry}/q-x"}
    app, build = tenants.client.app, uuid.uuid4().hex
    key = f"{tenants.prefix}imagemill"
    with Redis.from_url(tenants.broker) as redis:
        body = base64.b64encode(json.dumps([[], {"request": request}, {}]).encode()).decode()
        message = envelope(build, body, QUEUE_OF_Q)
        redis.lpush(key, message)
        with pytest.raises(PermissionDenied, match="no tenant has signed"):
            app.AsyncResult(build).get(60)


def test_a_caller_without_our_package_signs(
    tenants: Service, source: Path, registry: str, tmp_path: Path
) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"source": str(source), "destination": f"{registry}/a-own"}))
    address = tenants.broker.removeprefix("redis://").partition("/")[0]
    command = [sys.executable, "-I", EXAMPLE, address, "team-a", str(request)]
    for key, ends_as in ((KEYS["team-a"], "SUCCESS"), ("x" * 40, "FAILURE")):
        given = {"IMAGEMILL_TENANT_KEY": key, "IMAGEMILL_KEY_PREFIX": tenants.prefix}
        said = subprocess.run(command, env=given, capture_output=True, check=True, timeout=60)
        assert json.loads(said.stdout)["status"] == ends_as


def test_a_tenant_does_not_wait_for_all_of_anothers(
    tenants: Service, source: Path, registry: str
) -> None:
    request: dict[str, Any] = {"source": f"docker-image://{registry}/nobody:x"}
    with (
        Client(tenants.broker, key_prefix=tenants.prefix, tenant="team-b", key="b" * 40) as many,
        Client(tenants.broker, key_prefix=tenants.prefix, tenant="team-a", key="a" * 40) as one,
    ):
        before = [many.submit(**request) for _ in range(40)]
        one.wait(one.submit(**request), timeout=60)
        ended = sum(many.status(build).report is not None for build in before)
        for build in before:
            many.wait(build, timeout=60)

    assert ended < len(before)

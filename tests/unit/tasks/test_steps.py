"""The steps of a build, one after the other in this process: what each learns and hands on, what
becomes of failures, and who waits for whom.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagemill.client import Client
from imagemill.messages import BuildReport, State
from imagemill.names import LIGHT, tenant_queue
from images import Pusher
from in_process import Service, service
from registry_server import RegistryServer, registry_server
from web import Request, Response, serve

BUSY = Response(503)


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with registry_server() as server:
        yield server


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Service]:
    """A service that builds nothing: what it is asked for is there, or is not."""
    with service(tmp_path, "builder: {type: noop}\n") as found:
        yield found


def there(running: Service, registry: RegistryServer, **more: Any) -> tuple[Path, str, str]:
    """A source whose image is in the registry: the source, the destination and the digest."""
    source, destination = running.source(), f"{registry.address}/team/app"
    missing = running.build(source, destination, **more)
    assert missing.source_hash is not None
    return source, destination, Pusher(registry.address, "team/app").image(missing.source_hash)


def failed(report: BuildReport) -> tuple[str, str]:
    """How a build has failed: the kind of its error, and what that says."""
    assert report.error is not None
    return report.error.kind, report.error.message


# --- What is learned ---


def test_an_image_that_is_pinned_already_is_the_result(running: Service) -> None:
    image = f"localhost:1/x@sha256:{'0' * 64}"
    report = running.build(f"docker-image://{image}")
    assert report.status == "succeeded"
    assert report.image == image
    assert [each.state for each in report.steps] == [
        State.QUEUED,
        State.LOADING,
        State.HASHING,
        State.CHECKING,
        State.REPORTING,
    ]


def test_an_image_that_is_there_is_not_built_but_tagged(
    running: Service, registry: RegistryServer
) -> None:
    source, destination, digest = there(running, registry)
    report = running.build(source, destination, tags=["v1"])
    assert (report.status, report.digest, report.built) == ("succeeded", digest, False)
    assert report.tags == (f"{destination}:{report.source_hash}", f"{destination}:v1")
    kept = registry.repositories["team/app"].manifests
    assert kept["v1"] == kept[digest]
    assert report.image == f"{destination}@{digest}"


def test_another_source_is_another_image(running: Service, registry: RegistryServer) -> None:
    _, destination, _ = there(running, registry)
    report = running.build(running.source(app="2"), destination)
    assert failed(report)[0] == "UserError"
    assert "nothing can build it" in failed(report)[1]
    assert report.error is not None
    assert "builder.type" in report.error.hint
    assert report.error.state == State.BUILDING


def test_the_destination_is_the_requests_or_the_configs(
    running: Service, registry: RegistryServer
) -> None:
    source, destination, digest = there(running, registry)
    nowhere = running.build(source)
    assert failed(nowhere)[0] == "UserError"
    assert "not said where" in failed(nowhere)[1]
    config = running.settings.config
    assert config is not None
    config.write_text(f"builder: {{type: noop, destination: {destination}}}\n")
    os.utime(config, ns=(1, 1))
    assert running.build(source).digest == digest


def test_what_a_build_learned_is_in_its_result_for_whoever_called_it(running: Service) -> None:
    request = {"source": f"docker-image://localhost:1/x@sha256:{'0' * 64}"}
    told = running.client.app.signature(
        "celery.accumulate", kwargs={"index": 0}, queue="imagemill", task_id="told"
    )
    sent = running.call("imagemill.build_image", request=request, options={"link": told})
    report = running.finished(sent)
    running.run_all()
    assert BuildReport.load(running.result("told")) == report
    assert BuildReport.load(running.result(sent)) == report


def test_the_result_of_a_build_that_failed_raises_its_error(running: Service) -> None:
    sent = running.call("imagemill.build_image", request={"source": "/no/such"})
    report = running.finished(sent)
    running.run_all()
    with pytest.raises(Exception, match="not said where the image is to be pushed"):
        running.result(sent)
    assert report.status == "failed"


def test_a_request_that_is_none_is_refused_at_once(running: Service) -> None:
    request = {"source": "/src", "tags": ["no tag"]}
    sent = running.call("imagemill.build_image", request=request)
    assert running.run_all() == ["build_image"]
    kind, message = failed(running.finished(sent))
    assert kind == "UserError"
    assert "tags" in message


# --- Failures that pass, and those that do not ---


def test_a_registry_that_is_busy_is_asked_again(running: Service, registry: RegistryServer) -> None:
    source, destination, digest = there(running, registry)
    registry.faults += [BUSY, BUSY]
    build = running.client.submit(str(source), destination)
    assert running.finished(build).digest == digest
    assert registry.faults == []
    said = [line for line in running.client.logs(build) if "trying again in" in line]
    assert len(said) == 2


def test_a_build_has_the_time_that_was_asked_for_and_no_more(
    running: Service, registry: RegistryServer
) -> None:
    registry.faults += [BUSY] * 100
    report = running.build(running.source(), f"{registry.address}/team/app", timeout=1)
    assert report.error is not None
    assert report.error.state == State.CHECKING
    # It is said by whoever sees it first: the step, or what it waits for.
    assert report.error.kind in ("ServiceUnreachable", "UserError")


def test_more_time_than_the_workers_give_is_refused(running: Service) -> None:
    report = running.build(running.source(), "localhost:1/x", timeout=1e6)
    assert failed(report)[0] == "UserError"
    assert "1000000 s were asked for" in failed(report)[1]


def test_tries_end_where_what_answers_goes_on_failing(
    tmp_path: Path, registry: RegistryServer
) -> None:
    config = "builder: {type: noop}\n"
    with service(tmp_path, config, max_retries=1) as running:
        source, destination, digest = there(running, registry)
        kept = registry.repositories["team/app"].manifests
        build = running.client.submit(str(source), destination, tags=["v1"])
        while running.step() != "check_registry":
            running.reaper.send_later()
        kept.clear()  # somebody deletes the image before it is tagged
        report = running.finished(build)
    assert failed(report)[0] == "TransientError"
    assert f"The registry has nothing under {destination}" in failed(report)[1]
    assert f"where {digest} was pushed" in failed(report)[1]
    assert report.error is not None
    assert report.error.state == State.VERIFYING


def test_a_config_that_changes_while_a_build_runs_begins_it_anew(
    running: Service, registry: RegistryServer
) -> None:
    source, destination, digest = there(running, registry)
    build = running.client.submit(str(source), destination)
    while running.step() != "load_config":
        pass
    config = running.settings.config
    assert config is not None
    config.write_text("builder: {type: noop, cache-mounts: false}\n")
    os.utime(config, ns=(2, 2))
    report = running.finished(build)
    assert report.digest == digest
    assert any("the build begins anew" in line for line in running.client.logs(build))
    assert [each.state for each in report.steps].count(State.LOADING) == 2


def test_a_config_that_every_worker_has_another_of_is_the_reason_in_the_end(
    running: Service, registry: RegistryServer
) -> None:
    source, destination, _ = there(running, registry)
    build = running.client.submit(str(source), destination)
    config, number = running.settings.config, 2
    assert config is not None
    while True:
        running.reaper.send_later()
        step = running.step()
        if step == "load_config":
            number += 1
            config.write_text(f"builder: {{type: noop, destination: localhost:1/x{number}}}\n")
            os.utime(config, ns=(number, number))
        elif step == "report":
            break
    kind, message = failed(running.finished(build))
    assert kind == "ConfigChangedError"
    assert "the build began with" in message


# --- Whose turn it is ---


def test_a_message_that_comes_twice_is_run_once(running: Service, registry: RegistryServer) -> None:
    source, destination, digest = there(running, registry)
    build = running.client.submit(str(source), destination)
    seen: list[dict[str, Any]] = []
    while message := running.taken():
        seen.append(message)
        running.run(message)
        if len(seen) > 1:  # the entry's own second coming is seen to by the record
            running.run(message)
    report = running.finished(build)
    assert report.digest == digest
    names = [each["headers"]["task"].removeprefix("imagemill.") for each in seen]
    assert names == ["build_image", "load_config", "hash_source", "check_registry", "report"]


def test_a_message_that_no_worker_has_sent_is_passed_over(running: Service) -> None:
    image = f"docker-image://localhost:1/x@sha256:{'0' * 64}"
    build = running.client.submit(image)
    running.step()
    due = running.taken()
    assert due is not None
    ((hint,), _, _) = due["body"]
    for forged in (
        {**hint, "seal": "0" * len(hint["seal"])},
        {**hint, "turn": 7},
        {**hint, "id": "another"},
        {"id": build, "turn": 1},
        "no message",
    ):
        running.run({**due, "body": ((forged,), *due["body"][1:])})
        assert running.run_all() == []
    running.run(due)
    assert running.finished(build).status == "succeeded"


def test_a_step_whose_worker_is_gone_begins_anew_elsewhere(
    tmp_path: Path, registry: RegistryServer
) -> None:
    with service(tmp_path, "builder: {type: noop}\n", redelivery_seconds=0.05) as running:
        source, destination, digest = there(running, registry)
        build = running.client.submit(str(source), destination)
        running.step()
        lose(running, build, "load_config", State.LOADING)
        report = running.finished(build)
        said = list(running.client.logs(build))
    assert report.digest == digest
    assert "The worker that had this step was lost; it begins anew" in said


def test_a_step_that_costs_too_many_workers_their_lives_ends_the_build(tmp_path: Path) -> None:
    with service(
        tmp_path,
        "builder: {type: noop}\n",
        redelivery_seconds=0.05,
        max_deliveries=1,
    ) as running:
        build = running.client.submit(str(running.source()), "localhost:1/x")
        running.step()
        lose(running, build, "load_config", State.LOADING)
        kind, message = failed(running.finished(build))
    assert kind == "OperatorError"
    assert "died 1 times in this step" in message


def lose(running: Service, build: str, step: str, state: State) -> None:
    """A worker dies with the step that is due; the reaper sends its message again."""
    from tasks.settings import records

    message = running.taken()
    assert message is not None
    assert records().claim(build, message["body"][0][0]["turn"], step, "dead:1", state) is not None
    sent: list[object] = []
    while not sent:
        running.reaper.send_overdue()
        if found := running.taken():
            sent.append(found)
            running.run(found)


# --- Who waits ---


def test_one_build_at_a_time_makes_an_image_and_the_others_are_woken_by_its_end(
    tmp_path: Path, registry: RegistryServer
) -> None:
    # Nobody would wake by the clock in the time of this test.
    with service(tmp_path, "builder: {type: noop}\n", wait_interval=3600) as running:
        source, destination = str(running.source()), f"{registry.address}/team/app"
        first = running.client.submit(source, destination)
        while running.step() != "check_registry":
            pass
        second = running.client.submit(source, destination)
        light = ("imagemill.steps", "imagemill")
        while running.step(light):
            pass
        said = list(running.client.logs(second, follow=False))
        assert f"Waiting for build {first}, which is making the same image" in said
        assert running.finished(first).status == "failed"
        assert running.finished(second).status == "failed"


def test_a_build_is_cancelled_before_it_begins_and_while_it_waits(
    tmp_path: Path, registry: RegistryServer
) -> None:
    with service(tmp_path, "builder: {type: noop}\n", wait_interval=3600) as running:
        source, destination = str(running.source()), f"{registry.address}/team/app"
        early = running.client.submit(source, destination)
        running.client.cancel(early)
        assert running.finished(early).status == "cancelled"
        first = running.client.submit(source, destination)
        while running.step() != "check_registry":
            pass
        waiting = running.client.submit(source, destination)
        while running.step(("imagemill.steps", "imagemill")):
            pass
        running.client.cancel(waiting)
        running.reaper.send_later()
        while running.step(("imagemill.steps", "imagemill")):
            pass
        report = running.client.status(waiting).report
        assert report is not None
        assert report.status == "cancelled"
        assert failed(report)[0] == "BuildCancelled"
        assert running.client.status(first).report is None


# --- Tenants ---

POLICY = """\
builder: {type: noop}
policy:
  tags: ["v*"]
  tenants:
    team-a:
      destinations: "*/a-*"
      max-seconds: 30
    team-d:
      concurrent-builds: 1
    team-e:
      daily-builds: 1
    team-q:
      own-queue: true
      destinations: "*/q-*"
"""
KEYS = {f"team-{name}": name * 40 for name in "ade"}


@pytest.fixture
def tenants(tmp_path: Path) -> Iterator[Service]:
    folder = tmp_path / "keys"
    folder.mkdir()
    for tenant, key in KEYS.items():
        (folder / tenant).write_text(key)
    with service(tmp_path, POLICY, tenant_keys_dir=folder) as found:
        yield found


def asked(tenants: Service, tenant: str, source: str, key: str = "", **more: Any) -> str:
    """The id of a build that a tenant has asked for."""
    settings = tenants.settings
    with Client(
        settings.broker, key_prefix=settings.key_prefix, tenant=tenant, key=key or KEYS[tenant]
    ) as client:
        return client.submit(source, **more)


IMAGE = f"docker-image://localhost:1/a-x@sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("tenant", "more", "rule"),
    [
        ("team-a", {"tags": ["latest"]}, "policy.tags"),
        ("team-a", {"timeout": 31}, "policy.tenants.team-a.max-seconds"),
        ("team-a", {"key": "x" * 40}, "not signed with the key"),
    ],
)
def test_what_a_tenant_may_not_names_the_rule(
    tenants: Service, tenant: str, more: dict[str, Any], rule: str
) -> None:
    kind, message = failed(tenants.finished(asked(tenants, tenant, IMAGE, **more)))
    assert kind == "PermissionDenied"
    assert rule in message


def test_a_destination_that_is_not_the_tenants_is_denied(tenants: Service) -> None:
    source = str(tenants.source())
    denied = tenants.finished(asked(tenants, "team-a", source, destination="localhost:1/b-x"))
    assert "policy.tenants.team-a.destinations" in failed(denied)[1]


def test_builds_beyond_a_tenants_number_wait_for_those_before_them(tenants: Service) -> None:
    first = asked(tenants, "team-d", IMAGE)
    while tenants.step() != "load_config":
        pass
    second = asked(tenants, "team-d", IMAGE)
    while tenants.step(("imagemill",)):
        pass
    assert tenants.finished(first).status == "succeeded"
    assert tenants.finished(second).status == "succeeded"


def test_a_day_has_so_many_builds_of_a_tenant(tenants: Service) -> None:
    assert tenants.finished(asked(tenants, "team-e", IMAGE)).status == "succeeded"
    kind, message = failed(tenants.finished(asked(tenants, "team-e", IMAGE)))
    assert kind == "PermissionDenied"
    assert "daily-builds" in message


def test_who_sends_through_a_tenants_own_queue_is_that_tenant_and_needs_no_signature(
    tenants: Service,
) -> None:
    options = {"queue": tenant_queue(LIGHT, "team-q")}

    def ends(source: str, **more: Any) -> BuildReport:
        request = {"source": source, **more.pop("request", {})}
        sent = tenants.call("imagemill.build_image", request=request, options=options, **more)
        return tenants.finished(sent)

    assert ends(IMAGE).status == "succeeded"
    elsewhere = ends(str(tenants.source()), request={"destination": "localhost:1/a-x"})
    assert "policy.tenants.team-q.destinations" in failed(elsewhere)[1]
    other = ends(IMAGE, tenant="team-a")
    assert "through the queue of the tenant team-q" in failed(other)[1]
    unsigned = tenants.finished(tenants.call("imagemill.build_image", request={"source": IMAGE}))
    assert failed(unsigned)[0] == "PermissionDenied"


# --- Besides ---


def test_a_webhook_is_told_of_the_end_until_it_has_heard(tmp_path: Path) -> None:
    answers = [Response(503, {"Retry-After": "0"}), Response(204)]

    def hook(_: Request) -> Response:
        return answers.pop(0)

    with serve(hook) as web:
        settings = {
            "webhooks": f"http://{web.address}/hook",
            "insecure_webhooks": frozenset({"127.0.0.1"}),
            "webhook_networks": "127.0.0.0/8",
        }
        with service(tmp_path, "builder: {type: noop}\n", **settings) as running:
            build = running.client.submit(IMAGE)
            running.finished(build)
            deadline = time.monotonic() + 60
            while answers and time.monotonic() < deadline:
                running.run_all()
        events = [json.loads(request.body) for request in web.requests]
    assert [event["id"] for event in events] == [events[0]["id"]] * 2
    assert events[0]["data"]["id"] == build
    assert events[0]["data"]["status"] == "succeeded"


def test_what_dead_workers_left_is_swept_away_once_it_is_old(running: Service) -> None:
    scratch = running.settings.state_dir / "scratch"
    scratch.mkdir(parents=True)
    for name in ("old", "new"):
        (scratch / name).mkdir()
        (scratch / name / "file").write_text("x")
    (scratch / "old.tar").write_text("x")
    for name in ("old", "old.tar"):
        os.utime(scratch / name, (1, 1))
    running.call("imagemill.sweep")
    running.run_all()
    assert [path.name for path in scratch.iterdir()] == ["new"]


def test_whoever_uploads_is_told_what_the_config_says(running: Service) -> None:
    sent = running.call("imagemill.plan_upload", request={"source": "/src"})
    running.run_all()
    plan = running.result(sent)
    assert plan["builder"]["type"] == "noop"

"""One trace of a build, from the span of whoever asks for it to what Kaniko is told."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

from images import Pusher
from kaniko_chain import CONFIG, begin, job, push
from kubernetes_server import KubernetesServer
from service import ROOT, Service, service, until
from webhook_receiver import Receiver

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector(receiver: Receiver) -> Receiver:
    receiver.status = 200
    return receiver


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KubernetesServer]:
    with KubernetesServer(tmp_path) as server:
        yield server


@pytest.fixture
def running(
    tmp_path: Path,
    redis_url: str,
    key_prefix: str,
    registry: str,
    cluster: KubernetesServer,
    collector: Receiver,
) -> Iterator[Service]:
    """A service of one worker that traces."""
    config, store = tmp_path / "launch-config.yaml", (tmp_path / "contexts").as_uri()
    config.write_text(CONFIG.format(registry=registry, name=key_prefix.strip(":"), store=store))
    settings = {
        "IMAGEMILL_CONFIG": str(config),
        "IMAGEMILL_OTLP_ENDPOINT": collector.url.removesuffix("/hook"),
        "KUBECONFIG": str(cluster.kubeconfig),
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with service(redis_url, redis_url, key_prefix, tmp_path, **settings) as made:
        made.start(queues="imagemill,imagemill.kaniko", pool="threads", concurrency=4)
        yield made


def spans(collector: Receiver) -> dict[str, Any]:
    """The last span of each name that the collector has got."""
    return {
        span.name: span
        for _, body in list(collector.received)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def test_one_trace_leads_from_the_caller_to_kaniko(
    running: Service, collector: Receiver, cluster: KubernetesServer, tmp_path: Path
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    with TracerProvider().get_tracer("caller").start_as_current_span("caller") as caller:
        build = running.client.submit(tmp_path / "project")
    made = job(cluster, running)
    begin(cluster, made)
    cluster.finish(made, 0, push(made))
    running.client.wait(build, timeout=60).raise_for_status()
    until(lambda: "imagemill.report" in spans(collector), "the last span")

    told = spans(collector)
    steps = ("load_config", "hash_source", "check_registry", "upload_context", "build", "report")
    assert {f"imagemill.{step}" for step in ("build_image", *steps)} <= told.keys()
    context = caller.get_span_context()
    assert {span.trace_id.hex() for span in told.values()} == {f"{context.trace_id:032x}"}
    entry = told["imagemill.build_image"]
    assert entry.parent_span_id.hex() == f"{context.span_id:016x}"
    assert {told[f"imagemill.{step}"].parent_span_id for step in steps} == {entry.span_id}

    env = {
        each["name"]: each["value"]
        for each in made["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    builds = told["imagemill.build"]
    parent = f"00-{builds.trace_id.hex()}-{builds.span_id.hex()}-"
    assert env["TRACEPARENT"].startswith(parent)
    assert env["KANIKO_TELEMETRY_ENDPOINT"] == running.settings["IMAGEMILL_OTLP_ENDPOINT"]
    assert env["OTEL_RESOURCE_ATTRIBUTES"].startswith(f"imagemill.build={build},")


@pytest.mark.parametrize(
    "header", [PARENT, f"{PARENT},x=y", "00-" + 32 * "0" + "-" + 16 * "1" + "-01", None]
)
def test_a_caller_brings_the_id_of_its_span_and_nothing_else(
    running: Service, collector: Receiver, registry: str, header: str | None
) -> None:
    Pusher(registry, "traced").image("v1")
    request = {"source": f"docker-image://{registry}/traced:v1"}
    headers = {"traceparent": header, "tracestate": "vendor=secret", "baggage": "user=ann"}
    asked = running.client.app.send_task(
        "imagemill.build_image", kwargs={"request": request}, queue="imagemill", headers=headers
    )
    assert asked.get(timeout=60)["status"] == "succeeded"
    until(lambda: "imagemill.report" in spans(collector), "the last span")
    told = spans(collector)
    (trace_id,) = {span.trace_id.hex() for span in told.values()}
    assert (trace_id == PARENT.split("-")[1]) == (header == PARENT)
    assert not any(b"secret" in body or b"ann" in body for _, body in collector.received)
    assert {span.trace_state for span in told.values()} == {""}


def test_who_does_not_trace_imports_no_exporter() -> None:
    """Of the rest redis-py imports some, where it is installed."""
    program = (
        "import sys, imagemill.client, tasks.all; from worker.app import create;"
        "from worker.settings import Settings; create(Settings(broker='redis://localhost'));"
        "client = imagemill.client.Client('redis://localhost:1'); client._patience = 0;"
        "print([name for name in sys.modules if name.startswith('opentelemetry.exporter')])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"


def test_a_program_that_has_no_span_sends_none() -> None:
    from imagemill.tracing import submitting

    assert trace  # it is imported
    with submitting() as headers:
        assert headers == {}

"""What the Kaniko builder makes of registries and stores of contexts, on real ones."""

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from urllib3 import request

from api_player import own_server
from aws_fixtures import use_temporary_keys
from builds import until
from imagemill.builders.kaniko.api import SECRETS
from imagemill.builders.kaniko.overlay import executor
from imagemill.clouds import aws
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    TransientError,
)
from imagemill.ports import ContextStore
from images import Pusher
from kaniko_builds import (
    DIGEST,
    Logins,
    Object,
    Passwords,
    PlayedCluster,
    played_cluster,
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[PlayedCluster]:
    with played_cluster(tmp_path) as played:
        yield played


PERSON = {
    "type": "authorized_user",
    "client_id": "id",
    "client_secret": "secret",
    "refresh_token": "token",
}


def test_an_image_that_was_there_before_is_not_the_result_of_a_kaniko_that_wrote_no_digest(
    cluster: PlayedCluster, registry: str
) -> None:
    source_hash = uuid.uuid4().hex * 2
    Pusher(registry, "team/app").image(source_hash)
    open_registry = Passwords(Logins(), frozenset({registry}))
    build = cluster.build(source_hash, destination=f"{registry}/team/app", registry=open_registry)
    job, _ = cluster.run()
    cluster.server.finish(job, 0, "Usage: executor [flags]")
    error = build.error()
    assert isinstance(error, OperatorError)
    assert "wrote no digest" in error.message


@own_server("its Jobs' controller makes no second pod")
def test_the_digest_is_the_registrys_where_the_pod_of_a_job_that_succeeded_is_gone(
    cluster: PlayedCluster, registry: str
) -> None:
    source_hash = uuid.uuid4().hex * 2
    digest = Pusher(registry, "team/app").image(source_hash)
    first = cluster.build(source_hash, destination=f"{registry}/team/app")
    _, pod = cluster.run()
    first.stop(TransientError("the worker lost its lock"))
    assert isinstance(first.error(), TransientError)
    cluster.server.delete_pod(pod)
    cluster.server.finish(cluster.job(), 0, pod=cluster.server.start_pod(cluster.job()))
    cluster.server.delete_pod(cluster.server.pods(cluster.job())[0])
    open_registry = Passwords(Logins(), frozenset({registry}))
    second = cluster.build(source_hash, destination=f"{registry}/team/app", registry=open_registry)
    assert second.result() == digest


IMMUTABLE = (
    "error pushing image: failed to push to destination {image}: PUT https://{image}: TAG_INVALID: The image tag 'v1'"
    " already exists in the 'team/app' repository and cannot be overwritten because the tag is immutable."
)


@own_server("a pod that no node runs has no log")
def test_an_image_that_the_registry_keeps_is_the_result_of_a_kaniko_that_could_not_replace_it(
    cluster: PlayedCluster, registry: str
) -> None:
    source_hash = uuid.uuid4().hex * 2
    digest = Pusher(registry, "team/app").image(source_hash)
    build = cluster.build(
        source_hash, destination=f"{registry}/team/app", registry=Passwords(Logins())
    )
    job, _ = cluster.run(lines=[IMMUTABLE.format(image=f"{registry}/team/app:{source_hash}")])
    cluster.server.finish(job, 1, DIGEST)
    assert build.result() == digest
    assert any("cannot be replaced" in line and digest in line for line in build.progress.lines)
    assert cluster.is_empty()


@own_server("a pod that no node runs has no log")
def test_a_registry_that_keeps_what_it_does_not_show_fails_the_build(
    cluster: PlayedCluster, registry: str
) -> None:
    build = cluster.build(destination=f"{registry}/team/nothing", registry=Passwords(Logins()))
    job, _ = cluster.run(lines=[IMMUTABLE.format(image="x")])
    cluster.server.finish(job, 1, DIGEST)
    error = build.error()
    assert isinstance(error, OperatorError)
    assert "cannot be overwritten" in error.message


def url_of(secret: Object) -> str:
    return base64.b64decode(secret["data"]["url"]).decode()


@own_server("a pod that no node runs has no log")
def test_the_context_is_read_by_a_url_that_is_in_the_jobs_own_secret_and_nowhere_else(
    cluster: PlayedCluster, s3_store: ContextStore, s3_bucket: str
) -> None:
    source_hash = uuid.uuid4().hex * 2
    with s3_store.create(f"{source_hash}.tar.gz") as stream:
        stream.write(b"the context")
    store: dict[str, Any] = {
        "build_context_store": f"s3://{s3_bucket}/some/path",
        "context_access": None,
    }
    build = cluster.build(source_hash, **store)
    job = cluster.job()
    assert until(lambda: len(cluster.objects(SECRETS)) == 1)
    url = url_of(cluster.objects(SECRETS)[0])
    assert request("GET", url).data == b"the context"
    assert request("GET", url.replace(source_hash, "another")).status == 403
    signature = url.rpartition("=")[2]
    assert signature not in json.dumps(job)
    failed = f'error resolving source context: Get "{url}": dial tcp: i/o timeout'
    cluster.run(lines=[failed])
    cluster.server.finish(job, 1, failed)
    error = build.error()
    assert isinstance(error, ImagemillError)
    said = "\n".join([*build.progress.lines, error.message, error.hint])
    assert "X-Amz-Signature=***" in said
    assert signature not in said
    assert until(lambda: cluster.objects(SECRETS) == [])


def test_a_url_that_ends_before_a_pod_starts_is_signed_anew(
    cluster: PlayedCluster, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's own credentials end within the hour, as those of roles do."""
    monkeypatch.setattr(aws, "_LEAST_LEFT", 2.0)
    use_temporary_keys(monkeypatch, tmp_path)
    store: dict[str, Any] = {
        "build_context_store": f"s3://{s3_bucket}/some/path",
        "context_access": "signed",
    }
    build = cluster.build(**store)
    cluster.job()
    seen: set[str] = set()

    def look() -> bool:
        seen.update(map(url_of, cluster.objects(SECRETS)))
        return len(seen) == 2

    assert until(look)
    cluster.succeed()
    assert build.result() == DIGEST


def test_a_store_that_cannot_be_signed_for_is_told_or_left_to_the_pods_identity(
    cluster: PlayedCluster,
    gcs_bucket: str,
    gcs_emulator: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = tmp_path / "person.json"
    person.write_text(json.dumps(PERSON))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(person))
    store: dict[str, Any] = {"build_context_store": f"gs://{gcs_bucket}/contexts"}
    refused = cluster.build(**store, context_access="signed")
    assert isinstance(refused.error(), PermissionDenied)
    build = cluster.build(**store, context_access=None)
    assert "$(" not in " ".join(executor(cluster.job())["args"])
    assert build.says("reads its context with its own identity, since no URL can be signed")
    cluster.succeed()
    assert build.result() == DIGEST

"""What the Kaniko builder does in a cluster: one Job a build, watched, its log handed on, and
nothing left behind.

The tests play the Job controller, the scheduler and the kubelet: in the API server of the tests, or
through the API of a real cluster (`make test-cluster`), where the Job controller is its own.
"""

import base64
import itertools
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from api_player import own_server
from builds import until
from certificates import write_with_key
from imagemill.builders.kaniko import api, claim, secrets, tally, watch
from imagemill.builders.kaniko.api import JOBS, PODS, SECRETS
from imagemill.builders.kaniko.builder import more_memory
from imagemill.builders.kaniko.permissions import PERMISSIONS
from imagemill.errors import (
    BuildCancelled,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.messages import State
from imagemill.ports import Credentials
from kaniko_builds import (
    DESTINATION,
    DIGEST,
    Logins,
    Object,
    Passwords,
    PlayedCluster,
    container,
    played_cluster,
)
from kubernetes_server import KubernetesServer


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[PlayedCluster]:
    with played_cluster(tmp_path) as played:
        yield played


# the result


@own_server("its streams cannot be counted")
def test_the_digest_is_what_kaniko_wrote_and_nothing_is_left(cluster: PlayedCluster) -> None:
    build = cluster.build()
    cluster.succeed()
    assert build.result() == DIGEST
    assert cluster.is_empty()
    assert until(lambda: cluster.streams() == 0)


@own_server("a pod that no node runs has no log")
def test_a_digest_counts_only_with_exit_code_0(cluster: PlayedCluster) -> None:
    build = cluster.build()
    job, _ = cluster.run(lines=["error building image: something"])
    cluster.server.finish(job, 1, DIGEST)
    assert isinstance(build.error(), UserError)


# the log


@own_server("a pod that no node runs has no log")
def test_the_log_is_followed_from_its_first_line_while_the_build_runs(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    job, pod = cluster.run(lines=["first", "second"])
    assert build.says("second")
    cluster.server.log(pod, ["third"])
    assert build.says("third")
    assert build.is_running
    assert dict(tally.by_state()) == {"pending": 0, "running": 1}
    cluster.server.log(pod, ["fourth"])
    cluster.server.finish(job, 0, DIGEST)
    build.result()
    assert dict(tally.by_state()) == {"pending": 0, "running": 0}
    assert [line for line in build.progress.lines if "Job" not in line] == [
        "first",
        "second",
        "third",
        "fourth",
    ]


@own_server("a pod that no node runs has no log")
def test_the_build_is_pushing_once_kaniko_says_so(cluster: PlayedCluster) -> None:
    build = cluster.build()
    cluster.run(lines=['time="x" level=info msg="Pushing image to registry.example.com/team/app"'])
    assert until(lambda: build.progress.states == [State.PUSHING])
    cluster.server.finish(cluster.job(), 0, DIGEST)
    build.result()


@own_server("what it grants is not the test's to change")
def test_a_log_that_may_not_be_read_is_no_reason_to_fail(cluster: PlayedCluster) -> None:
    cluster.server.deny("get", "pods/log")
    build = cluster.build()
    cluster.run(lines=["unread"])
    assert build.says("No permission to get pods/log")
    cluster.server.finish(cluster.job(), 0, DIGEST)
    assert build.result() == DIGEST


# one Job, whoever begins it


@own_server("a pod that no node runs has no log")
def test_builds_of_one_source_end_in_one_job(cluster: PlayedCluster) -> None:
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash)
    assert first.says("Created the Job")
    second = cluster.build(source_hash, build_id="build-2")
    assert second.says("Found the Job")
    cluster.run(lines=["line"])
    assert first.says("line")
    assert second.says("line")
    cluster.server.finish(cluster.job(), 0, DIGEST)
    assert {first.result(), second.result()} == {DIGEST}
    assert cluster.is_empty()


@own_server("a pod that no node runs has no log")
def test_a_job_whose_worker_gave_up_for_a_while_goes_on_and_is_adopted(
    cluster: PlayedCluster,
) -> None:
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash)
    _, pod = cluster.run(lines=["before"])
    first.stop(TransientError("the worker lost its lock"))
    assert isinstance(first.error(), TransientError)
    uid = cluster.job()["metadata"]["uid"]
    second = cluster.build(source_hash)
    assert second.says("its log follows from its first line")
    assert second.says("before")
    cluster.server.log(pod, ["after"])
    job = cluster.server.finish(cluster.job(), 0, DIGEST)
    assert second.result() == DIGEST
    assert job["metadata"]["uid"] == uid
    assert [line for line in second.progress.lines if "Job" not in line] == ["before", "after"]


@own_server("a pod that no node runs has no log")
def test_a_job_that_ended_well_while_no_worker_looked_gives_its_digest(
    cluster: PlayedCluster,
) -> None:
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash)
    cluster.run(lines=["all of it"])
    first.stop(TransientError("the worker lost its lock"))
    first.error()
    cluster.server.finish(cluster.job(), 0, DIGEST)
    second = cluster.build(source_hash, build_id="another")
    assert second.result() == DIGEST
    assert "all of it" in second.progress.lines
    assert cluster.is_empty()


@own_server("a pod that no node runs has no log")
def test_a_failure_of_the_same_build_is_its_result_when_its_message_comes_again(
    cluster: PlayedCluster,
) -> None:
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash)
    cluster.run(lines=["error building image: parsing dockerfile: unknown instruction: RUM"])
    first.stop(TransientError("the worker lost its lock"))
    first.error()
    cluster.server.finish(cluster.job(), 1)
    uid = cluster.job()["metadata"]["uid"]
    error = cluster.build(source_hash).error()
    assert isinstance(error, UserError)
    assert "unknown instruction: RUM" in error.message
    assert cluster.job()["metadata"]["uid"] == uid


@own_server("a pod that no node runs has no log")
def test_a_failure_of_an_earlier_build_is_tried_anew(cluster: PlayedCluster) -> None:
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash)
    job, _ = cluster.run(lines=["error building image: something"])
    cluster.server.finish(job, 1)
    first.error()
    second = cluster.build(source_hash, build_id="build-2")
    assert until(lambda: cluster.job()["metadata"]["uid"] != job["metadata"]["uid"])
    cluster.succeed()
    assert second.result() == DIGEST


@own_server("its streams cannot be counted")
def test_a_job_that_is_being_deleted_is_waited_for(cluster: PlayedCluster) -> None:
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash)
    job, _ = cluster.run()
    cluster.server.keep_terminating()
    first.stop(BuildCancelled("cancelled"))
    first.error()
    second = cluster.build(source_hash)
    assert until(lambda: cluster.streams() >= 3)
    assert cluster.job()["metadata"]["uid"] == job["metadata"]["uid"]
    cluster.server.keep_terminating(False)
    assert second.says("Created the Job")
    cluster.succeed()
    assert second.result() == DIGEST


def test_a_job_that_a_lost_node_keeps_is_passed_over(
    cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "REMOVAL", 0.1)
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash)
    cluster.run()
    cluster.server.keep_terminating()
    first.stop(BuildCancelled("cancelled"))
    first.error()
    second = cluster.build(source_hash)
    cluster.succeed(2)
    assert second.result() == DIGEST
    cluster.server.keep_terminating(False)  # else its namespace would never go


def test_the_same_source_for_another_destination_has_a_job_of_its_own(
    cluster: PlayedCluster,
) -> None:
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash)
    assert first.says("Created the Job")
    second = cluster.build(source_hash, destination="elsewhere.example.com/app", build_id="build-2")
    assert second.says("Created the Job")
    mine, other = sorted(
        cluster.server.jobs(), key=lambda job: "elsewhere" in str(job["metadata"]["annotations"])
    )
    cluster.server.finish(other, 0, DIGEST)
    assert second.result() == DIGEST
    assert first.is_running
    cluster.server.finish(mine, 0, DIGEST)
    assert first.result() == DIGEST


@own_server("six pods of it are the test's to end")
def test_one_source_is_built_for_six_places_at_once(cluster: PlayedCluster) -> None:
    source_hash = uuid.uuid4().hex * 2
    builds = [
        cluster.build(source_hash, destination=f"registry-{number}.example.com/app")
        for number in range(6)
    ]
    assert until(lambda: len(cluster.server.jobs()) == 6)
    for job in cluster.server.jobs():
        cluster.server.finish(job, 0, DIGEST)
    assert [build.result() for build in builds] == [DIGEST] * 6
    assert cluster.is_empty()


@own_server("its control plane cannot be started again")
def test_a_build_goes_on_while_the_api_server_starts_again_and_refuses_everything(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    job, pod = cluster.run()
    cluster.server.log(pod, ["before"])
    assert build.says("before")
    cluster.server.restart(refusing=1.0)
    assert until(lambda: not cluster.server.access.starting)
    cluster.server.log(pod, ["after"])
    assert build.says("after")
    cluster.server.finish(job, 0, DIGEST)
    assert build.result() == DIGEST
    assert build.progress.lines.count("before") == 1
    assert cluster.is_empty()


@own_server("its Roles are not the test's to change")
def test_a_permission_that_is_taken_away_for_good_ends_the_build(
    cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "REFUSALS", 0.5)
    build = cluster.build()
    cluster.run()
    cluster.server.deny("watch", "jobs")
    cluster.server.cut_watches()
    assert isinstance(build.error(), PermissionDenied)


@own_server("its Jobs' controller cannot be held up")
def test_a_build_that_fails_for_good_keeps_its_job_before_the_jobs_condition_has_come(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    _, pod = cluster.run()
    cluster.server.finish_pod(pod, 1, "error building image: exit status 3")
    assert build.error()
    cluster.builder().discard("build-1")
    (kept,) = cluster.server.jobs()
    assert "conditions" not in kept["status"]
    cluster.server.fail_job(kept)
    cluster.builder().discard("build-1")
    assert cluster.server.jobs()


def test_what_a_dead_worker_left_running_is_discarded(cluster: PlayedCluster) -> None:
    build = cluster.build()
    cluster.run()
    build.stop(ServiceUnreachable("the worker dies", "never mind"))
    assert build.error()
    cluster.builder().discard("build-1")
    assert until(cluster.is_empty)


def test_what_dead_workers_left_is_removed_of_builds_that_are_over(
    cluster: PlayedCluster, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cr3t")
    build = cluster.build(secrets={"token": tmp_path / "token"})
    cluster.run()
    build.stop(ServiceUnreachable("the worker dies", "never mind"))
    assert build.error()
    asked: list[tuple[str, str]] = []

    def over(build: str, image: str) -> bool:
        asked.append((build, image))
        return len(asked) > 1

    builder = cluster.builder()
    builder.tidy(over)
    assert len(cluster.objects(JOBS)) == len(cluster.objects(SECRETS)) == 1
    builder.tidy(over)
    assert cluster.is_empty()
    assert {(name, image.partition(":")[0]) for name, image in asked} == {("build-1", DESTINATION)}


@own_server("its Jobs' controller cannot be held up")
def test_of_a_build_that_failed_when_its_worker_was_dead_only_the_job_stays(
    cluster: PlayedCluster, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cr3t")
    build = cluster.build(secrets={"token": tmp_path / "token"})
    job, _ = cluster.run()
    build.stop(ServiceUnreachable("the worker dies", "never mind"))
    assert build.error()
    cluster.server.finish(job, 1, "error building image: exit status 3")
    builder = cluster.builder()
    for _ in range(2):
        builder.tidy(lambda *_: True)
    assert len(cluster.server.jobs()) == 1
    assert not cluster.objects(SECRETS)


@own_server("its noise is the test's own")
def test_watches_that_end_while_events_come_in_over_tls_end_quietly(tmp_path: Path) -> None:
    """The TLS layer must not be taken away from under the thread that reads."""
    pem = tmp_path / "api.pem"
    write_with_key(pem, "127.0.0.1")
    (tmp_path / "cluster").mkdir()
    with KubernetesServer(tmp_path / "cluster", certificate=pem) as server:
        played = PlayedCluster(server, tmp_path)
        for _ in range(10):
            build = played.build()
            _, pod = played.run()
            with noise(server, pod):
                build.stop(BuildCancelled("enough"))
                assert build.error()  # a thread that died would fail the test
            assert until(played.is_empty)


@contextmanager
def noise(server: KubernetesServer, pod: Object) -> Iterator[None]:
    """Events of a pod, one after the other, of several TLS records each."""
    ends = threading.Event()

    def make() -> None:
        for count in itertools.count():
            if ends.is_set():
                return
            with suppress(LookupError):  # the pod is gone
                server.pod_status(pod, {"message": f"{count} {'x' * 40_000}"})

    thread = threading.Thread(target=make)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


@own_server("its API server cannot be made to fail")
def test_an_answer_that_is_lost_makes_no_second_job(cluster: PlayedCluster) -> None:
    cluster.server.lose_answers(verb="create", resource="jobs")
    build = cluster.build()
    cluster.succeed()
    assert build.result() == DIGEST
    assert cluster.is_empty()


# watching


@own_server("its watches cannot be broken")
def test_a_build_survives_watches_that_the_server_closes(cluster: PlayedCluster) -> None:
    build = cluster.build()
    job, _ = cluster.run()
    for _ in range(3):
        cluster.server.close_watches()
        assert until(lambda: cluster.streams() >= 3)
    cluster.server.finish(job, 0, DIGEST)
    assert build.result() == DIGEST


@pytest.mark.parametrize("as_status", [False, True])
@own_server("its watches cannot be broken")
def test_a_build_survives_that_the_server_has_forgotten_where_its_watches_were(
    cluster: PlayedCluster, as_status: bool
) -> None:
    build = cluster.build()
    job = cluster.job()
    cluster.server.fail_next(503, 3, verb="watch")
    cluster.server.close_watches()
    cluster.run()
    cluster.server.expire_watches(as_status=as_status)
    cluster.server.finish(job, 0, DIGEST)
    assert build.result() == DIGEST


@own_server("its watches cannot be broken")
def test_a_build_whose_watches_are_told_that_they_are_too_old_begins_them_anew(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    job, _ = cluster.run()
    cluster.server.expire_watches()
    cluster.server.finish(job, 0, DIGEST)
    assert build.result() == DIGEST


@own_server("its watches cannot be broken")
def test_a_job_that_is_seen_to_end_before_its_pod_still_has_its_digest(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    job, _ = cluster.run(lines=["running"])
    assert build.says("running")
    cluster.server.fail_next(503, 4, verb="watch", resource="pods")
    cluster.server.close_watches()
    cluster.server.finish(job, 0, DIGEST)
    assert build.result() == DIGEST


@own_server("its API server cannot be made to fail")
def test_a_build_survives_an_api_server_that_is_away_for_a_moment(cluster: PlayedCluster) -> None:
    build = cluster.build()
    job, _ = cluster.run()
    cluster.server.fail_next(503, 6, verb="watch")
    cluster.server.close_watches()
    cluster.server.finish(job, 0, DIGEST)
    assert build.result() == DIGEST


@own_server("its watches cannot be broken")
def test_a_job_that_vanished_while_no_watch_was_open_is_found_gone(cluster: PlayedCluster) -> None:
    build = cluster.build()
    job, _ = cluster.run()
    assert until(lambda: cluster.streams() == 4)
    cluster.server.fail_next(503, 9, verb="watch")
    cluster.server.expire_watches()
    cluster.server.expire_job(job)
    error = build.error()
    assert isinstance(error, TransientError)
    assert f"{job['metadata']['name']} was deleted" in error.message


@pytest.mark.parametrize("line", [b"<html>504 Gateway Time-out</html>", b"{}"])
@own_server("nothing stands between")
def test_a_build_survives_what_a_proxy_writes_into_its_watches(
    cluster: PlayedCluster, line: bytes
) -> None:
    build = cluster.build()
    cluster.run()
    cluster.server.garble_watches(line)
    cluster.server.finish(cluster.job(), 0, DIGEST)
    assert build.result() == DIGEST


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("method", ["_list", "_take"])
@own_server("its watches cannot be broken")
def test_a_watch_that_dies_of_a_fault_stops_no_build_for_good(
    cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    other = cluster.build()  # the watches outlive the build that notices
    job = cluster.job()

    def fault(*_: object) -> None:
        raise ValueError("unforeseen")

    with monkeypatch.context() as patched:
        patched.setattr(watch._Watch, method, fault)
        cluster.server.expire_watches()
        cluster.server.start_pod(job)
        assert type(other.error()) is ServiceUnreachable
        if method == "_list":
            assert type(cluster.build().error()) is ServiceUnreachable
    again = cluster.build(job["metadata"]["annotations"]["dev.imagemill/source-hash"])
    assert again.says("Found the Job")
    cluster.server.finish(job, 0, DIGEST)
    assert again.result() == DIGEST


@own_server("what it grants is not the test's to change")
def test_a_watch_that_is_not_permitted_fails_the_build_with_the_verb(
    cluster: PlayedCluster,
) -> None:
    cluster.server.deny("watch", "pods")
    error = cluster.build().error()
    assert isinstance(error, PermissionDenied)
    assert (error.action, error.resource) == ("watch", "pods")


@own_server("what it grants is not the test's to change")
def test_a_worker_that_may_not_see_events_builds_nevertheless(cluster: PlayedCluster) -> None:
    cluster.server.deny("*", "events")
    build = cluster.build()
    cluster.succeed()
    assert build.result() == DIGEST


# credentials and secrets


def test_the_pod_gets_a_login_for_the_destinations_registry_alone_that_goes_with_the_job(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build(registry=Passwords(Logins(Credentials("ann", "s3cr3t")), frozenset()))
    job, _ = cluster.run()
    assert until(lambda: len(cluster.objects(SECRETS)) == 1)
    (secret,) = cluster.objects(SECRETS)
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Job", job["metadata"]["uid"])
    config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert list(config) == ["auths"]
    assert config["auths"] == {
        "registry.example.com": {"auth": base64.b64encode(b"ann:s3cr3t").decode()}
    }
    volumes = job["spec"]["template"]["spec"]["volumes"]
    assert secret["metadata"]["name"] in [
        volume.get("secret", {}).get("secretName") for volume in volumes
    ]
    cluster.server.finish(job, 0, DIGEST)
    build.result()
    told = json.dumps([job, build.progress.lines])
    assert "s3cr3t" not in told
    assert base64.b64encode(b"ann:s3cr3t").decode() not in told
    assert cluster.is_empty()


def test_credentials_that_end_before_the_build_are_renewed_in_place(
    cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "RENEW_AGAIN", 0.1)
    old, new = Credentials("ann", "old", expires=time.time() + 1), Credentials("ann", "new")
    logins = Logins(old, old, ServiceUnreachable("The token server is away"), new)
    build = cluster.build(registry=Passwords(logins, frozenset()))
    job, _ = cluster.run()

    def config() -> str:
        return "".join(
            base64.b64decode(secret["data"][".dockerconfigjson"]).decode()
            for secret in cluster.objects(SECRETS)
        )

    assert until(lambda: base64.b64encode(b"ann:new").decode() in config())
    assert build.says("login could not be renewed, which is tried again: The token server is away")
    cluster.server.finish(job, 0, DIGEST)
    assert build.result() == DIGEST
    assert cluster.is_empty()


@own_server("its API server cannot be made to fail")
def test_an_adopted_job_gets_the_secret_that_its_first_worker_did_not_come_to_make(
    cluster: PlayedCluster,
) -> None:
    source_hash, registry = (
        uuid.uuid4().hex * 2,
        Passwords(Logins(Credentials("ann", "s3cr3t")), frozenset()),
    )
    cluster.server.fail_next(503, 1, verb="create", resource="secrets")
    assert isinstance(cluster.build(source_hash, registry=registry).error(), ServiceUnreachable)
    uid = cluster.job()["metadata"]["uid"]
    assert cluster.objects(SECRETS) == []
    second = cluster.build(source_hash, registry=registry)
    assert until(lambda: len(cluster.objects(SECRETS)) == 1)
    assert cluster.job()["metadata"]["uid"] == uid
    cluster.succeed()
    assert second.result() == DIGEST


def test_build_secrets_are_in_a_secret_of_the_job(cluster: PlayedCluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ps3cret")
    build = cluster.build(secrets={"token": tmp_path / "token"})
    job = cluster.job()
    assert until(lambda: len(cluster.objects(SECRETS)) == 1)
    (secret,) = cluster.objects(SECRETS)
    assert secret["data"] == {"token": base64.b64encode(b"t0ps3cret").decode()}
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    cluster.succeed()
    build.result()
    assert "t0ps3cret" not in json.dumps(job)
    assert cluster.is_empty()


# the end


@pytest.mark.parametrize(
    "error", [BuildCancelled("The build was cancelled"), UserError("The build ran out of time")]
)
@own_server("a pod that no node runs has no log")
def test_a_build_that_is_stopped_leaves_nothing(cluster: PlayedCluster, error: Exception) -> None:
    build = cluster.build(registry=Passwords(Logins(Credentials("ann", "s3cr3t")), frozenset()))
    cluster.run(lines=["running"])
    assert build.says("running")
    build.stop(error)
    assert build.error() is error
    assert cluster.is_empty()
    assert until(lambda: cluster.streams() == 0)


@own_server("a pod that no node runs has no log")
def test_a_failed_job_stays_for_its_retention_but_its_login_does_not(
    cluster: PlayedCluster,
) -> None:
    registry = Passwords(Logins(Credentials("ann", "s3cr3t")), frozenset())
    build = cluster.build(registry=registry, failed_job_retention=1234)
    job, pod = cluster.run(lines=["error building image: something"])
    cluster.server.finish(job, 1)
    build.error()
    assert cluster.job()["spec"]["ttlSecondsAfterFinished"] == 1234
    assert [kept["metadata"]["name"] for kept in cluster.objects(PODS)] == [pod["metadata"]["name"]]
    assert cluster.objects(SECRETS) == []


@own_server("its API server cannot be made to fail")
def test_a_build_that_is_cancelled_while_the_api_server_is_away_for_a_moment_leaves_nothing(
    cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "REMOVAL_PAUSES", (0.0, 0.0, 0.0))
    build = cluster.build()
    cluster.run(lines=["running"])
    assert build.says("running")
    cluster.server.fail_next(503, 2, verb="delete", resource="jobs")
    build.stop(BuildCancelled("The build was cancelled"))
    assert isinstance(build.error(), BuildCancelled)
    assert cluster.is_empty()


@own_server("what it grants is not the test's to change")
def test_a_job_that_cannot_be_deleted_takes_no_digest_away(cluster: PlayedCluster) -> None:
    cluster.server.deny("delete", "jobs")
    build = cluster.build()
    job = cluster.succeed()
    assert build.result() == DIGEST
    assert any(
        f"Could not delete jobs/{job['metadata']['name']}" in line for line in build.progress.lines
    )


# more memory


def test_a_build_that_ran_out_of_memory_is_tried_once_more_with_twice_the_limit(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build(kaniko_config=container(resources={"limits": {"memory": "2Gi"}}))
    job, _ = cluster.run()
    cluster.server.finish(job, 137, reason="OOMKilled")
    again = cluster.job(2)["spec"]["template"]["spec"]["containers"][0]
    assert again["resources"]["limits"]["memory"] == "4Gi"
    assert {"--compressed-caching=false", "--snapshot-mode=redo"} <= set(again["args"])
    cluster.succeed(2)
    assert build.result() == DIGEST
    (warning,) = build.progress.warnings
    assert "2Gi (OOMKilled)" in warning
    assert "a limit of 4Gi" in warning


def test_a_second_kill_for_want_of_memory_fails_the_build_with_the_limit(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build(kaniko_config=container(resources={"limits": {"memory": "2Gi"}}))
    cluster.server.finish(cluster.run()[0], 137, reason="OOMKilled")
    cluster.server.finish(cluster.run(2)[0], 137, reason="OOMKilled")
    error = build.error()
    assert isinstance(error, OperatorError)
    assert "(OOMKilled): it needs more memory than its limit of 4Gi" in error.message
    assert len(cluster.server.jobs()) == 2


def test_the_second_try_has_no_more_memory_than_the_ceiling(cluster: PlayedCluster) -> None:
    settings = container(resources={"limits": {"memory": "2Gi"}})
    build = cluster.build(kaniko_config=settings, memory_ceiling="3Gi")
    cluster.server.finish(cluster.run()[0], 137, reason="OOMKilled")
    again = cluster.job(2)["spec"]["template"]["spec"]["containers"][0]
    assert again["resources"]["limits"]["memory"] == "3Gi"
    cluster.succeed(2)
    assert build.result() == DIGEST


def test_the_second_try_of_a_build_without_a_limit_fits_on_the_same_nodes(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    cluster.server.finish(cluster.run()[0], 137, reason="OOMKilled")
    resources = cluster.job(2)["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert (resources["limits"]["memory"], resources["requests"]["memory"]) == ("16Gi", "1Gi")
    cluster.succeed(2)
    assert build.result() == DIGEST


def test_the_second_try_of_a_build_that_requests_more_than_the_ceiling_has_what_it_requests(
    cluster: PlayedCluster,
) -> None:
    settings = container(resources={"requests": {"memory": "32Gi"}})
    build = cluster.build(kaniko_config=settings)
    cluster.server.finish(cluster.run()[0], 137, reason="OOMKilled")
    resources = cluster.job(2)["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert (resources["limits"]["memory"], resources["requests"]["memory"]) == ("32Gi", "32Gi")
    cluster.succeed(2)
    assert build.result() == DIGEST


def test_a_worker_that_dies_in_the_second_try_leaves_it_to_be_adopted(
    cluster: PlayedCluster,
) -> None:
    source_hash, settings = uuid.uuid4().hex * 2, container(resources={"limits": {"memory": "2Gi"}})
    first = cluster.build(source_hash, kaniko_config=settings)
    cluster.server.finish(cluster.run()[0], 137, reason="OOMKilled")
    cluster.run(2)
    first.stop(TransientError("the worker lost its lock"))
    first.error()
    second = cluster.build(source_hash, kaniko_config=settings)
    assert second.says("Found the Job")
    cluster.server.finish(cluster.job(2), 0, DIGEST)
    assert second.result() == DIGEST


@pytest.mark.parametrize(
    ("limit", "ceiling", "then"),
    [
        ("2Gi", "16Gi", "4Gi"),
        ("12Gi", "16Gi", "16Gi"),
        ("32Gi", "16Gi", "32Gi"),
        ("1500M", "16Gi", "3000000000"),
        (None, "16Gi", "16Gi"),
    ],
)
def test_memory_is_doubled_up_to_the_ceiling(limit: str | None, ceiling: str, then: str) -> None:
    assert more_memory(limit, ceiling) == then


# permissions


@own_server("what it grants is not the test's to change")
def test_permissions_that_are_missing_are_named(cluster: PlayedCluster) -> None:
    assert cluster.api.missing_permissions() == ()
    cluster.server.deny("create", "jobs")
    cluster.server.deny("get", "pods/log")
    cluster.server.deny("*", "events")
    missing = cluster.api.missing_permissions()
    assert [str(permission) for permission in missing] == [
        "create jobs.batch",
        "get pods/log",
        "list events",
        "watch events",
    ]
    assert [permission.needed for permission in missing] == [True, True, False, False]


@own_server("what it grants is not the test's to change")
def test_these_permissions_suffice(cluster: PlayedCluster) -> None:
    granted = {(permission.verb, permission.resource) for permission in PERMISSIONS}
    for resource in ("jobs", "pods", "pods/log", "secrets", "events"):
        for verb in (
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ):
            if (verb, resource) not in granted:
                cluster.server.deny(verb, resource)
    build = cluster.build(registry=Passwords(Logins(Credentials("ann", "s3cr3t")), frozenset()))
    cluster.succeed()
    assert build.result() == DIGEST


def test_only_the_job_that_is_meant_is_deleted(cluster: PlayedCluster) -> None:
    build = cluster.build()
    job = cluster.job()
    cluster.api.delete(JOBS, job["metadata"]["name"], "the uid of an earlier one")
    assert cluster.job()["metadata"]["uid"] == job["metadata"]["uid"]
    cluster.succeed()
    assert build.result() == DIGEST

"""What a test can play on the API server of our own: the rest of a cluster, and a server that is
not at its best.

What the API itself answers is tested by whoever has a real cluster to compare with.
"""

import asyncio
import gc
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch
from urllib3.exceptions import MaxRetryError, ProtocolError

from kubernetes_server import KubernetesServer

NAMESPACE = "builds"
DIGEST = f"sha256:{'a' * 64}"


def until(condition: Callable[[], Any], seconds: float = 20) -> bool:
    """Whether the condition comes true within some time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def connected(kubeconfig: Path) -> Iterator[Any]:
    """A client of the server, closed with all its connections when the block ends."""
    api: Any = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    try:
        yield api
    finally:
        api.close()
        api.rest_client.pool_manager.clear()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubernetesServer]:
    with KubernetesServer(tmp_path) as server:
        yield server


@pytest.fixture
def api(server: KubernetesServer) -> Iterator[Any]:
    with connected(server.kubeconfig) as api:
        yield api


@pytest.fixture
def batch(api: Any) -> Any:
    return client.BatchV1Api(api)


@pytest.fixture
def core(api: Any) -> Any:
    return client.CoreV1Api(api)


def job(name: str = "build", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "example.com/image:1"}]
    template = {"spec": {"restartPolicy": "Never", "containers": containers}}
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template} | spec}


def refused(act: Any, *arguments: Any, **options: Any) -> Any:
    with pytest.raises(client.ApiException) as caught:
        act(*arguments, **options)
    return caught.value


class Seen:
    """The events of one watch, gathered in a thread of their own until it ends."""

    def __init__(self, listing: Any, version: str, **options: Any) -> None:
        self.error: client.ApiException | None = None
        self.events: list[dict[str, Any]] = []
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._gather, args=(listing, version, options))
        self._thread.start()

    def _gather(self, listing: Any, version: str, options: dict[str, Any]) -> None:
        watching: Any = watch.Watch()  # type: ignore[no-untyped-call]
        options = {"timeout_seconds": 30, "resource_version": version} | options
        try:
            self.events += watching.stream(listing, NAMESPACE, **options)
        except client.ApiException as error:
            self.error = error

    def end(self) -> list[tuple[str, Any]]:
        """Type and object of all events, once the watch has ended."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return [(event["type"], event["raw_object"]) for event in self.events]


def watching(server: KubernetesServer, listing: Any, **options: Any) -> Seen:
    """A watch from now on, which the server has open by the time this returns."""
    before = sum(server.connections.values())
    seen = Seen(listing, listing(NAMESPACE).metadata.resource_version, **options)
    while sum(server.connections.values()) == before and seen.error is None:
        pass
    return seen


# a build that goes well


def test_a_job_runs_its_pod_and_completes_with_the_termination_message(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    made = batch.create_namespaced_job(NAMESPACE, job())
    jobs, pods = (
        watching(server, batch.list_namespaced_job),
        watching(server, core.list_namespaced_pod),
    )
    pod = server.start_pod("build")
    assert batch.read_namespaced_job("build", NAMESPACE).status.active == 1
    server.run_pod(pod)
    assert batch.read_namespaced_job("build", NAMESPACE).status.ready == 1
    server.finish("build", 0, message=DIGEST)
    server.close_watches()

    assert [event[1]["status"]["phase"] for event in pods.end()][::5] == ["Pending", "Running"]
    final_pod, final_job = pods.end()[-1][1], jobs.end()[-1][1]
    assert final_pod["metadata"]["ownerReferences"][0]["uid"] == made.metadata.uid
    assert final_pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "build"
    state = final_pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"], state["message"]) == (0, "Completed", DIGEST)
    assert [condition["type"] for condition in final_job["status"]["conditions"]] == [
        "SuccessCriteriaMet",
        "Complete",
    ]
    assert (final_job["status"]["succeeded"], final_job["status"].get("active")) == (1, None)
    assert final_job["status"]["completionTime"]


# what goes wrong


def test_a_pod_that_fails_fails_the_job_when_its_tries_are_used_up(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job(backoffLimit=1))
    server.start_pod("build")
    server.finish("build", 1)
    assert batch.read_namespaced_job("build", NAMESPACE).status.conditions is None
    server.start_pod("build")
    server.finish("build", 137, reason="OOMKilled")
    status = batch.read_namespaced_job("build", NAMESPACE).status
    assert [(one.type, one.reason) for one in status.conditions] == [
        ("FailureTarget", "BackoffLimitExceeded"),
        ("Failed", "BackoffLimitExceeded"),
    ]
    assert (status.failed, status.completion_time) == (2, None)
    reasons = [
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"]
        for pod in server.pods("build")
    ]
    assert reasons == ["Error", "OOMKilled"]


def test_a_job_over_its_deadline_is_failed_and_its_pod_deleted(
    server: KubernetesServer, batch: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job(activeDeadlineSeconds=1))
    server.run_pod(server.start_pod("build"))
    server.fail_job("build", "DeadlineExceeded")
    failed = batch.read_namespaced_job("build", NAMESPACE).status.conditions[-1]
    assert (failed.type, failed.reason) == ("Failed", "DeadlineExceeded")
    assert failed.message == "Job was active longer than specified deadline"
    assert server.pods("build") == []


def test_a_pod_that_waits_says_why_and_has_no_log(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    pod = server.start_pod("build")
    name = pod["metadata"]["name"]
    server.schedule_pod(pod)
    error = refused(core.read_namespaced_pod_log, name, NAMESPACE)
    expected = f'container "main" in pod "{name}" is waiting to start: ContainerCreating'
    assert (error.status, json.loads(error.body)["message"]) == (400, expected)
    server.wait_in(pod, "ImagePullBackOff", "Back-off pulling image")
    state = core.read_namespaced_pod(name, NAMESPACE).status.container_statuses[0].state
    assert (state.waiting.reason, state.waiting.message) == (
        "ImagePullBackOff",
        "Back-off pulling image",
    )
    message = json.loads(refused(core.read_namespaced_pod_log, name, NAMESPACE).body)["message"]
    assert message.endswith("is waiting to start: trying and failing to pull image")


def test_a_pod_that_no_node_takes_has_the_schedulers_reason(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    pod = server.start_pod("build")
    server.unschedulable(pod, "0/3 nodes are available: 3 Insufficient memory.")
    name = pod["metadata"]["name"]
    (condition,) = core.read_namespaced_pod(name, NAMESPACE).status.conditions
    assert (condition.type, condition.status, condition.reason) == (
        "PodScheduled",
        "False",
        "Unschedulable",
    )
    found = core.list_namespaced_event(
        NAMESPACE, field_selector=f"involvedObject.uid={pod['metadata']['uid']}"
    ).items
    assert [(event.reason, event.type, event.message) for event in found] == [
        ("FailedScheduling", "Warning", "0/3 nodes are available: 3 Insufficient memory.")
    ]


def test_a_pods_status_can_be_anything(server: KubernetesServer, batch: Any, core: Any) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    pod = server.run_pod(server.start_pod("build"))
    server.pod_status(
        pod, {"phase": "Failed", "reason": "Evicted", "message": "low on ephemeral-storage"}
    )
    status = core.read_namespaced_pod(pod["metadata"]["name"], NAMESPACE).status
    assert (status.phase, status.reason, status.message) == (
        "Failed",
        "Evicted",
        "low on ephemeral-storage",
    )


def test_an_event_is_about_its_object(server: KubernetesServer, batch: Any, core: Any) -> None:
    made = batch.create_namespaced_job(NAMESPACE, job())
    server.event(server.job("build"), "FailedCreate", "Error creating: quota", "Warning")
    fields = f"involvedObject.uid={made.metadata.uid}"
    (event,) = core.list_namespaced_event(NAMESPACE, field_selector=fields).items
    assert (event.reason, event.type, event.involved_object.kind) == (
        "FailedCreate",
        "Warning",
        "Job",
    )


# logs


def test_a_log_is_followed_while_the_container_runs_and_ends_with_it(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    pod = server.start_pod("build")
    server.log(pod, ["first"])
    name = pod["metadata"]["name"]
    answer = core.read_namespaced_pod_log(name, NAMESPACE, follow=True, _preload_content=False)
    pieces = answer.stream()
    assert next(pieces) == b"first\n"
    assert server.connections == {"pods/log": 1}
    server.log(pod, ["second", "third"])
    assert next(pieces) == b"second\nthird\n"
    server.finish("build", 0)
    assert list(pieces) == []
    assert core.read_namespaced_pod_log(name, NAMESPACE) == "first\nsecond\nthird\n"


def test_a_followed_log_ends_when_its_pod_goes(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    pod = server.start_pod("build")
    server.log(pod, ["only"])
    answer = core.read_namespaced_pod_log(
        pod["metadata"]["name"], NAMESPACE, follow=True, _preload_content=False
    )
    pieces = answer.stream()
    assert next(pieces) == b"only\n"
    server.delete_pod(pod)
    assert list(pieces) == []


def test_part_of_a_log_can_be_asked_for(
    server: KubernetesServer, batch: Any, api: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    pod = server.start_pod("build")
    server.log(pod, ["a", "b", "c"])
    name = pod["metadata"]["name"]

    def read(**options: Any) -> Any:
        return core.read_namespaced_pod_log(name, NAMESPACE, **options)

    assert read(tail_lines=2) == "b\nc\n"
    assert read(limit_bytes=3) == "a\nb"
    stamped = read(timestamps=True).splitlines()
    assert [line.split(" ")[1] for line in stamped] == ["a", "b", "c"]
    server.log(pod, ["d"])
    since = read(timestamps=True).splitlines()[-1].split(" ")[0]
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/log?sinceTime={since}"
    headers = {"Authorization": f"Bearer {server.token}"}
    answer = api.rest_client.pool_manager.request("GET", server.url + path, headers=headers)
    assert answer.data == b"d\n"
    assert refused(read, previous=True).status == 400


# pods that end


def test_a_running_pod_is_terminating_before_it_is_gone(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    pod = server.run_pod(server.start_pod("build"))
    seen = watching(server, core.list_namespaced_pod)
    core.delete_namespaced_pod(pod["metadata"]["name"], NAMESPACE)
    server.close_watches()
    assert [kind for kind, _ in seen.end()] == ["MODIFIED", "DELETED"]
    assert seen.end()[0][1]["metadata"]["deletionGracePeriodSeconds"] == 30


def test_on_a_lost_node_a_pod_stays_terminating_and_holds_its_job(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    pod = server.run_pod(server.start_pod("build"))
    server.keep_terminating()
    batch.delete_namespaced_job("build", NAMESPACE, propagation_policy="Foreground")
    name = pod["metadata"]["name"]
    assert until(lambda: core.read_namespaced_pod(name, NAMESPACE).metadata.deletion_timestamp)
    assert batch.read_namespaced_job("build", NAMESPACE).metadata.finalizers == [
        "foregroundDeletion"
    ]
    server.keep_terminating(False)
    assert (server.jobs(), server.pods("build")) == ([], [])


def test_an_expired_job_goes_with_all_that_it_owns(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    made = batch.create_namespaced_job(NAMESPACE, job(ttlSecondsAfterFinished=60))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "build", "uid": made.metadata.uid}
    core.create_namespaced_secret(
        NAMESPACE, {"metadata": {"name": "secret", "ownerReferences": [owner]}}
    )
    server.start_pod("build")
    server.finish("build", 0)
    server.expire_job("build")
    assert until(lambda: (server.jobs(), server.pods("build")) == ([], []))
    assert refused(core.read_namespaced_secret, "secret", NAMESPACE).status == 404


def test_what_is_deleted_in_the_foreground_keeps_its_name_until_the_collector_has_come_by(
    server: KubernetesServer, core: Any
) -> None:
    """Also what owns nothing, as a Secret."""
    secret = {"metadata": {"name": "secret"}}
    core.create_namespaced_secret(NAMESPACE, secret)
    core.delete_namespaced_secret("secret", NAMESPACE, propagation_policy="Foreground")
    assert refused(core.create_namespaced_secret, NAMESPACE, secret).status == 409

    def is_gone() -> bool:
        return not core.list_namespaced_secret(NAMESPACE).items

    assert until(is_gone)
    core.create_namespaced_secret(NAMESPACE, secret)
    core.delete_namespaced_secret("secret", NAMESPACE, propagation_policy="Background")
    assert is_gone()


def test_a_containers_end_is_seen_before_its_pods_and_that_before_its_jobs(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    server.run_pod(server.start_pod("build"))
    pods, jobs = (
        watching(server, each) for each in (core.list_namespaced_pod, batch.list_namespaced_job)
    )
    server.finish("build", 1)
    server.close_watches()
    states = [pod["status"] for _, pod in pods.end()]
    seen = [
        (state["phase"], "terminated" in state["containerStatuses"][0]["state"]) for state in states
    ]
    assert seen[-2:] == [("Running", True), ("Failed", True)]
    conditions = jobs.end()[-1][1]["status"]["conditions"]
    assert [one["type"] for one in conditions] == ["FailureTarget", "Failed"]


def test_a_job_that_is_deleted_at_its_containers_end_is_concluded_by_nobody(
    tmp_path: Path,
) -> None:
    with KubernetesServer(tmp_path, pace=1.0) as server, connected(server.kubeconfig) as api:
        batch: Any = client.BatchV1Api(api)
        batch.create_namespaced_job(server.namespace, job())
        server.run_pod(server.start_pod("build"))
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(server.finish, "build", 1)
            assert until(lambda: "terminated" in str(server.pods("build")[0]["status"]))
            batch.delete_namespaced_job("build", server.namespace, propagation_policy="Background")
            assert "conditions" not in ended.result()["status"]


def test_a_server_that_starts_again_refuses_for_a_moment_what_it_allows(
    server: KubernetesServer, core: Any
) -> None:
    server.restart(refusing=0.5)
    refusal = refused(core.list_namespaced_pod, NAMESPACE)
    assert refusal.status == 403
    assert "cannot list resource" in refusal.body
    assert until(lambda: server.access.starting is False)
    core.list_namespaced_pod(NAMESPACE)


def unanswered(core: Any) -> bool:
    """Whether a question gets no answer in a moment."""
    try:
        core.list_namespaced_pod(NAMESPACE, _request_timeout=0.3)
    except MaxRetryError as error:
        return "Read timed out" in str(error)
    return False


def test_a_server_that_hangs_takes_connections_and_answers_nobody(
    server: KubernetesServer, core: Any
) -> None:
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(server.hang, 3.0)
        assert until(lambda: unanswered(core))
        hung.result()
    core.list_namespaced_pod(NAMESPACE)


def test_a_server_that_is_slow_answers_late(server: KubernetesServer, core: Any) -> None:
    server.delay(30)
    assert unanswered(core)
    server.delay(0)
    core.list_namespaced_pod(NAMESPACE)


def test_a_pod_deleted_by_hand_is_gone_at_once(
    server: KubernetesServer, batch: Any, core: Any
) -> None:
    batch.create_namespaced_job(NAMESPACE, job())
    pod = server.run_pod(server.start_pod("build"))
    seen = watching(server, core.list_namespaced_pod)
    server.delete_pod(pod)
    server.close_watches()
    assert [kind for kind, _ in seen.end()] == ["DELETED"]


# refusals


def test_what_is_denied_is_forbidden_and_reviewed_so_until_it_is_allowed_again(
    server: KubernetesServer, batch: Any, core: Any, api: Any
) -> None:
    def may_create() -> bool:
        attributes = {
            "namespace": NAMESPACE,
            "verb": "create",
            "group": "batch",
            "resource": "jobs",
        }
        body: Any = {"spec": {"resourceAttributes": attributes}}
        review: Any = client.AuthorizationV1Api(api).create_self_subject_access_review(body)
        return bool(review.status.allowed)

    server.deny("create", "jobs")
    server.deny("get", "pods/log")
    error = refused(batch.create_namespaced_job, NAMESPACE, job())
    cannot = f'User "{server.user}" cannot create resource "jobs" in API group "batch" in the namespace "{NAMESPACE}"'
    assert (error.status, json.loads(error.body)["message"]) == (
        403,
        f"jobs.batch is forbidden: {cannot}",
    )
    assert not may_create()
    assert refused(core.read_namespaced_pod_log, "any", NAMESPACE).status == 403
    assert core.list_namespaced_pod(NAMESPACE).items == []
    server.allow()
    assert may_create()
    assert batch.create_namespaced_job(NAMESPACE, job()).metadata.name == "build"


def test_a_webhook_that_denies_a_job_is_named(server: KubernetesServer, batch: Any) -> None:
    server.deny_admission("policy.example.com", "images must come from example.org")
    error = refused(batch.create_namespaced_job, NAMESPACE, job())
    expected = 'admission webhook "policy.example.com" denied the request: images must come from example.org'
    assert (error.status, json.loads(error.body)["message"]) == (403, expected)
    assert server.jobs() == []


def test_a_quota_can_be_set(server: KubernetesServer, batch: Any) -> None:
    server.set_quota("none", {"count/jobs.batch": 0})
    assert (
        "exceeded quota: none"
        in json.loads(refused(batch.create_namespaced_job, NAMESPACE, job()).body)["message"]
    )


# a server that is not at its best


def test_too_many_requests_are_told_when_to_come_again(server: KubernetesServer, api: Any) -> None:
    server.fail_next(429, times=2, verb="create", resource="jobs", retry_after=7)
    batch: Any = client.BatchV1Api(api)
    assert batch.list_namespaced_job(NAMESPACE).items == []
    for _ in range(2):
        error = refused(batch.create_namespaced_job, NAMESPACE, job())
        assert (error.status, error.headers["Retry-After"]) == (429, "7")
        assert error.body == "Too many requests, please try again later.\n"
    assert batch.create_namespaced_job(NAMESPACE, job()).metadata.name == "build"


@pytest.mark.parametrize(
    ("code", "reason"), [(500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout")]
)
def test_a_server_that_fails_says_so_in_a_status(
    server: KubernetesServer, core: Any, code: int, reason: str
) -> None:
    server.fail_next(code)
    error = refused(core.list_namespaced_pod, NAMESPACE)
    assert (error.status, json.loads(error.body)["reason"]) == (code, reason)


def test_a_lost_answer_is_to_a_request_that_was_carried_out(
    server: KubernetesServer, batch: Any
) -> None:
    server.lose_answers(verb="create", resource="jobs")
    with pytest.raises(ProtocolError):
        batch.create_namespaced_job(NAMESPACE, job())
    assert refused(batch.create_namespaced_job, NAMESPACE, job()).status == 409
    assert len(server.jobs()) == 1


def test_a_watch_that_is_cut_does_not_end_normally(server: KubernetesServer, core: Any) -> None:
    answer = core.list_namespaced_pod(NAMESPACE, watch=True, _preload_content=False)
    server.cut_watches()
    with pytest.raises(ProtocolError):
        answer.data  # noqa: B018
    assert server.connections == {}


def test_a_closed_watch_ends_normally_and_can_be_resumed(
    server: KubernetesServer, batch: Any
) -> None:
    seen = watching(server, batch.list_namespaced_job)
    assert server.connections == {"jobs": 1}
    made = batch.create_namespaced_job(NAMESPACE, job())
    server.close_watches()
    assert [kind for kind, _ in seen.end()] == ["ADDED"]
    assert (seen.error, server.connections) == (None, {})
    batch.delete_namespaced_job("build", NAMESPACE, propagation_policy="Background")
    again = Seen(batch.list_namespaced_job, made.metadata.resource_version, timeout_seconds=1)
    assert [kind for kind, _ in again.end()] == ["DELETED"]


def test_an_expired_watch_ends_with_an_error_and_cannot_be_resumed(
    server: KubernetesServer, batch: Any
) -> None:
    listed = batch.list_namespaced_job(NAMESPACE)
    seen = watching(server, batch.list_namespaced_job)
    server.expire_watches()
    seen.end()
    assert seen.error is not None
    assert (seen.error.status, str(seen.error.reason).split(":")[0]) == (410, "Expired")
    again = Seen(batch.list_namespaced_job, listed.metadata.resource_version)
    again.end()
    assert again.error is not None
    assert again.error.status == 410
    fresh = Seen(
        batch.list_namespaced_job,
        batch.list_namespaced_job(NAMESPACE).metadata.resource_version,
        timeout_seconds=1,
    )
    assert (fresh.end(), fresh.error) == ([], None)


def test_a_version_that_is_gone_can_be_refused_by_the_http_status(
    server: KubernetesServer, batch: Any
) -> None:
    version = batch.list_namespaced_job(NAMESPACE).metadata.resource_version
    server.expire_watches(as_status=True)
    error = refused(batch.list_namespaced_job, NAMESPACE, watch=True, resource_version=version)
    assert (error.status, json.loads(error.body)["reason"]) == (410, "Expired")


def test_a_page_of_a_list_that_is_too_old_is_gone(server: KubernetesServer, batch: Any) -> None:
    for name in ("a", "b"):
        batch.create_namespaced_job(NAMESPACE, job(name))
    token = batch.list_namespaced_job(NAMESPACE, limit=1).metadata._continue
    server.expire_watches()
    error = refused(batch.list_namespaced_job, NAMESPACE, limit=1, _continue=token)
    assert (error.status, json.loads(error.body)["reason"]) == (410, "Expired")


def test_bookmarks_come_to_those_who_allow_them(server: KubernetesServer, batch: Any) -> None:
    plain = watching(server, batch.list_namespaced_job)
    allowing = watching(server, batch.list_namespaced_job, allow_watch_bookmarks=True)
    server.create_namespace("elsewhere")
    server.send_bookmarks()
    server.close_watches()
    assert plain.end() == []
    ((kind, bookmark),) = allowing.end()
    assert (kind, bookmark["kind"]) == ("BOOKMARK", "Job")
    assert (
        bookmark["metadata"]["resourceVersion"]
        == batch.list_namespaced_job(NAMESPACE).metadata.resource_version
    )


# the server itself


def test_two_hundred_jobs_run_at_once_with_their_logs_followed(
    server: KubernetesServer, api: Any
) -> None:
    api.rest_client.pool_manager.connection_pool_kw["maxsize"] = 200
    batch, core = client.BatchV1Api(api), client.CoreV1Api(api)
    seen = watching(server, batch.list_namespaced_job)

    def build(number: int) -> Any:
        name = f"build-{number}"
        body: Any = job(name)
        batch.create_namespaced_job(NAMESPACE, body)
        pod = server.start_pod(name)
        server.log(pod, [f"log of {number}"])
        answer: Any = core.read_namespaced_pod_log(
            pod["metadata"]["name"], NAMESPACE, follow=True, _preload_content=False
        )
        barrier.wait(60)
        server.finish(name, 0, message=DIGEST)
        return answer.data

    barrier = threading.Barrier(200)
    with ThreadPoolExecutor(200) as pool:
        logs = list(pool.map(build, range(200)))
    server.close_watches()
    complete = {
        found["metadata"]["name"]
        for _, found in seen.end()
        if any(
            condition["type"] == "Complete" for condition in found["status"].get("conditions", [])
        )
    }
    assert logs == [f"log of {number}\n".encode() for number in range(200)]
    assert len(complete) == 200


def test_the_server_stops_while_it_is_watched_and_leaves_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    with KubernetesServer(tmp_path) as server, connected(server.kubeconfig) as api:
        batch: Any = client.BatchV1Api(api)
        seen = watching(server, batch.list_namespaced_job)
    assert seen.end() == []
    assert threading.active_count() == threads
    with socket.create_server(("127.0.0.1", int(server.url.rpartition(":")[2]))) as free:
        assert free.fileno() > 0


def test_a_connection_that_comes_as_the_server_stops_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: lost.append(told.exc_value))
    with KubernetesServer(tmp_path) as server:

        def connect_and_stop() -> socket.socket:
            """The server's loop sees both at once, when it gets to look."""
            asyncio.get_running_loop().call_soon(server._stopping.set)
            return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))

        connection = server._call(connect_and_stop)
    with connection:
        gc.collect()
    assert lost == []

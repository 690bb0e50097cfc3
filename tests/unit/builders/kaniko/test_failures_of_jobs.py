"""How the failures of builds in a cluster are told apart, each from the objects that Kubernetes
shows of it.

The tests write what the kubelet, the scheduler and the Job's controller write, in their words: into
the API server of the tests, or through the API of a real cluster (`make test-cluster`), where the
Job's controller is its own.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_player import own_server
from imagemill.builders.kaniko import api, failures
from imagemill.builders.kaniko.api import connect
from imagemill.errors import (
    BuildCancelled,
    ConfigError,
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.ports import Credentials
from kaniko_builds import (
    Logins,
    Object,
    Passwords,
    PlayedCluster,
    RunningBuild,
    container,
    played_cluster,
)

IMAGE = "ghcr.io/osscontainertools/kaniko:v1.28.3"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[PlayedCluster]:
    with played_cluster(tmp_path) as played:
        yield played


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MISSING", 0.1)


def failed(build: RunningBuild, kind: type[ImagemillError]) -> ImagemillError:
    """The build's error, which is exactly of this kind and says what to do."""
    error = build.error()
    assert isinstance(error, ImagemillError)
    assert type(error) is kind, repr(error)
    assert error.hint
    return error


def pod_of(cluster: PlayedCluster) -> Object:
    """The pod of the only Job, new."""
    return cluster.server.start_pod(cluster.job())


# the image


def test_an_image_that_does_not_exist_is_named_with_the_registrys_words(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    said = f'rpc error: code = NotFound desc = failed to pull and unpack image "{IMAGE}": {IMAGE}: not found'
    cluster.server.wait_in(pod_of(cluster), "ErrImagePull", said)
    error = failed(build, OperatorError)
    assert f"The image {IMAGE} cannot be pulled: rpc error: code = NotFound" in error.message
    assert "builder.kaniko-image" in error.hint
    assert cluster.is_empty()


def test_an_image_that_wants_a_login_is_no_permission(cluster: PlayedCluster) -> None:
    build = cluster.build()
    cluster.server.wait_in(pod_of(cluster), "ErrImagePull", "failed to authorize: 401 Unauthorized")
    error = failed(build, PermissionDenied)
    assert "401 Unauthorized" in error.message
    assert "imagePullSecrets" in error.hint


def test_what_the_registry_said_is_found_in_the_events_while_the_kubelet_waits(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    pod = pod_of(cluster)
    said = f'Failed to pull image "{IMAGE}": pull access denied, repository does not exist'
    cluster.server.event(pod, "Failed", said, "Warning")
    cluster.server.wait_in(pod, "ImagePullBackOff", f'Back-off pulling image "{IMAGE}"')
    assert "pull access denied" in failed(build, PermissionDenied).message


def test_an_invalid_image_name_is_told(cluster: PlayedCluster) -> None:
    build = cluster.build()
    cluster.server.wait_in(
        pod_of(cluster), "InvalidImageName", "couldn't parse image name: invalid reference format"
    )
    assert "invalid reference format" in failed(build, OperatorError).message


def test_a_registry_that_does_not_answer_is_given_time_and_is_then_the_builds_failure(
    cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet's tries are the retries: no step begins them anew."""
    monkeypatch.setattr(failures, "PULLING", 0.5)
    build = cluster.build()
    cluster.server.wait_in(pod_of(cluster), "ErrImagePull", "dial tcp 192.0.2.1:443: i/o timeout")
    assert build.says("Waiting: The image")
    error = failed(build, OperatorError)
    assert "i/o timeout" in error.message
    assert "ghcr.io" in error.hint


# the node


UNSCHEDULABLE = "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available"


def test_a_pod_that_no_node_can_run_fails_after_the_grace_in_the_schedulers_words(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build(scheduling_timeout=1)
    cluster.server.unschedulable(pod_of(cluster), UNSCHEDULABLE)
    assert build.says("Waiting: No node can run the build's pod")
    error = failed(build, OperatorError)
    assert "3 Insufficient cpu" in error.message
    assert "scheduling-timeout" in error.hint
    assert cluster.is_empty()


def test_a_pod_that_gets_a_node_within_the_grace_is_built(cluster: PlayedCluster) -> None:
    build = cluster.build()
    pod = pod_of(cluster)
    cluster.server.unschedulable(pod, UNSCHEDULABLE)
    assert build.says("Waiting")
    cluster.server.run_pod(pod)
    cluster.server.finish(cluster.job(), 0, f"sha256:{'ab' * 32}")
    assert build.result()


def test_a_volume_claim_that_does_not_exist_is_told_at_once(cluster: PlayedCluster) -> None:
    build = cluster.build()
    said = '0/3 nodes are available: persistentvolumeclaim "contexts" not found. not eligible for preemption'
    cluster.server.unschedulable(pod_of(cluster), said)
    error = failed(build, OperatorError)
    assert "The PersistentVolumeClaim contexts that the build needs does not exist" in error.message


def disrupted(reason: str, message: str) -> Object:
    """The condition of a pod that something outside ends."""
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return {"conditions": [condition]}


@pytest.mark.parametrize(
    ("reason", "message", "told"),
    [
        (
            "PreemptionByScheduler",
            "default-scheduler: preempting to accommodate a higher priority pod",
            "preempted",
        ),
        (
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            "lost with its node",
        ),
        ("DeletionByPodGC", "PodGC: node no longer exists", "lost with its node"),
        ("EvictionByEvictionAPI", "Eviction API: evicting", "evicted"),
    ],
)
@own_server("a pod that no node runs has no node's name")
def test_a_pod_that_is_taken_away_is_tried_again(
    cluster: PlayedCluster, reason: str, message: str, told: str
) -> None:
    build = cluster.build()
    _, pod = cluster.run()
    cluster.server.keep_terminating()
    cluster.server.pod_status(pod, disrupted(reason, message))
    error = failed(build, TransientError)
    assert told in error.message
    assert message in error.message
    assert "node-1" in error.message


def test_a_pod_that_its_node_evicted_is_tried_again(cluster: PlayedCluster) -> None:
    build = cluster.build()
    job, pod = cluster.run()
    said = "The node was low on resource: memory. Container kaniko was using 3Gi, request is 1Gi"
    status: Object = {"phase": "Failed", "reason": "Evicted", "message": said}
    cluster.server.pod_status(pod, status | disrupted("TerminationByKubelet", said))
    error = failed(build, TransientError)
    assert "evicted by its node" in error.message
    assert "low on resource: memory" in error.message
    assert job["metadata"]["name"] in error.message
    assert cluster.is_empty()


def test_a_pod_that_used_more_disk_than_it_may_is_not_tried_again(cluster: PlayedCluster) -> None:
    build = cluster.build()
    _, pod = cluster.run()
    said = "Pod ephemeral local storage usage exceeds the total limit of containers 10Gi."
    cluster.server.pod_status(pod, {"phase": "Failed", "reason": "Evicted", "message": said})
    error = failed(build, OperatorError)
    assert "limit of containers 10Gi" in error.message
    assert "ephemeral-storage" in error.hint


def test_a_pod_whose_container_was_lost_with_its_node_is_tried_again(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    job, _ = cluster.run()
    cluster.server.finish(job, 137, reason="ContainerStatusUnknown")
    assert "lost with its node" in failed(build, TransientError).message


def test_a_pod_that_vanished_is_tried_again(cluster: PlayedCluster) -> None:
    build = cluster.build()
    job, pod = cluster.run()
    cluster.server.delete_pod(pod)
    cluster.server.fail_job(job)
    failed(build, TransientError)


def test_a_build_whose_pod_was_evicted_is_built_when_it_is_tried_again(
    cluster: PlayedCluster,
) -> None:
    source_hash = uuid.uuid4().hex * 2
    build = cluster.build(source_hash)
    _, pod = cluster.run()
    cluster.server.pod_status(
        pod, {"phase": "Failed", "reason": "Evicted", "message": "low on resource: memory"}
    )
    failed(build, TransientError)
    again = cluster.build(source_hash)
    assert again.says("Created the Job")
    cluster.succeed()
    assert again.result()


# what the cluster refuses


def test_a_quota_on_jobs_is_told_with_its_figures(cluster: PlayedCluster) -> None:
    cluster.server.set_quota("team", {"count/jobs.batch": 0})
    error = failed(cluster.build(), OperatorError)
    assert (
        "quota team is exceeded: requested: count/jobs.batch=1, used: count/jobs.batch=0"
        in error.message
    )


@own_server("its Jobs' controller makes the pod at once")
def test_a_quota_that_keeps_the_pod_from_being_made_is_told_within_seconds(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    said = (
        'Error creating: pods "x-abcde" is forbidden: exceeded quota: team, requested: requests.memory=1Gi,'
        " used: requests.memory=8Gi, limited: requests.memory=8Gi"
    )
    cluster.server.event(cluster.job(), "FailedCreate", said, "Warning")
    error = failed(build, OperatorError)
    assert (
        "quota team is exceeded: requested: requests.memory=1Gi, used: requests.memory=8Gi"
        in error.message
    )
    assert cluster.is_empty()


@own_server("its Jobs' controller makes the pod at once")
def test_why_an_adopted_job_has_no_pod_is_known_from_before(cluster: PlayedCluster) -> None:
    other = cluster.build()  # so that the watches are older than the adoption
    cluster.job()
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash, scheduling_timeout=99)
    assert first.says("Created the Job")
    (job,) = [job for job in cluster.server.jobs() if source_hash[:12] in job["metadata"]["name"]]
    first.stop(TransientError("the worker lost its lock"))
    first.error()
    said = "exceeded quota: team, requested: pods=1, used: pods=1, limited: pods=1"
    cluster.server.event(
        job, "FailedCreate", f'Error creating: pods "x" is forbidden: {said}', "Warning"
    )
    assert "quota team is exceeded" in failed(cluster.build(source_hash), OperatorError).message
    other.stop(BuildCancelled("the test is over"))
    other.error()


@own_server("its admission is not the test's to change")
def test_a_webhook_that_does_not_admit_the_job_is_named_with_its_reason(
    cluster: PlayedCluster,
) -> None:
    cluster.server.deny_admission(
        "policy.example.com", "images must come from registry.example.com"
    )
    error = failed(cluster.build(), OperatorError)
    assert "The admission webhook policy.example.com" in error.message
    assert "images must come from registry.example.com" in error.message


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false',
            "Pod security (restricted:latest)",
        ),
        (
            'admission webhook "p.example.com" denied the request: no',
            "The admission webhook p.example.com",
        ),
        ("maximum memory usage per Container is 1Gi, but limit is 2Gi", "LimitRange"),
        (
            'error looking up service account builds/builder: serviceaccount "builder" not found',
            "service account builder",
        ),
        ("no PriorityClass with name urgent was found", "priority class urgent"),
    ],
)
@own_server("its Jobs' controller makes the pod at once")
def test_what_is_not_admitted_of_the_pod_is_told_by_its_jobs_events(
    cluster: PlayedCluster, said: str, told: str
) -> None:
    build = cluster.build()
    cluster.server.event(
        cluster.job(), "FailedCreate", f'Error creating: pods "x" is forbidden: {said}', "Warning"
    )
    assert told in failed(build, OperatorError).message


def test_a_field_that_kubernetes_does_not_accept_is_named(cluster: PlayedCluster) -> None:
    resources = {"requests": {"memory": "8Gi"}, "limits": {"memory": "4Gi"}}
    error = cluster.build(kaniko_config=container(resources=resources)).error()
    assert isinstance(error, UserError | ConfigError)
    assert "resources.requests" in error.message


@pytest.mark.parametrize("verb", ["create", "get"])
@own_server("what it grants is not the test's to change")
def test_a_missing_permission_is_named_with_verb_and_resource(
    cluster: PlayedCluster, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_hash = uuid.uuid4().hex * 2
    first = cluster.build(source_hash)
    assert first.says("Created")
    monkeypatch.setattr(api, "REFUSALS", 0.0)  # else it may be a server that starts
    cluster.server.deny(verb, "jobs")
    error = failed(cluster.build(source_hash), PermissionDenied)
    assert isinstance(error, PermissionDenied)
    assert (error.action, error.resource) == (verb, "jobs.batch")
    assert f"No permission to {verb} jobs.batch in the namespace builds" in error.message
    assert f'the verb "{verb}" on the resource "jobs.batch"' in error.hint


@own_server("the test changes how the server is reached")
def test_credentials_that_are_not_accepted_are_told(cluster: PlayedCluster) -> None:
    cluster.server.kubeconfig.write_text(
        cluster.server.kubeconfig.read_text().replace(cluster.server.token, "wrong")
    )
    error = failed(cluster.build(), PermissionDenied)
    assert "does not accept the worker's credentials" in error.message
    assert "wrong" not in error.message


@own_server("the test changes how the server is reached")
def test_a_namespace_that_does_not_exist_is_told(cluster: PlayedCluster) -> None:
    config = cluster.server.kubeconfig
    config.write_text(config.read_text().replace("namespace: builds", "namespace: nowhere"))
    assert "The namespace nowhere does not exist" in failed(cluster.build(), OperatorError).message


@own_server("its API server cannot be made to fail")
def test_an_api_server_that_fails_is_a_service_unreachable(cluster: PlayedCluster) -> None:
    cluster.server.fail_next(503, 9, verb="create", resource="jobs", retry_after=None)
    error = cluster.build().error()
    assert type(error) is ServiceUnreachable


@own_server("its API server cannot be made to fail")
def test_an_api_server_that_wants_to_be_left_alone_says_for_how_long(
    cluster: PlayedCluster,
) -> None:
    cluster.server.fail_next(429, 1, verb="create", resource="jobs")
    error = cluster.build().error()
    assert type(error) is TransientError
    assert "has too much to do" in error.message


@own_server("its API server cannot be made to fail")
def test_a_request_that_was_put_off_is_made_again_when_the_server_says(
    cluster: PlayedCluster,
) -> None:
    cluster.server.fail_next(429, 1, verb="create", resource="jobs", retry_after=1)
    build = cluster.build()
    cluster.succeed()
    assert build.result()


@own_server("its API server cannot be made to fail")
def test_a_request_that_is_put_off_for_an_hour_is_left_to_the_steps_next_try(
    cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_LONGEST_WAIT", 0.01)
    cluster.server.fail_next(429, 9, verb="create", resource="jobs", retry_after=3600)
    error = cluster.build().error()
    assert type(error) is TransientError
    assert error.retry_after == 3600


@own_server("the test changes how the server is reached")
def test_an_api_server_that_is_not_there_is_a_service_unreachable(cluster: PlayedCluster) -> None:
    config = cluster.server.kubeconfig
    config.write_text(config.read_text().replace(cluster.server.url, "http://127.0.0.1:9"))
    error = cluster.build().error()
    assert type(error) is ServiceUnreachable
    assert "127.0.0.1:9 does not answer" in error.message


def test_without_a_cluster_it_is_said_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        connect({"HOME": str(tmp_path)}, tmp_path / "none")
    assert str(tmp_path / ".kube/config") in caught.value.message
    assert "KUBECONFIG" in caught.value.hint


# what the pod refers to


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('secret "aws" not found', "The Secret aws that the build needs does not exist"),
        ('configmap "proxy" not found', "The ConfigMap proxy that the build needs does not exist"),
        ("couldn't find key token in Secret builds/aws", "The Secret aws has no key token"),
    ],
)
def test_a_secret_or_configmap_that_a_variable_refers_to_is_named(
    cluster: PlayedCluster, said: str, told: str
) -> None:
    build = cluster.build()
    cluster.server.wait_in(pod_of(cluster), "CreateContainerConfigError", said)
    assert told in failed(build, OperatorError).message


def test_a_secret_that_a_volume_refers_to_is_named(cluster: PlayedCluster) -> None:
    build = cluster.build(secret_name="cloud", secret_key="config.json")
    pod = cluster.server.schedule_pod(pod_of(cluster))
    said = 'MountVolume.SetUp failed for volume "imagemill-credentials" : secret "cloud" not found'
    cluster.server.event(pod, "FailedMount", said, "Warning")
    error = failed(build, OperatorError)
    assert "The Secret cloud that the build needs does not exist" in error.message
    assert cluster.is_empty()


def test_the_builds_own_secret_may_come_later_than_its_pod(cluster: PlayedCluster) -> None:
    build = cluster.build(registry=Passwords(Logins(Credentials("ann", "s3cr3t")), frozenset()))
    job = cluster.job()
    pod = cluster.server.schedule_pod(pod_of(cluster))
    name = f"{job['metadata']['name']}-registry"
    said = f'MountVolume.SetUp failed for volume "imagemill-registry" : secret "{name}" not found'
    cluster.server.event(pod, "FailedMount", said, "Warning")
    cluster.server.run_pod(pod)
    cluster.server.finish(job, 0, f"sha256:{'ab' * 32}")
    assert build.result()


def test_a_container_that_cannot_be_started_is_told(cluster: PlayedCluster) -> None:
    build = cluster.build()
    said = 'failed to create containerd task: exec: "/kaniko/executor": stat /kaniko/executor: no such file'
    cluster.server.wait_in(pod_of(cluster), "RunContainerError", said)
    assert (
        "cannot be started: failed to create containerd task"
        in failed(build, OperatorError).message
    )


# the build itself


@own_server("a pod that no node runs has no log")
def test_the_dockerfiles_own_failure_has_its_instruction_and_exit_code(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    lines = [
        'level=info msg="RUN make model"',
        "make: *** No rule to make target 'model'.  Stop.",
        "error building image: error building stage: failed to execute command: waiting for process to exit:"
        " exit status 2",
    ]
    job, _ = cluster.run(lines=lines)
    cluster.server.finish(job, 2)
    error = failed(build, UserError)
    assert error.message == "RUN make model in the Dockerfile failed with exit code 2"
    assert build.progress.lines[-2:] == lines[-2:]
    assert cluster.job()["metadata"]["name"] == job["metadata"]["name"]


@own_server("what it grants is not the test's to change")
def test_a_failure_whose_log_is_lost_is_told_by_its_termination_message(
    cluster: PlayedCluster,
) -> None:
    cluster.server.deny("get", "pods/log")
    build = cluster.build()
    job, _ = cluster.run()
    cluster.server.finish(
        job, 1, "error building image: parsing dockerfile: unknown instruction: RUM"
    )
    assert "unknown instruction: RUM" in failed(build, UserError).message


@own_server("a pod that no node runs has no log")
def test_a_registry_that_does_not_let_the_pod_push_is_no_permission(cluster: PlayedCluster) -> None:
    build = cluster.build()
    said = (
        "error checking push permissions -- make sure you entered the correct tag name, and that you are authenticated"
        ' correctly, and try again: checking push permission for "registry.example.com/team/app": POST'
        " https://registry.example.com/v2/team/app/blobs/uploads/: UNAUTHORIZED: authentication required"
    )
    job, _ = cluster.run(lines=[said])
    cluster.server.finish(job, 1)
    error = failed(build, PermissionDenied)
    assert "may not push to registry.example.com/team/app" in error.message


def test_a_build_that_reaches_its_jobs_deadline_ran_out_of_time(cluster: PlayedCluster) -> None:
    build = cluster.build()
    job, _ = cluster.run()
    cluster.server.fail_job(job, "DeadlineExceeded")
    assert "ran out of time" in failed(build, UserError).message


@own_server("its Jobs' controller makes the pod at once")
def test_a_job_that_gets_no_pod_and_no_reason_is_told_after_a_while(
    cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "NO_POD", 0.5)
    error = failed(cluster.build(), OperatorError)
    assert "got no pod" in error.message
    assert f"kubectl get events -n {cluster.api.namespace} " in error.hint
    assert cluster.is_empty()  # so that there is no Job to be described


def test_a_job_that_somebody_deletes_is_tried_again(cluster: PlayedCluster) -> None:
    build = cluster.build()
    job, _ = cluster.run()
    cluster.server.expire_job(job)
    assert "was deleted" in failed(build, TransientError).message  # the Job, or first its pod

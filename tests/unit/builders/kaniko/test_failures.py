"""Why Kaniko's executor failed, by its own last words, and what a pod's state means where they are
missing.
"""

from typing import Any

import pytest

from imagemill.builders.kaniko.executor_log import explain, tag_is_kept
from imagemill.builders.kaniko.failures import (
    MOUNTING,
    STARTING,
    PodEvidence,
    failure,
    has_failed,
    is_out_of_memory,
    memory_limit,
    trouble,
)
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)

Object = dict[str, Any]
IMAGE = "registry.example.com/team/app:abc"


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        (
            "error building image: error building stage: failed to execute command: waiting for process to exit:"
            " exit status 3",
            UserError,
            "The Dockerfile failed with exit code 3",
        ),
        (
            "error building image: error building stage: failed to execute command: waiting for process to exit:"
            " signal: killed",
            UserError,
            "was killed, most likely for want of memory",
        ),
        (
            "error building image: parsing dockerfile: dockerfile parse error line 3: unknown instruction: RUM",
            UserError,
            "dockerfile parse error line 3",
        ),
        (
            "error building image: error building stage: failed to get files used from context: failed to get fileinfo"
            " for /kaniko/buildcontext/context/nothing: lstat: no such file or directory",
            UserError,
            "no such file or directory",
        ),
        (
            "error building image: GET https://index.docker.io/v2/library/nothing/manifests/1: MANIFEST_UNKNOWN:"
            " manifest unknown; unknown tag=1",
            UserError,
            "The base image index.docker.io/library/nothing:1 does not exist",
        ),
        (
            "error building image: GET https://index.docker.io/v2/team/private/manifests/1: UNAUTHORIZED:"
            " authentication required",
            PermissionDenied,
            "A base image cannot be pulled",
        ),
        (
            'error building image: Get "https://mirror.example.com/v2/": dial tcp: lookup mirror.example.com:'
            " no such host",
            ServiceUnreachable,
            "Pulling a base image failed",
        ),
        (
            "error building image: GET https://index.docker.io/v2/library/python/manifests/3: TOOMANYREQUESTS: You have"
            " reached your pull rate limit",
            ServiceUnreachable,
            "index.docker.io limits how often it is asked",
        ),
        (
            "error building image: error building stage: write /model.bin: no space left on device",
            OperatorError,
            "no disk left",
        ),
        (
            "error checking push permissions -- make sure you entered the correct tag name, and that you are"
            " authenticated correctly, and try again: checking push permission: DENIED: permission denied",
            PermissionDenied,
            f"may not push to {IMAGE}",
        ),
        (
            "error pushing image: failed to push to destination: Put https://registry.example.com/v2/:"
            " dial tcp 192.0.2.1:443: connect: connection refused",
            ServiceUnreachable,
            f"Pushing to {IMAGE} failed",
        ),
        (
            "error pushing image: MANIFEST_INVALID: manifest invalid",
            OperatorError,
            f"Pushing to {IMAGE} failed",
        ),
        (
            "Error: error resolving source context: getting context from S3: AccessDenied: status code: 403",
            PermissionDenied,
            "cannot read the context",
        ),
        (
            "Error: error resolving source context: dial tcp: i/o timeout",
            ServiceUnreachable,
            "cannot read the context",
        ),
        (
            "Error: error resolving source context: getting context from S3: NoSuchKey: The specified key does not"
            " exist. status code: 404",
            TransientError,
            "cannot read the context",
        ),
        ("Error: unknown flag: --cashe", OperatorError, "exit code 1: unknown flag: --cashe"),
        (
            "kaniko should only be run inside of a container, run with the --force flag if you are sure",
            OperatorError,
            "should only be run inside of a container",
        ),
    ],
)
def test_the_executors_last_word_tells_whose_fault_it_is(
    said: str, kind: type[ImagemillError], told: str
) -> None:
    error = explain(
        ["INFO[0000] something", said, "", "Usage:", "  executor [flags]"][:2], 1, IMAGE
    )
    assert type(error) is kind, repr(error)
    assert told in error.message
    assert error.hint


@pytest.mark.parametrize("doing", ["error building image", "error pushing image"])
@pytest.mark.parametrize(
    ("why", "hint"),
    [
        (
            "http: server gave HTTP response to HTTPS client",
            "--insecure-registry=registry.example.com ",
        ),
        (
            "tls: failed to verify certificate: x509: unknown authority",
            "--registry-certificate=registry.example.com=",
        ),
        ("dial tcp 192.0.2.1:443: connect: connection refused", "pods can reach it"),
    ],
)
def test_what_is_to_be_done_about_a_registry_is_what_helps_a_pod(
    doing: str, why: str, hint: str
) -> None:
    error = explain([f'{doing}: Get "https://registry.example.com/v2/": {why}'], 1, IMAGE)
    assert hint in error.hint
    assert "engine" not in str(error)


@pytest.mark.parametrize(
    "line",
    [
        "INFO[0003] RUN make model",
        "\x1b[36mINFO\x1b[0m[0003] RUN make model",
        'time="2026-01-01T00:00:00Z" level=info msg="RUN make model"',
        'level=info msg="RUN make model"',
    ],
)
def test_the_instruction_is_found_in_every_format_of_the_log(line: str) -> None:
    log = [
        "INFO[0001] FROM scratch",
        line,
        "make: no rule",
        "error building image: waiting for process to exit: exit status 2",
    ]
    assert (
        explain(log, 2, IMAGE).message == "RUN make model in the Dockerfile failed with exit code 2"
    )


def test_usage_after_the_error_does_not_hide_it() -> None:
    log = [
        "Error: error resolving source context: NoSuchKey",
        "Usage:",
        "  executor [flags]",
        "Flags:",
    ]
    assert "NoSuchKey" in explain(log, 1, IMAGE).message


ECR_SAID = (
    "TAG_INVALID: The image tag 'abc' already exists in the 'app' repository and cannot be overwritten because the tag"
    " is immutable."
)
GOOGLE_SAID = "DENIED: Cannot update tag abc. The repository has enabled tag immutability"


@pytest.mark.parametrize("said", [ECR_SAID, GOOGLE_SAID])
def test_a_tag_that_the_registry_keeps_is_told_from_other_failures(said: str) -> None:
    told = f"failed to push to destination {IMAGE}: PUT https://registry.example.com/v2/app/manifests/abc: {said}"
    assert tag_is_kept(["Pushing image", f"error pushing image: {told}"])
    assert not tag_is_kept([f"error building image: RUN skopeo copy: {told}"])
    assert not tag_is_kept([told, "error pushing image: failed to push to destination: EOF"])
    assert not tag_is_kept([])


def test_an_executor_that_says_nothing_is_told_by_its_exit_code() -> None:
    assert "exit code 127: it said nothing" in explain([], 127, IMAGE).message


# pods


def pod(state: Object, **status: Any) -> Object:
    spec = {
        "nodeName": "node-1",
        "containers": [{"name": "kaniko", "resources": {"limits": {"memory": "2Gi"}}}],
    }
    containers = [{"name": "sidecar", "state": {"running": {}}}, {"name": "kaniko", "state": state}]
    return {
        "metadata": {"name": "p"},
        "spec": spec,
        "status": {"containerStatuses": containers, **status},
    }


JOB: Object = {"metadata": {"name": "j"}, "spec": {}, "status": {}}


def test_a_pod_that_runs_is_no_trouble() -> None:
    running = pod({"running": {}}, phase="Running")
    assert not has_failed(JOB, [running])
    assert trouble(PodEvidence(JOB, [running])) is None


def test_a_warning_about_a_volume_that_was_mounted_later_is_no_trouble() -> None:
    event = {
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "v" : secret "s" not found',
    }
    assert trouble(PodEvidence(JOB, [pod({"running": {}})], [event])) is None
    assert (
        trouble(PodEvidence(JOB, [pod({"waiting": {"reason": "ContainerCreating"}})], [event]))
        is not None
    )


@pytest.mark.parametrize("reason", ["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"])
def test_a_pod_that_its_node_cannot_make_is_given_time_until_it_is_made(reason: str) -> None:
    event = {"reason": reason, "message": "plugin type=calico failed (add): unauthorized"}
    waiting = pod({"waiting": {"reason": "ContainerCreating"}})
    found = trouble(PodEvidence(JOB, [waiting], [event]))
    assert found is not None
    assert found.patience == MOUNTING
    assert "unauthorized" in found.error.message
    waiting["status"]["conditions"] = [{"type": "PodReadyToStartContainers", "status": "True"}]
    assert trouble(PodEvidence(JOB, [waiting], [event])) is None


def test_a_container_that_waits_for_a_reason_that_nobody_knows_is_given_a_while() -> None:
    state = {"waiting": {"reason": "PreStartHookError", "message": "the hook failed"}}
    found = trouble(PodEvidence(JOB, [pod(state)]))
    assert found is not None
    assert found.patience == STARTING
    assert "PreStartHookError: the hook failed" in found.error.message
    for usual in ("ContainerCreating", "PodInitializing"):
        assert trouble(PodEvidence(JOB, [pod({"waiting": {"reason": usual}})])) is None


def test_an_image_whose_signature_is_not_valid_is_told_as_one_that_cannot_be_pulled() -> None:
    state = {"waiting": {"reason": "SignatureValidationFailed", "message": "no signature"}}
    found = trouble(PodEvidence(JOB, [pod(state)]))
    assert found is not None
    assert "cannot be pulled: no signature" in found.error.message


def test_the_builds_own_secret_may_come_after_the_pod() -> None:
    event = {
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "v" : secret "ours" not found',
    }
    waiting = pod(
        {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "ours" not found'}}
    )
    assert trouble(PodEvidence(JOB, [waiting], [event], ours={"ours"})) is None
    assert trouble(PodEvidence(JOB, [waiting], [event])) is not None


def test_a_pod_that_was_made_in_the_end_is_no_trouble_though_a_quota_was_exceeded() -> None:
    event = {
        "reason": "FailedCreate",
        "message": "exceeded quota: team, requested: pods=1, used: pods=1",
    }
    assert trouble(PodEvidence(JOB, [], [event])) is not None
    assert trouble(PodEvidence(JOB, [pod({"running": {}})], [event])) is None


def test_a_kill_for_want_of_memory_is_told_from_an_eviction_for_it() -> None:
    killed = pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, phase="Failed")
    assert is_out_of_memory([killed])
    assert "limit of 2Gi" in failure(PodEvidence(JOB, [killed])).message
    evicted = pod(
        {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, phase="Failed", reason="Evicted"
    )
    assert not is_out_of_memory([evicted])
    assert type(failure(PodEvidence(JOB, [evicted]))) is TransientError


def test_a_limit_that_was_not_requested_may_be_more_than_its_node_had() -> None:
    killed = pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, phase="Failed")
    killed["spec"]["containers"][0]["resources"]["requests"] = {"memory": "1Gi"}
    assert (
        "more memory than its limit of 2Gi, or than its node had left"
        in failure(PodEvidence(JOB, [killed])).message
    )


def test_an_instruction_that_ended_with_137_is_the_dockerfiles_own() -> None:
    ended = pod({"terminated": {"exitCode": 137, "reason": "Error"}}, phase="Failed")
    log = [
        "error building image: failed to execute command: waiting for process to exit: exit status 137"
    ]
    assert type(failure(PodEvidence(JOB, [ended], log=log))) is UserError


def test_the_executor_is_found_behind_containers_that_a_webhook_has_put_before_it() -> None:
    injected = pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})
    injected["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "kaniko"}
    injected["spec"]["containers"].insert(0, {"name": "sidecar"})
    assert has_failed(JOB, [injected])
    assert is_out_of_memory([injected])
    assert memory_limit(injected) == "2Gi"


def test_a_pod_that_is_refused_for_a_reason_that_may_pass_is_given_time() -> None:
    said = 'Operation cannot be fulfilled on resourcequotas "team": the object has been modified'
    found = trouble(
        PodEvidence(JOB, [], [{"reason": "FailedCreate", "message": f"Error creating: {said}"}])
    )
    assert found is not None
    assert found.patience > 0
    assert "the object has been modified" in found.error.message


@pytest.mark.parametrize(
    "state", [{"running": {}}, {"terminated": {"exitCode": 143, "reason": "Error"}}]
)
def test_why_a_pod_is_deleted_may_be_told_by_its_job_a_moment_later(state: Object) -> None:
    deleted = pod(state)
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not has_failed(JOB, [deleted])
    found = trouble(PodEvidence(JOB, [deleted]))
    assert found is not None
    assert found.patience > 0
    assert "deleted by somebody" in found.error.message
    assert has_failed(overdue("this"), [deleted])
    assert (
        "ran out of time"
        in failure(PodEvidence(overdue("this"), [deleted], build_id="this")).message
    )


def test_a_pod_that_an_eviction_deletes_says_so_at_once() -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    evicted = pod({"running": {}}, conditions=[condition])
    evicted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = trouble(PodEvidence(JOB, [evicted]))
    assert found is not None
    assert found.patience == 0
    assert "evicted" in found.error.message


def overdue(build_id: str) -> Object:
    condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    metadata = {"name": "j", "annotations": {"dev.imagemill/build-id": build_id}}
    return {
        "metadata": metadata,
        "spec": {"activeDeadlineSeconds": 60},
        "status": {"conditions": [condition]},
    }


def test_the_deadline_of_a_job_that_another_build_began_is_not_this_builds() -> None:
    error = failure(PodEvidence(overdue("earlier"), build_id="this"))
    assert type(error) is TransientError
    assert "earlier" in error.message
    assert type(failure(PodEvidence(overdue("this"), build_id="this"))) is UserError


def test_a_deadline_of_the_config_is_named() -> None:
    assert (
        "activeDeadlineSeconds"
        in failure(PodEvidence(overdue("b"), build_id="b", own_deadline=60)).hint
    )
    assert "--timeout" in failure(PodEvidence(overdue("b"), build_id="b", own_deadline=90)).hint


def test_the_latest_pod_counts() -> None:
    first = pod({"terminated": {"exitCode": 1}}, phase="Failed", reason="Evicted")
    second = pod(
        {"terminated": {"exitCode": 1, "message": "error building image: no such stage"}},
        phase="Failed",
    )
    assert type(failure(PodEvidence(JOB, [first, second]))) is UserError


def test_an_init_container_that_failed_is_named() -> None:
    failed = pod({"waiting": {"reason": "PodInitializing"}}, phase="Failed")
    failed["status"]["initContainerStatuses"] = [
        {"name": "warm", "state": {"terminated": {"exitCode": 5}}}
    ]
    assert (
        "init container warm of the build failed with exit code 5"
        in failure(PodEvidence(JOB, [failed])).message
    )


def test_a_sidecar_that_ends_after_the_executor_is_not_why_the_build_failed() -> None:
    ended = pod({"terminated": {"exitCode": 1, "message": "error building image: no"}})
    ended["status"]["initContainerStatuses"] = [
        {"name": "proxy", "state": {"terminated": {"exitCode": 143, "reason": "Error"}}}
    ]
    assert "The Dockerfile failed: no" in failure(PodEvidence(JOB, [ended])).message


def test_an_image_of_an_init_container_that_cannot_be_pulled_is_named() -> None:
    waiting = pod({"waiting": {"reason": "PodInitializing"}})
    state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    waiting["status"]["initContainerStatuses"] = [
        {"name": "warm", "image": "busybox:none", "state": state}
    ]
    found = trouble(PodEvidence(JOB, [waiting]))
    assert found is not None
    assert "The image busybox:none cannot be pulled: not found" in found.error.message

"""What the Kubernetes API does, as its reference says: on the server of our own, and unchanged on a
real cluster.

`make test-cluster` runs it on the cluster of KUBECONFIG. It plays no kubelet: Jobs are suspended,
pods are for a scheduler that does not exist, and what says nothing of Jobs is shown on ConfigMaps,
which no controller touches. https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import base64
import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import pytest
from kubernetes import client, watch

from clusters import Cluster, any_cluster, connected, fresh_namespace

FORGETS = 720
"""Seconds within which a cluster forgets: API servers compact etcd every 5 minutes, first to what
was 5 minutes before.

https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
(--etcd-compaction-interval)
"""

HOLD = "tests.example.com/hold"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with any_cluster(tmp_path_factory.mktemp("kubernetes")) as path:
        yield path


@pytest.fixture
def cluster(kubeconfig: Any) -> Iterator[Cluster]:
    with fresh_namespace(kubeconfig) as cluster:
        yield cluster


def job(name: str = "build", **changes: Any) -> dict[str, Any]:
    """A Job that creates no pods; `changes` are laid over its pod's spec."""
    pod = {"restartPolicy": "Never", "containers": [container()]} | changes
    return {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": pod}}}


def container(**changes: Any) -> dict[str, Any]:
    return {"name": "main", "image": "example.com/image:1"} | changes


def pod(name: str = "pod", **changes: Any) -> dict[str, Any]:
    """A pod that no scheduler looks at."""
    spec = {"schedulerName": "nobody", "containers": [container()]} | changes
    return {"metadata": {"name": name}, "spec": spec}


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name} | metadata, "data": {"key": "value"}}


def owner(of: Any, kind: str = "Job", version: str = "batch/v1", **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": kind,
        "name": of.metadata.name,
        "uid": of.metadata.uid,
    } | more


def refused(act: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
    """The Status document with which the API refuses a call."""
    with pytest.raises(client.ApiException) as caught:
        act(*arguments, **options)
    status: dict[str, Any] = json.loads(caught.value.body or "")
    assert status["code"] == caught.value.status
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    return status


def causes(status: dict[str, Any]) -> set[tuple[str, str]]:
    """Field and reason of each cause of an invalid object."""
    assert (status["code"], status["reason"]) == (422, "Invalid"), status["message"]
    return {(cause["field"], cause["reason"]) for cause in status["details"]["causes"]}


def asked(api: Any, method: str, path: str, body: str | None = None, **headers: str) -> Any:
    """The answer to a request that the client has no method for, or would refuse to send itself."""
    headers = {"Accept": "application/json"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
    url = api.configuration.host + path
    return api.rest_client.pool_manager.request(
        method, url, body=body, headers=headers, redirect=False
    )


def sent(
    cluster: Cluster, body: str, query: str = "", content_type: str = "application/json"
) -> Any:
    """The answer to a Job that is sent as it is, past the client's own checks."""
    path = f"/apis/batch/v1/namespaces/{cluster.namespace}/jobs?{query}"
    return asked(cluster.api, "POST", path, body, Content_Type=content_type)


def create_job(cluster: Cluster, body: dict[str, Any], **options: Any) -> Any:
    return cluster.batch.create_namespaced_job(cluster.namespace, body, **options)


def create_map(cluster: Cluster, body: dict[str, Any]) -> Any:
    return cluster.core.create_namespaced_config_map(cluster.namespace, body)


def events(
    cluster: Cluster, of: str = "config_map", **options: Any
) -> Generator[dict[str, Any], None, None]:
    """The events of a watch, as they come, as JSON; it ends by its own time at the latest."""
    listing = getattr(cluster.batch if of == "job" else cluster.core, f"list_namespaced_{of}")
    watching: Any = watch.Watch()  # type: ignore[no-untyped-call]
    options = {"timeout_seconds": 20} | options
    stream = watching.stream(listing, cluster.namespace, **options)
    try:
        for event in stream:
            yield {"type": event["type"], "object": event["raw_object"]}
    finally:
        stream.close()


def names_in(stream: Iterator[dict[str, Any]], count: int) -> list[tuple[str, str]]:
    """Type and name of the next events."""
    found = [next(stream) for _ in range(count)]
    return [(event["type"], event["object"]["metadata"]["name"]) for event in found]


def once_forgotten(cluster: Cluster) -> dict[str, Any]:
    """The refusal of a list of the first version of all, which is there until etcd is compacted for
    the first time.

    It is a list of events, since they alone come from etcd itself: API servers keep the rest in
    memory as well.
    """
    listing, end = cluster.core.list_namespaced_event, time.monotonic() + FORGETS
    while time.monotonic() < end:
        try:
            listing(cluster.namespace, resource_version="1", resource_version_match="Exact")
        except client.ApiException as error:
            found: dict[str, Any] = json.loads(error.body or "")
            return found
        time.sleep(1)
    raise AssertionError("the cluster remembers its first version still")


def wait_until_gone(cluster: Cluster, of: str, name: str) -> None:
    listing = getattr(cluster.batch if of == "job" else cluster.core, f"list_namespaced_{of}")
    listed = listing(cluster.namespace, field_selector=f"metadata.name={name}")
    if listed.items:
        version = listed.metadata.resource_version
        stream = events(
            cluster, of, resource_version=version, field_selector=f"metadata.name={name}"
        )
        assert any(event["type"] == "DELETED" for event in stream), f"{of} {name} is still there"


# what is in a namespace from the beginning


def test_a_namespace_has_an_account_and_the_authority_that_its_pods_trust(cluster: Cluster) -> None:
    account = cluster.core.read_namespaced_service_account("default", cluster.namespace)
    authority = cluster.core.read_namespaced_config_map("kube-root-ca.crt", cluster.namespace)
    assert account.metadata.namespace == cluster.namespace
    assert "BEGIN CERTIFICATE" in authority.data["ca.crt"]


# what an object becomes


def test_a_new_object_gets_its_metadata_from_the_server(cluster: Cluster) -> None:
    made = create_job(cluster, job())
    assert made.metadata.namespace == cluster.namespace
    assert len(made.metadata.uid) == 36
    assert made.metadata.creation_timestamp is not None
    assert made.metadata.generation == 1
    assert made.metadata.resource_version


def test_a_job_gets_the_documented_defaults(cluster: Cluster) -> None:
    spec = create_job(cluster, job()).spec
    assert (spec.completions, spec.parallelism, spec.backoff_limit) == (1, 1, 6)
    assert (spec.completion_mode, spec.pod_replacement_policy) == (
        "NonIndexed",
        "TerminatingOrFailed",
    )
    assert spec.template.spec.dns_policy == "ClusterFirst"
    assert spec.template.spec.termination_grace_period_seconds == 30
    only = spec.template.spec.containers[0]
    assert (only.image_pull_policy, only.termination_message_policy) == ("IfNotPresent", "File")
    assert only.termination_message_path == "/dev/termination-log"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("image", "Always"),
        ("image:latest", "Always"),
        ("localhost:5000/image", "Always"),
        ("image:1", "IfNotPresent"),
        (f"image@sha256:{'0' * 64}", "IfNotPresent"),
    ],
)
def test_latest_is_always_pulled(cluster: Cluster, image: str, policy: str) -> None:
    made = create_job(cluster, job(containers=[container(image=image)]))
    assert made.spec.template.spec.containers[0].image_pull_policy == policy


def test_a_job_knows_its_pods_by_labels_that_the_server_sets(cluster: Cluster) -> None:
    made = create_job(cluster, job())
    labels = made.spec.template.metadata.labels
    assert labels["batch.kubernetes.io/job-name"] == labels["job-name"] == "build"
    assert (
        labels["batch.kubernetes.io/controller-uid"]
        == labels["controller-uid"]
        == made.metadata.uid
    )
    assert made.spec.selector.match_labels == {
        "batch.kubernetes.io/controller-uid": made.metadata.uid
    }


def test_a_pod_requests_what_its_limits_say(cluster: Cluster) -> None:
    limited = container(
        resources={"limits": {"memory": "1Gi", "cpu": "1"}, "requests": {"cpu": "500m"}}
    )
    made = cluster.core.create_namespaced_pod(cluster.namespace, pod(containers=[limited]))
    assert made.spec.containers[0].resources.requests == {"memory": "1Gi", "cpu": "500m"}
    assert (made.status.phase, made.status.qos_class) == ("Pending", "Burstable")
    assert made.spec.service_account_name == "default"


def test_a_name_can_be_generated(cluster: Cluster) -> None:
    first, second = (
        create_map(cluster, {"metadata": {"generateName": "some-"}}).metadata.name for _ in range(2)
    )
    assert first != second
    assert {first[:5], second[:5]} == {"some-"}
    assert len(first) == len(second) == 10


def test_text_of_a_secret_is_kept_as_data(cluster: Cluster) -> None:
    secret = {"metadata": {"name": "secret"}, "stringData": {"key": "text"}}
    made = cluster.core.create_namespaced_secret(cluster.namespace, secret)
    read = cluster.core.read_namespaced_secret("secret", cluster.namespace)
    assert (made.type, read.string_data) == ("Opaque", None)
    assert read.to_dict(serialize=True)["data"] == {"key": base64.b64encode(b"text").decode()}


def test_a_dry_run_checks_and_stores_nothing(cluster: Cluster) -> None:
    made = create_job(cluster, job(), dry_run="All")
    assert made.spec.backoff_limit == 6
    assert cluster.batch.list_namespaced_job(cluster.namespace).items == []
    assert refused(create_job, cluster, job(containers=[]), dry_run="All")["code"] == 422


# strict decoding


def test_unknown_and_duplicate_fields_are_refused_under_strict_validation(cluster: Cluster) -> None:
    body = json.dumps(job(restartpolicy="Never"))
    body = body.replace('"suspend": true', '"suspend": true, "retries": 3, "suspend": true')
    answer = sent(cluster, body, "fieldValidation=Strict")
    status = json.loads(answer.data)
    assert (answer.status, status["reason"]) == (400, "BadRequest")
    assert status["message"].startswith(
        'Job in version "v1" cannot be handled as a Job: strict decoding error: '
    )
    for fault in (
        ("unknown field", "spec.retries"),
        ("unknown field", "spec.template.spec.restartpolicy"),
    ):
        assert f'{fault[0]} "{fault[1]}"' in status["message"]
    assert 'duplicate field "spec.suspend"' in status["message"]


def test_unknown_fields_are_dropped_with_a_warning_otherwise(cluster: Cluster) -> None:
    body: dict[str, Any] = job()
    body["spec"]["retries"] = 3
    answer = sent(cluster, json.dumps(body))
    assert answer.status == 201
    assert 'unknown field \\"spec.retries\\"' in answer.headers["Warning"]
    assert "retries" not in json.loads(answer.data)["spec"]
    ignored = sent(
        cluster, json.dumps(body | {"metadata": {"name": "b"}}), "fieldValidation=Ignore"
    )
    assert (ignored.status, ignored.headers.get("Warning")) == (201, None)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("spec", "backoffLimit"), "3", "cannot unmarshal string into Go struct field"),
        (("spec", "suspend"), "true", "cannot unmarshal string into Go struct field"),
        (
            ("spec", "template", "spec", "containers"),
            {},
            "cannot unmarshal object into Go struct field",
        ),
        (
            ("spec", "template", "spec", "nodeSelector"),
            {"a": True},
            "cannot unmarshal bool into Go struct field",
        ),
        (("metadata", "labels"), {"a": 1}, "cannot unmarshal number into Go struct field"),
        (
            ("spec", "template", "spec", "overhead"),
            {"cpu": "a lot"},
            "quantities must match the regular expression",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_a_bad_request(
    cluster: Cluster, path: tuple[str, ...], value: Any, complaint: str
) -> None:
    body: dict[str, Any] = job()
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    answer = sent(cluster, json.dumps(body))
    status = json.loads(answer.data)
    assert (answer.status, status["reason"]) == (400, "BadRequest")
    assert complaint in status["message"]


def test_an_object_of_another_kind_version_or_namespace_is_a_bad_request(cluster: Cluster) -> None:
    status = refused(create_job, cluster, job() | {"apiVersion": "v1", "kind": "Pod"})
    assert (status["code"], status["reason"]) == (400, "BadRequest")
    elsewhere = job()
    elsewhere["metadata"]["namespace"] = "default"
    status = refused(create_job, cluster, elsewhere)
    expected = (
        "the namespace of the provided object does not match the namespace sent on the request"
    )
    assert (status["code"], status["message"]) == (400, expected)


def test_a_body_must_be_json_and_say_so(cluster: Cluster) -> None:
    answer = sent(cluster, json.dumps(job()), content_type="text/plain")
    assert (answer.status, json.loads(answer.data)["reason"]) == (415, "UnsupportedMediaType")
    assert sent(cluster, "no JSON").status == 400


# validation


def invalid_pods() -> list[Any]:
    """Changes to a pod's spec, and the field and the reason of the fault that the server finds in
    it.
    """

    def case(what: str, field: str, reason: str, /, **changes: Any) -> Any:
        return pytest.param(changes, (field, f"FieldValue{reason}"), id=what)

    def of_container(what: str, field: str, reason: str, /, **changes: Any) -> Any:
        more = changes.pop("more", {})
        return case(
            what, f"containers[0].{field}", reason, containers=[container(**changes)], **more
        )

    volume: dict[str, Any] = {"name": "work", "emptyDir": {}}
    limited = {"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}
    gpu = {"requests": {"nvidia.com/gpu": "1"}}
    mount = {"name": "work", "mountPath": "/work"}
    return [
        case("no containers", "containers", "Required", containers=[]),
        case(
            "containers of one name",
            "containers[1].name",
            "Duplicate",
            containers=[container(), container()],
        ),
        case("no such restart policy", "restartPolicy", "NotSupported", restartPolicy="Sometimes"),
        case("no such DNS policy", "dnsPolicy", "NotSupported", dnsPolicy="Mine"),
        case("volumes of one name", "volumes[1].name", "Duplicate", volumes=[volume, volume]),
        case("a volume's name", "volumes[0].name", "Invalid", volumes=[volume | {"name": "Work"}]),
        case(
            "a volume of two kinds",
            "volumes[0].hostPath",
            "Forbidden",
            volumes=[volume | {"hostPath": {"path": "/"}}],
        ),
        case(
            "a Secret without a name",
            "volumes[0].secret.secretName",
            "Required",
            volumes=[{"name": "work", "secret": {}}],
        ),
        case(
            "a claim without a name",
            "volumes[0].persistentVolumeClaim.claimName",
            "Required",
            volumes=[{"name": "work", "persistentVolumeClaim": {"claimName": ""}}],
        ),
        case("a node selector", "nodeSelector", "Invalid", nodeSelector={"zone": "here and there"}),
        case("a deadline of nothing", "activeDeadlineSeconds", "Invalid", activeDeadlineSeconds=0),
        case(
            "a toleration of a value that must exist",
            "tolerations[0].operator",
            "Invalid",
            tolerations=[{"key": "gpu", "operator": "Exists", "value": "yes"}],
        ),
        case(
            "a toleration without a key",
            "tolerations[0].operator",
            "Invalid",
            tolerations=[{"effect": "NoSchedule"}],
        ),
        case(
            "no such effect",
            "tolerations[0].effect",
            "NotSupported",
            tolerations=[{"operator": "Exists", "effect": "Never"}],
        ),
        case(
            "no such profile",
            "securityContext.seccompProfile.type",
            "NotSupported",
            securityContext={"seccompProfile": {"type": "Default"}},
        ),
        of_container("no image", "image", "Required", image=""),
        of_container("a container's name", "name", "Invalid", name="Main"),
        of_container("a long name", "name", "Invalid", name="a" * 64),
        of_container(
            "no such pull policy", "imagePullPolicy", "NotSupported", imagePullPolicy="Often"
        ),
        of_container("a variable without a name", "env[0].name", "Required", env=[{"name": ""}]),
        of_container("a variable's name", "env[0].name", "Invalid", env=[{"name": "A=B"}]),
        of_container(
            "a value from two places",
            "env[0].valueFrom",
            "Invalid",
            env=[
                {
                    "name": "A",
                    "value": "a",
                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                }
            ],
        ),
        of_container(
            "a reference without a key",
            "env[0].valueFrom.secretKeyRef.key",
            "Required",
            env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "secret", "key": ""}}}],
        ),
        of_container(
            "a mount of no volume", "volumeMounts[0].name", "NotFound", volumeMounts=[mount]
        ),
        of_container(
            "two mounts on one path",
            "volumeMounts[1].mountPath",
            "Invalid",
            volumeMounts=[mount, mount],
            more={"volumes": [volume]},
        ),
        of_container(
            "a path out of the volume",
            "volumeMounts.subPath",
            "Invalid",
            volumeMounts=[mount | {"subPath": "../up"}],
            more={"volumes": [volume]},
        ),
        of_container("requests above limits", "resources.requests", "Invalid", resources=limited),
        of_container("a device without a limit", "resources.limits", "Required", resources=gpu),
        of_container(
            "half a device",
            "resources.limits[nvidia.com/gpu]",
            "Invalid",
            resources={"limits": {"nvidia.com/gpu": "500m"}},
        ),
        of_container(
            "no such resource",
            "resources.limits[disk]",
            "Invalid",
            resources={"limits": {"disk": "1Gi"}},
        ),
        of_container(
            "less than nothing",
            "resources.limits[cpu]",
            "Invalid",
            resources={"limits": {"cpu": "-1"}},
        ),
        of_container(
            "escalation forbidden and needed",
            "securityContext",
            "Invalid",
            securityContext={"privileged": True, "allowPrivilegeEscalation": False},
        ),
    ]


@pytest.mark.parametrize(("changes", "cause"), invalid_pods())
def test_a_pod_that_cannot_be_is_invalid_in_a_job_as_on_its_own(
    cluster: Cluster, changes: dict[str, Any], cause: tuple[str, str]
) -> None:
    field, reason = cause
    in_job = refused(create_job, cluster, job(**changes))
    assert (f"spec.template.spec.{field}", reason) in causes(in_job)
    alone = refused(cluster.core.create_namespaced_pod, cluster.namespace, pod(**changes))
    assert (f"spec.{field}", reason) in causes(alone)


def test_an_image_in_spaces_is_invalid_in_a_pod_alone(cluster: Cluster) -> None:
    create_job(cluster, job(containers=[container(image=" image")]))
    spaced = pod(containers=[container(image=" image")])
    alone = refused(cluster.core.create_namespaced_pod, cluster.namespace, spaced)
    assert causes(alone) == {("spec.containers[0].image", "FieldValueInvalid")}


def test_the_account_of_a_pod_has_to_be_there(cluster: Cluster) -> None:
    """Admission asks for it before the pod is validated; a Job's template is only validated."""
    in_job = refused(create_job, cluster, job(serviceAccountName="Me_"))
    assert ("spec.template.spec.serviceAccountName", "FieldValueInvalid") in causes(in_job)
    for name in ("Me_", "absent"):
        alone = pod(serviceAccountName=name)
        status = refused(cluster.core.create_namespaced_pod, cluster.namespace, alone)
        assert (status["code"], status["reason"]) == (403, "Forbidden")
        assert "error looking up service account" in status["message"]


def test_a_fault_is_told_in_kubernetes_words(cluster: Cluster) -> None:
    status = refused(create_job, cluster, job(restartPolicy="Always"))
    words = 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    assert status["message"] == f'Job.batch "build" is invalid: {words}'
    assert {key: status["details"][key] for key in ("name", "group", "kind")} == {
        "name": "build",
        "group": "batch",
        "kind": "Job",
    }
    assert causes(status) == {("spec.template.spec.restartPolicy", "FieldValueRequired")}


def test_all_faults_are_told_at_once(cluster: Cluster) -> None:
    body = job(containers=[container(image="")])
    body["spec"]["backoffLimit"] = -1
    status = refused(create_job, cluster, body)
    assert {"spec.backoffLimit", "spec.template.spec.containers[0].image"} == {
        field for field, _ in causes(status)
    }
    assert status["message"].startswith('Job.batch "build" is invalid: [')


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            "Build",
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters",
        ),
        ("build_1", "a lowercase RFC 1123 subdomain"),
        ("-build", "a lowercase RFC 1123 subdomain"),
        ("b" * 254, "must be no more than 253"),
    ],
)
def test_a_name_is_a_dns_subdomain(cluster: Cluster, name: str, fault: str) -> None:
    status = refused(create_map, cluster, config_map(name))
    assert causes(status) == {("metadata.name", "FieldValueInvalid")}
    assert fault in status["message"]


def test_a_name_is_required(cluster: Cluster) -> None:
    status = refused(create_map, cluster, {"metadata": {}})
    assert "metadata.name: Required value: name or generateName is required" in status["message"]


def test_a_jobs_name_is_a_label_of_its_pods_and_so_at_most_63_characters(cluster: Cluster) -> None:
    assert create_job(cluster, job("b" * 63)).metadata.name == "b" * 63
    assert ("spec.template.labels", "FieldValueInvalid") in causes(
        refused(create_job, cluster, job("b" * 64))
    )


@pytest.mark.parametrize(
    "labels",
    [
        {"a": "v" * 64},
        {"a": "-v"},
        {"a": "v/w"},
        {"a b": "v"},
        {"k" * 64: "v"},
        {"UP.example.com/a": "v"},
    ],
)
def test_labels_have_a_grammar(cluster: Cluster, labels: dict[str, str]) -> None:
    status = refused(create_map, cluster, config_map("map", labels=labels))
    assert causes(status) == {("metadata.labels", "FieldValueInvalid")}


def test_labels_may_be_empty_or_63_characters(cluster: Cluster) -> None:
    labels = {"a": "", "example.com/b": "v" * 63, "c": "A_b-c.d"}
    assert create_map(cluster, config_map("map", labels=labels)).metadata.labels == labels


def test_an_owner_is_named_in_full(cluster: Cluster) -> None:
    owners = [{"apiVersion": "batch/v1", "kind": "Job", "name": "build", "uid": ""}]
    status = refused(create_map, cluster, config_map("map", ownerReferences=owners))
    assert causes(status) == {("metadata.ownerReferences.uid", "FieldValueInvalid")}


def test_counts_of_a_job_are_not_negative(cluster: Cluster) -> None:
    body = job()
    keys = (
        "activeDeadlineSeconds",
        "backoffLimit",
        "completions",
        "parallelism",
        "ttlSecondsAfterFinished",
    )
    body["spec"] |= dict.fromkeys(keys, -1)
    assert causes(refused(create_job, cluster, body)) == {
        (f"spec.{key}", "FieldValueInvalid") for key in keys
    }


def test_a_jobs_selector_is_the_servers_own(cluster: Cluster) -> None:
    body = job()
    body["spec"]["selector"] = {"matchLabels": {"a": "b"}}
    assert ("spec.selector", "FieldValueInvalid") in causes(refused(create_job, cluster, body))


def test_a_pod_failure_policy_needs_pods_that_are_not_restarted(cluster: Cluster) -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    body = job(restartPolicy="OnFailure")
    body["spec"]["podFailurePolicy"] = {"rules": [rule, {"action": "FailJob"}]}
    assert causes(refused(create_job, cluster, body)) == {
        ("spec.template.spec.restartPolicy", "FieldValueInvalid"),
        ("spec.podFailurePolicy.rules[1]", "FieldValueInvalid"),
    }


def test_a_variable_set_twice_is_accepted_with_a_warning(cluster: Cluster) -> None:
    twice = container(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])
    answer = create_job(cluster, job(containers=[twice]), _preload_content=False)
    assert json.loads(answer.data)["kind"] == "Job"
    assert "hides previous definition of" in answer.headers["Warning"]


def test_a_registrys_secret_holds_what_its_type_says(cluster: Cluster) -> None:
    kind = "kubernetes.io/dockerconfigjson"

    def create(data: dict[str, str]) -> Any:
        body = {"metadata": {"name": "secret"}, "type": kind, "stringData": data}
        return cluster.core.create_namespaced_secret(cluster.namespace, body)

    field = "data[.dockerconfigjson]"
    assert causes(refused(create, {"config.json": "{}"})) == {(field, "FieldValueRequired")}
    assert causes(refused(create, {".dockerconfigjson": "not JSON"})) == {
        (field, "FieldValueInvalid")
    }
    assert create({".dockerconfigjson": "{}"}).type == kind


def test_a_secret_is_at_most_a_mebibyte_and_its_keys_have_a_grammar(cluster: Cluster) -> None:
    def create(data: dict[str, str]) -> Any:
        return cluster.core.create_namespaced_secret(
            cluster.namespace, {"metadata": {"name": "s"}, "stringData": data}
        )

    assert causes(refused(create, {"a": "x" * (1024 * 1024 + 1)})) == {
        ("data", "FieldValueTooLong")
    }
    assert causes(refused(create, {"a/b": "x"})) == {("data[a/b]", "FieldValueInvalid")}


# errors about what is there


def test_what_is_not_there_is_not_found(cluster: Cluster) -> None:
    status = refused(cluster.batch.read_namespaced_job, "none", cluster.namespace)
    assert (status["code"], status["reason"]) == (404, "NotFound")
    assert status["message"] == 'jobs.batch "none" not found'
    assert status["details"] == {"name": "none", "group": "batch", "kind": "jobs"}
    assert refused(cluster.core.delete_namespaced_secret, "none", cluster.namespace)["code"] == 404


def test_a_namespace_that_is_not_there_is_empty_but_takes_nothing(cluster: Cluster) -> None:
    assert cluster.batch.list_namespaced_job("no-such-namespace").items == []
    status = refused(cluster.batch.create_namespaced_job, "no-such-namespace", job())
    assert (status["code"], status["message"]) == (404, 'namespaces "no-such-namespace" not found')


def test_a_path_that_is_not_served_is_not_found_and_a_verb_that_is_not_is_not_allowed(
    cluster: Cluster,
) -> None:
    with connected(cluster.kubeconfig) as api:
        url = f"/apis/batch/v1/namespaces/{cluster.namespace}"
        assert asked(api, "GET", f"{url}/tasks").status == 404
        answer = asked(api, "POST", f"{url}/jobs/build")
        assert (answer.status, json.loads(answer.data)["reason"]) == (405, "MethodNotAllowed")
        assert asked(api, "GET", f"{url}/jobs", Accept="text/html").status == 406


def test_a_second_object_of_a_name_already_exists(cluster: Cluster) -> None:
    create_job(cluster, job())
    status = refused(create_job, cluster, job())
    assert (status["code"], status["reason"]) == (409, "AlreadyExists")
    assert status["message"] == 'jobs.batch "build" already exists'
    assert status["details"] == {"name": "build", "group": "batch", "kind": "jobs"}


def test_a_name_is_taken_until_the_deletion_has_ended(cluster: Cluster) -> None:
    create_map(cluster, config_map("map", finalizers=[HOLD]))
    cluster.core.delete_namespaced_config_map("map", cluster.namespace)
    status = refused(create_map, cluster, config_map("map"))
    assert (status["code"], status["reason"]) == (409, "AlreadyExists")
    assert status["message"] == 'object is being deleted: configmaps "map" already exists'
    drop_finalizers(cluster, "map")
    assert create_map(cluster, config_map("map")).metadata.deletion_timestamp is None


def drop_finalizers(cluster: Cluster, name: str) -> None:
    patch = {"metadata": {"finalizers": None}}
    cluster.core.patch_namespaced_config_map(name, cluster.namespace, patch, _content_type=MERGE)


# who may do what


def test_a_wrong_token_is_unauthorized(cluster: Cluster) -> None:
    with connected(cluster.kubeconfig) as api:
        api.configuration.api_key = {"BearerToken": "Bearer wrong"}
        api.configuration.refresh_api_key_hook = None
        api.rest_client = client.rest.RESTClientObject(_without_certificate(api.configuration))
        status = refused(client.BatchV1Api(api).list_namespaced_job, cluster.namespace)
        assert (status["code"], status["reason"], status["message"]) == (
            401,
            "Unauthorized",
            "Unauthorized",
        )


def _without_certificate(configuration: Any) -> Any:
    configuration.cert_file = configuration.key_file = None
    return configuration


def impersonating(api: Any, cluster: Cluster) -> str:
    """Act from now on as a service account that is granted nothing; returns its user name."""
    user = f"system:serviceaccount:{cluster.namespace}:nobody"
    api.set_default_header("Impersonate-User", user)
    return user


def test_what_is_not_granted_is_forbidden_in_kubernetes_words(cluster: Cluster) -> None:
    with connected(cluster.kubeconfig) as api:
        user, batch, core = (
            impersonating(api, cluster),
            client.BatchV1Api(api),
            client.CoreV1Api(api),
        )
        where = f'in the namespace "{cluster.namespace}"'
        status = refused(batch.create_namespaced_job, cluster.namespace, job())
        cannot = f'User "{user}" cannot create resource "jobs" in API group "batch" {where}'
        assert (status["code"], status["reason"]) == (403, "Forbidden")
        assert status["message"] == f"jobs.batch is forbidden: {cannot}"
        assert status["details"] == {"group": "batch", "kind": "jobs"}
        status = refused(core.read_namespaced_pod_log, "pod", cluster.namespace)
        cannot = f'User "{user}" cannot get resource "pods/log" in API group "" {where}'
        assert status["message"] == f'pods "pod" is forbidden: {cannot}'
        status = refused(batch.list_job_for_all_namespaces)
        cannot = (
            f'User "{user}" cannot list resource "jobs" in API group "batch" at the cluster scope'
        )
        assert status["message"] == f"jobs.batch is forbidden: {cannot}"


def may(api: Any, cluster: Cluster, verb: str, resource: str, subresource: str = "") -> bool:
    group = "batch" if resource == "jobs" else ""
    attributes = {
        "namespace": cluster.namespace,
        "verb": verb,
        "group": group,
        "resource": resource,
    }
    body: Any = {"spec": {"resourceAttributes": attributes | {"subresource": subresource}}}
    review: Any = client.AuthorizationV1Api(api).create_self_subject_access_review(body)
    return bool(review.status.allowed)


def test_everybody_may_ask_what_he_may_do(cluster: Cluster) -> None:
    assert may(cluster.api, cluster, "create", "jobs")
    assert may(cluster.api, cluster, "get", "pods", "log")
    with connected(cluster.kubeconfig) as api:
        impersonating(api, cluster)
        assert not may(api, cluster, "create", "jobs")


def wait_for_quota(cluster: Cluster, used: str) -> None:
    """Wait until the quota controller has counted so many Jobs."""
    with closing(events(cluster, "resource_quota")) as stream:
        statuses = (found["object"].get("status", {}) for found in stream)
        next(
            status for status in statuses if status.get("used", {}).get("count/jobs.batch") == used
        )


def test_a_quota_that_is_used_up_forbids_another_object(cluster: Cluster) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/jobs.batch": "1"}}}
    cluster.core.create_namespaced_resource_quota(cluster.namespace, quota)
    wait_for_quota(cluster, "0")
    create_job(cluster, job("first"))
    status = refused(create_job, cluster, job("second"))
    counts = "requested: count/jobs.batch=1, used: count/jobs.batch=1, limited: count/jobs.batch=1"
    assert (status["code"], status["reason"]) == (403, "Forbidden")
    assert status["message"] == f'jobs.batch "second" is forbidden: exceeded quota: few, {counts}'


def test_a_quota_is_asked_before_whether_the_object_exists(cluster: Cluster) -> None:
    create_job(cluster, job("first"))
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "1"}}}
    cluster.core.create_namespaced_resource_quota(cluster.namespace, quota)
    wait_for_quota(cluster, "1")
    assert "exceeded quota" in refused(create_job, cluster, job("first"))["message"]


# lists


def test_a_list_comes_in_pages_that_show_one_moment(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        create_map(cluster, config_map(name, labels={"of": "us"}))
    everything = cluster.core.list_namespaced_config_map
    first = everything(cluster.namespace, limit=2, label_selector="of=us")
    create_map(cluster, config_map("b2", labels={"of": "us"}))
    rest = everything(
        cluster.namespace, limit=2, label_selector="of=us", _continue=first.metadata._continue
    )
    assert [item.metadata.name for item in first.items + rest.items] == ["a", "b", "c"]
    assert rest.metadata.resource_version == first.metadata.resource_version
    assert not rest.metadata._continue


def test_a_list_without_a_selector_says_how_much_remains(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        create_job(cluster, job(name))
    assert (
        cluster.batch.list_namespaced_job(cluster.namespace, limit=1).metadata.remaining_item_count
        == 2
    )


def test_a_list_says_what_it_is_and_its_items_do_not(cluster: Cluster) -> None:
    create_map(cluster, config_map("map"))
    answer = json.loads(
        cluster.core.list_namespaced_config_map(cluster.namespace, _preload_content=False).data
    )
    assert (answer["kind"], answer["apiVersion"]) == ("ConfigMapList", "v1")
    assert not {"kind", "apiVersion"} & set(answer["items"][0])


def test_a_version_that_is_no_version_and_a_page_that_is_none_are_bad_requests(
    cluster: Cluster,
) -> None:
    maps = cluster.core.list_namespaced_config_map
    assert refused(maps, cluster.namespace, _continue="nonsense")["code"] == 400
    assert refused(maps, cluster.namespace, resource_version_match="Exact")["code"] in (400, 422)


def test_a_list_can_be_of_an_exact_version(cluster: Cluster) -> None:
    create_map(cluster, config_map("a"))
    maps = cluster.core.list_namespaced_config_map
    before = maps(cluster.namespace).metadata.resource_version
    create_map(cluster, config_map("b"))
    then = maps(cluster.namespace, resource_version=before, resource_version_match="Exact")
    assert "b" not in [item.metadata.name for item in then.items]
    assert then.metadata.resource_version == before


@pytest.mark.timeout(FORGETS + 60)
def test_versions_from_before_the_memory_of_the_cluster_are_gone(cluster: Cluster) -> None:
    status = once_forgotten(cluster)
    assert (status["code"], status["reason"]) == (410, "Expired")


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("app=x", "ac"),
        ("app==x,tier=1", "a"),
        ("app!=x", "bd"),
        ("app in (x, y)", "abc"),
        ("app notin (x)", "bd"),
        ("tier", "ab"),
        ("!tier", "cd"),
        ("app=x,!tier", "c"),
    ],
)
def test_labels_select(cluster: Cluster, selector: str, selected: str) -> None:
    labels = {
        "a": {"app": "x", "tier": "1"},
        "b": {"app": "y", "tier": "2"},
        "c": {"app": "x"},
        "d": {},
    }
    for name, given in labels.items():
        create_map(cluster, config_map(name, labels=given | {"of": "us"}))
    listed = cluster.core.list_namespaced_config_map(
        cluster.namespace, label_selector=f"of=us,{selector}"
    )
    assert "".join(item.metadata.name for item in listed.items) == selected


def test_a_selector_that_cannot_be_parsed_is_a_bad_request(cluster: Cluster) -> None:
    maps = cluster.core.list_namespaced_config_map
    assert refused(maps, cluster.namespace, label_selector="a in x")["code"] == 400
    assert refused(maps, cluster.namespace, label_selector=f"a={'v' * 64}")["code"] == 400


def test_fields_select_only_where_the_api_says_so(cluster: Cluster) -> None:
    for name in ("a", "b"):
        cluster.core.create_namespaced_pod(cluster.namespace, pod(name))
    pods = cluster.core.list_namespaced_pod
    assert [
        item.metadata.name
        for item in pods(cluster.namespace, field_selector="metadata.name!=a").items
    ] == ["b"]
    assert (
        len(pods(cluster.namespace, field_selector="status.phase=Pending,spec.nodeName=").items)
        == 2
    )
    status = refused(pods, cluster.namespace, field_selector="spec.hostname=a")
    assert (status["code"], status["reason"]) == (400, "BadRequest")
    assert "field label not supported: spec.hostname" in status["message"]


def test_events_are_found_by_the_object_that_they_are_about(cluster: Cluster) -> None:
    made = cluster.core.create_namespaced_pod(cluster.namespace, pod())
    about = {"kind": "Pod", "name": "pod", "namespace": cluster.namespace, "uid": made.metadata.uid}
    event = {
        "metadata": {"generateName": "pod."},
        "involvedObject": about,
        "reason": "Tested",
        "message": "It was.",
        "type": "Warning",
        "source": {"component": "tests"},
    }
    cluster.core.create_namespaced_event(cluster.namespace, event)
    fields = f"involvedObject.uid={made.metadata.uid},reason=Tested,type=Warning"
    (found,) = cluster.core.list_namespaced_event(cluster.namespace, field_selector=fields).items
    assert (found.message, found.source.component) == ("It was.", "tests")
    event["involvedObject"] = about | {"namespace": "default"}
    status = refused(cluster.core.create_namespaced_event, cluster.namespace, event)
    assert causes(status) == {("involvedObject.namespace", "FieldValueInvalid")}


# watches


def test_a_watch_goes_on_exactly_after_the_version_that_it_names(cluster: Cluster) -> None:
    create_map(cluster, config_map("before"))
    listed = cluster.core.list_namespaced_config_map(cluster.namespace)
    create_map(cluster, config_map("after"))
    cluster.core.delete_namespaced_config_map("before", cluster.namespace)
    stream = events(cluster, resource_version=listed.metadata.resource_version)
    first = next(stream)
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "after")
    assert names_in(stream, 1) == [("DELETED", "before")]
    create_map(cluster, config_map("live"))
    assert names_in(stream, 1) == [("ADDED", "live")]
    again = events(cluster, resource_version=first["object"]["metadata"]["resourceVersion"])
    assert names_in(again, 2) == [("DELETED", "before"), ("ADDED", "live")]


def test_a_watch_without_a_version_begins_with_what_is_there(cluster: Cluster) -> None:
    create_map(cluster, config_map("a", labels={"of": "us"}))
    stream = events(cluster, label_selector="of=us")
    assert names_in(stream, 1) == [("ADDED", "a")]
    create_map(cluster, config_map("b", labels={"of": "us"}))
    assert names_in(stream, 1) == [("ADDED", "b")]


def test_versions_are_text_that_changes_with_each_change_and_with_nothing_else(
    cluster: Cluster,
) -> None:
    made = create_map(cluster, config_map("map"))
    patch = cluster.core.patch_namespaced_config_map
    changed = patch("map", cluster.namespace, {"data": {"key": "other"}}, _content_type=MERGE)
    same = patch("map", cluster.namespace, {"data": {"key": "other"}}, _content_type=MERGE)
    assert isinstance(made.metadata.resource_version, str)
    assert changed.metadata.resource_version != made.metadata.resource_version
    assert same.metadata.resource_version == changed.metadata.resource_version


def test_a_deleted_event_shows_the_last_state_with_a_version_of_its_own(cluster: Cluster) -> None:
    made = create_map(cluster, config_map("map"))
    stream = events(cluster, resource_version=made.metadata.resource_version)
    cluster.core.delete_namespaced_config_map("map", cluster.namespace)
    event = next(stream)
    assert (event["type"], event["object"]["data"]) == ("DELETED", {"key": "value"})
    assert event["object"]["metadata"]["resourceVersion"] != made.metadata.resource_version


def test_what_leaves_the_selection_is_deleted_to_the_watch_and_what_enters_it_is_added(
    cluster: Cluster,
) -> None:
    create_map(cluster, config_map("map", labels={"in": "yes"}))
    version = cluster.core.list_namespaced_config_map(cluster.namespace).metadata.resource_version
    stream = events(cluster, resource_version=version, label_selector="in=yes")
    patch = cluster.core.patch_namespaced_config_map
    for value in ("no", "never", "yes"):
        patch(
            "map", cluster.namespace, {"metadata": {"labels": {"in": value}}}, _content_type=MERGE
        )
    patch("map", cluster.namespace, {"data": {"key": "new"}}, _content_type=MERGE)
    left, entered, changed = (next(stream) for _ in range(3))
    assert [event["type"] for event in (left, entered, changed)] == ["DELETED", "ADDED", "MODIFIED"]
    assert left["object"]["metadata"]["labels"] == {"in": "yes"}


def test_a_watch_ends_normally_when_its_time_is_up(cluster: Cluster) -> None:
    version = cluster.core.list_namespaced_config_map(cluster.namespace).metadata.resource_version
    assert list(events(cluster, resource_version=version, timeout_seconds=1)) == []


@pytest.mark.timeout(FORGETS + 60)
def test_a_watch_from_a_version_that_is_gone_is_told_so(cluster: Cluster) -> None:
    once_forgotten(cluster)
    with pytest.raises(client.ApiException) as caught:
        list(events(cluster, "event", resource_version="1", timeout_seconds=5))
    assert caught.value.status == 410


def test_a_watch_can_begin_with_a_list_that_a_bookmark_ends(cluster: Cluster) -> None:
    create_map(cluster, config_map("map"))
    options: dict[str, Any] = {
        "send_initial_events": True,
        "resource_version_match": "NotOlderThan",
        "allow_watch_bookmarks": True,
    }
    stream = events(cluster, **options)
    until_bookmark = []
    for event in stream:
        until_bookmark.append(event)
        if event["type"] == "BOOKMARK":
            break
    *present, bookmark = until_bookmark
    assert ("ADDED", "map") in [
        (event["type"], event["object"]["metadata"]["name"]) for event in present
    ]
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert bookmark["object"]["kind"] == "ConfigMap"


# updates


def test_an_update_of_an_old_version_is_a_conflict(cluster: Cluster) -> None:
    made = create_map(cluster, config_map("map"))
    replace = cluster.core.replace_namespaced_config_map
    body = config_map("map", resourceVersion=made.metadata.resource_version) | {
        "data": {"key": "new"}
    }
    replace("map", cluster.namespace, body)
    status = refused(replace, "map", cluster.namespace, body | {"data": {"key": "newer"}})
    why = "the object has been modified; please apply your changes to the latest version and try again"
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert status["message"] == f'Operation cannot be fulfilled on configmaps "map": {why}'


def test_a_merge_patch_sets_removes_and_replaces_lists(cluster: Cluster) -> None:
    create_map(cluster, config_map("map", annotations={"a": "1", "b": "2"}))
    patch = {"metadata": {"annotations": {"a": None, "c": "3"}}, "data": {"other": "x"}}
    changed = cluster.core.patch_namespaced_config_map(
        "map", cluster.namespace, patch, _content_type=MERGE
    )
    assert changed.metadata.annotations == {"b": "2", "c": "3"}
    assert changed.data == {"key": "value", "other": "x"}


def test_a_strategic_merge_patch_merges_lists_by_their_keys(cluster: Cluster) -> None:
    cluster.core.create_namespaced_pod(
        cluster.namespace, pod(containers=[container(), container(name="side")])
    )
    patch = {"spec": {"containers": [{"name": "side", "image": "example.com/other:2"}]}}
    patched = cluster.core.patch_namespaced_pod(
        "pod", cluster.namespace, patch, _content_type=STRATEGIC
    )
    images = {one.name: one.image for one in patched.spec.containers}
    assert images == {"main": "example.com/image:1", "side": "example.com/other:2"}


def test_a_patch_of_an_unknown_kind_is_an_unsupported_media_type(cluster: Cluster) -> None:
    create_map(cluster, config_map("map"))
    patch = cluster.core.patch_namespaced_config_map
    status = refused(
        patch, "map", cluster.namespace, {"data": {}}, _content_type="application/x-patch+json"
    )
    assert (status["code"], status["reason"]) == (415, "UnsupportedMediaType")


def test_a_jobs_template_cannot_be_changed_but_its_deadline_can(cluster: Cluster) -> None:
    create_job(cluster, job())
    patch = cluster.batch.patch_namespaced_job
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "other:1"}]}}}}
    status = refused(patch, "build", cluster.namespace, image, _content_type=STRATEGIC)
    # Up to 1.35 the cause is of the template as a whole.
    assert causes(status) <= {
        ("spec.template", "FieldValueInvalid"),
        ("spec.template.spec", "FieldValueInvalid"),
    }
    assert "field is immutable" in status["message"]
    deadline = {"spec": {"activeDeadlineSeconds": 60}, "metadata": {"labels": {"a": "b"}}}
    changed = patch("build", cluster.namespace, deadline, _content_type=STRATEGIC)
    assert (changed.spec.active_deadline_seconds, changed.metadata.labels["a"]) == (60, "b")
    assert changed.metadata.generation == 2


def test_most_of_a_pod_cannot_be_changed(cluster: Cluster) -> None:
    cluster.core.create_namespaced_pod(cluster.namespace, pod())
    patch = {"spec": {"containers": [{"name": "main", "command": ["true"]}]}}
    status = refused(
        cluster.core.patch_namespaced_pod, "pod", cluster.namespace, patch, _content_type=STRATEGIC
    )
    assert causes(status) == {("spec", "FieldValueForbidden")}


def test_an_immutable_secret_stays_as_it_is(cluster: Cluster) -> None:
    secret = {"metadata": {"name": "secret"}, "immutable": True, "stringData": {"key": "text"}}
    cluster.core.create_namespaced_secret(cluster.namespace, secret)
    patch = cluster.core.patch_namespaced_secret
    status = refused(
        patch, "secret", cluster.namespace, {"stringData": {"key": "new"}}, _content_type=MERGE
    )
    assert causes(status) == {("data", "FieldValueForbidden")}


def test_the_status_is_changed_through_its_own_path_only(cluster: Cluster) -> None:
    cluster.core.create_namespaced_pod(cluster.namespace, pod())
    patch = {"status": {"message": "told"}, "metadata": {"labels": {"a": "b"}}}
    plain = cluster.core.patch_namespaced_pod("pod", cluster.namespace, patch, _content_type=MERGE)
    assert (plain.status.message, plain.metadata.labels) == (None, {"a": "b"})
    own = cluster.core.patch_namespaced_pod_status(
        "pod", cluster.namespace, patch, _content_type=MERGE
    )
    assert own.status.message == "told"


# deletion


def test_deleting_a_job_without_a_policy_leaves_its_dependents_behind_and_warns(
    cluster: Cluster,
) -> None:
    made = create_job(cluster, job())
    create_map(cluster, config_map("map", ownerReferences=[owner(made)]))
    answer = cluster.batch.delete_namespaced_job("build", cluster.namespace, _preload_content=False)
    assert json.loads(answer.data)["metadata"]["finalizers"] == ["orphan"]
    assert "child pods are preserved by default when jobs are deleted" in answer.headers["Warning"]
    wait_until_gone(cluster, "job", "build")
    left = cluster.core.read_namespaced_config_map("map", cluster.namespace)
    assert not left.metadata.owner_references


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_dependents_go_with_a_job_that_is_deleted_with_a_policy(
    cluster: Cluster, policy: str
) -> None:
    made = create_job(cluster, job())
    create_map(cluster, config_map("map", ownerReferences=[owner(made, blockOwnerDeletion=True)]))
    cluster.batch.delete_namespaced_job("build", cluster.namespace, propagation_policy=policy)
    wait_until_gone(cluster, "config_map", "map")
    wait_until_gone(cluster, "job", "build")


def test_in_the_foreground_the_owner_waits_for_its_dependents(cluster: Cluster) -> None:
    made = create_job(cluster, job())
    held = config_map(
        "map", ownerReferences=[owner(made, blockOwnerDeletion=True)], finalizers=[HOLD]
    )
    create_map(cluster, held)
    cluster.batch.delete_namespaced_job("build", cluster.namespace, propagation_policy="Foreground")
    waiting = cluster.batch.read_namespaced_job("build", cluster.namespace)
    assert waiting.metadata.deletion_timestamp is not None
    assert "foregroundDeletion" in waiting.metadata.finalizers
    with closing(events(cluster)) as stream:
        next(found for found in stream if "deletionTimestamp" in found["object"]["metadata"])
    drop_finalizers(cluster, "map")
    wait_until_gone(cluster, "job", "build")


def test_in_the_background_the_owner_goes_first(cluster: Cluster) -> None:
    made = create_job(cluster, job())
    held = config_map(
        "map", ownerReferences=[owner(made, blockOwnerDeletion=True)], finalizers=[HOLD]
    )
    create_map(cluster, held)
    answer = cluster.batch.delete_namespaced_job(
        "build", cluster.namespace, propagation_policy="Background", _preload_content=False
    )
    status = json.loads(answer.data)
    assert (status["kind"], status["status"]) == ("Status", "Success")
    assert status["details"] == {
        "name": "build",
        "group": "batch",
        "kind": "jobs",
        "uid": made.metadata.uid,
    }
    assert refused(cluster.batch.read_namespaced_job, "build", cluster.namespace)["code"] == 404
    drop_finalizers(cluster, "map")


def test_a_dependent_of_an_owner_that_never_was_is_collected(cluster: Cluster) -> None:
    made = create_job(cluster, job())
    ghost = owner(made) | {"uid": "00000000-0000-0000-0000-000000000000"}
    create_map(cluster, config_map("map", ownerReferences=[ghost]))
    wait_until_gone(cluster, "config_map", "map")


def test_a_dependent_of_two_owners_stays_while_one_is_there(cluster: Cluster) -> None:
    first, second = (create_job(cluster, job(name)) for name in ("first", "second"))
    create_map(cluster, config_map("map", ownerReferences=[owner(first), owner(second)]))
    create_map(cluster, config_map("canary", ownerReferences=[owner(first)]))
    cluster.batch.delete_namespaced_job("first", cluster.namespace, propagation_policy="Background")
    wait_until_gone(cluster, "config_map", "canary")
    assert (
        cluster.core.read_namespaced_config_map(
            "map", cluster.namespace
        ).metadata.deletion_timestamp
        is None
    )


def test_an_object_with_a_finalizer_is_marked_and_goes_with_its_last_finalizer(
    cluster: Cluster,
) -> None:
    made = create_map(cluster, config_map("map", finalizers=[HOLD]))
    stream = events(cluster, resource_version=made.metadata.resource_version)
    cluster.core.delete_namespaced_config_map("map", cluster.namespace)
    marked = next(stream)
    assert marked["type"] == "MODIFIED"
    assert marked["object"]["metadata"]["deletionGracePeriodSeconds"] == 0
    drop_finalizers(cluster, "map")
    assert names_in(stream, 1)[0][0] == "DELETED"


def test_a_deletion_can_be_of_one_uid_only(cluster: Cluster) -> None:
    create_job(cluster, job())
    options = {"preconditions": {"uid": "other"}, "propagationPolicy": "Background"}
    status = refused(cluster.batch.delete_namespaced_job, "build", cluster.namespace, body=options)
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert (
        "the UID in the precondition (other) does not match the UID in record" in status["message"]
    )


def test_a_policy_that_is_none_is_invalid(cluster: Cluster) -> None:
    create_job(cluster, job())
    status = refused(
        cluster.batch.delete_namespaced_job,
        "build",
        cluster.namespace,
        propagation_policy="Sideways",
    )
    assert (status["code"], status["reason"]) == (422, "Invalid")


def test_a_collection_is_deleted_by_its_selector(cluster: Cluster) -> None:
    for name, label in (("a", "1"), ("b", "2")):
        create_map(cluster, config_map(name, labels={"x": label}))
    cluster.core.delete_collection_namespaced_config_map(cluster.namespace, label_selector="x=1")
    wait_until_gone(cluster, "config_map", "a")
    assert cluster.core.read_namespaced_config_map("b", cluster.namespace).metadata.name == "b"


def test_a_pod_that_no_node_has_is_deleted_at_once(cluster: Cluster) -> None:
    cluster.core.create_namespaced_pod(cluster.namespace, pod())
    cluster.core.delete_namespaced_pod("pod", cluster.namespace)
    assert refused(cluster.core.read_namespaced_pod, "pod", cluster.namespace)["code"] == 404


# logs


def test_a_pod_that_no_node_has_yet_has_no_log(cluster: Cluster) -> None:
    cluster.core.create_namespaced_pod(cluster.namespace, pod())
    answer = cluster.core.read_namespaced_pod_log(
        "pod", cluster.namespace, follow=True, _preload_content=False
    )
    assert (answer.status, answer.data) == (204, b"")


def test_of_several_containers_one_is_to_be_named(cluster: Cluster) -> None:
    two = [container(), container(name="side")]
    cluster.core.create_namespaced_pod(cluster.namespace, pod(containers=two))
    read = cluster.core.read_namespaced_pod_log
    message = "a container name must be specified for pod pod, choose one of: [main side]"
    assert refused(read, "pod", cluster.namespace)["message"] == message
    other = refused(read, "pod", cluster.namespace, container="other")
    assert (other["code"], other["message"]) == (400, "container other is not valid for pod pod")


# what the server says of itself


def test_the_server_tells_its_version_and_what_it_serves(cluster: Cluster) -> None:
    version: Any = client.VersionApi(cluster.api).get_code()
    assert version.git_version.startswith("v1.")
    assert "v1" in client.CoreApi(cluster.api).get_api_versions().versions
    groups: Any = client.ApisApi(cluster.api).get_api_versions()
    assert {"batch", "authorization.k8s.io"} <= {group.name for group in groups.groups}
    served = {
        entry.name: entry for entry in client.BatchV1Api(cluster.api).get_api_resources().resources
    }
    assert served["jobs"].namespaced
    assert "watch" in served["jobs"].verbs
    assert {"jobs", "jobs/status"} <= set(served)

"""What Kubernetes fills in of its own when an object is created.

https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/v1/defaults.go and
…/apis/batch/v1/defaults.go
"""

import base64
import copy
import secrets
import uuid
from collections.abc import Callable

from kubernetes_server import clock
from kubernetes_server.resources import EVENTS, JOBS, NAMESPACES, PODS, QUOTAS, SECRETS, Resource
from kubernetes_server.status import Object

_SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated names: none from which a word could come."""


def random_suffix() -> str:
    """What follows `generateName`."""
    return "".join(secrets.choice(_SAFE) for _ in range(5))


def prepare(resource: Resource, created: Object) -> Object:
    """A copy of a new object with its defaults, and with the metadata that only the server sets."""
    prepared = copy.deepcopy(created)
    metadata = prepared.setdefault("metadata", {})
    for key in (
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "generation",
    ):
        metadata.pop(key, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"][:58] + random_suffix()
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = clock.now()
    if resource in (JOBS, PODS):
        metadata["generation"] = 1
    default(resource, prepared)
    if resource in _ON_CREATION:
        _ON_CREATION[resource](prepared)
    return prepared


def default(resource: Resource, changed: Object) -> None:
    """Fill in the defaults, in place: also those of an update that left a field out."""
    if resource in _DEFAULTS:
        _DEFAULTS[resource](changed)


def _job(job: Object) -> None:
    spec = job.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 2147483647 if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault(
        "podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    )
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    _pod_spec(template.setdefault("spec", {}))
    labels = template["metadata"].get("labels")
    if labels and "labels" not in job["metadata"]:
        job["metadata"]["labels"] = dict(labels)


def _select_own_pods(job: Object) -> None:
    """The labels by which a Job knows its pods;
    https://kubernetes.io/docs/concepts/workloads/controllers/job/.
    """
    job["status"] = {}
    spec, metadata = job["spec"], job["metadata"]
    if spec["manualSelector"]:
        return
    labels = spec["template"]["metadata"].setdefault("labels", {})
    for prefix in ("batch.kubernetes.io/", ""):
        labels.setdefault(f"{prefix}controller-uid", metadata["uid"])
        labels.setdefault(f"{prefix}job-name", metadata.get("name", ""))
    spec.setdefault(
        "selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": metadata["uid"]}}
    )
    # What is read from etcd gets its defaults once more, and by then the template has labels.
    metadata["labels"] = metadata.get("labels") or dict(labels)


def _pod(pod: Object) -> None:
    spec = pod.setdefault("spec", {})
    _pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for container in spec.get("containers", []) + spec.get("initContainers", []):
        resources = container.setdefault("resources", {})
        if "limits" in resources:
            resources["requests"] = resources["limits"] | resources.get("requests", {})


def _new_pod(pod: Object) -> None:
    # The ServiceAccount and DefaultTolerationSeconds admission plugins.
    pod["spec"].setdefault("serviceAccountName", "default")
    pod["spec"].setdefault("serviceAccount", pod["spec"]["serviceAccountName"])
    pod["spec"].setdefault("priority", 0)
    pod["spec"].setdefault("preemptionPolicy", "PreemptLowerPriority")
    pod["status"] = {"phase": "Pending", "qosClass": _quality_of_service(pod["spec"])}


def _pod_spec(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in spec.get("containers", []) + spec.get("initContainers", []):
        _container(container)
    for volume in spec.get("volumes", []):
        _volume(volume)


def _container(container: Object) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    if "image" in container:
        last = container["image"].rpartition("/")[2]
        latest = "@" not in last and last.partition(":")[2] in ("", "latest")
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", []):
        if "fieldRef" in variable.get("valueFrom", {}):
            variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")


def _volume(volume: Object) -> None:
    if not any(source in volume for source in volume if source != "name"):
        volume["emptyDir"] = {}
    for source in ("secret", "configMap", "downwardAPI", "projected"):
        if source in volume:
            volume[source].setdefault("defaultMode", 0o644)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    for source in volume.get("projected", {}).get("sources", []):
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)


def _quality_of_service(spec: Object) -> str:
    """https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/"""
    resources = [container["resources"] for container in spec.get("containers", [])]
    if not any(one.get("requests") or one.get("limits") for one in resources):
        return "BestEffort"
    full = all(
        {"cpu", "memory"} <= set(one.get("limits", {})) and one["limits"] == one["requests"]
        for one in resources
    )
    return "Guaranteed" if full else "Burstable"


def _secret(secret: Object) -> None:
    """Text of `stringData` goes into `data`; nobody can read `stringData`."""
    for key, text in secret.pop("stringData", {}).items():
        secret.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()
    secret.setdefault("type", "Opaque")


def _namespace(namespace: Object) -> None:
    metadata = namespace["metadata"]
    metadata["labels"] = metadata.get("labels", {}) | {
        "kubernetes.io/metadata.name": metadata.get("name", "")
    }
    namespace["spec"] = {"finalizers": ["kubernetes"]}
    namespace.setdefault("status", {"phase": "Active"})


def _event(event: Object) -> None:
    event.setdefault("source", {})
    event.setdefault("reportingComponent", "")
    event.setdefault("reportingInstance", "")


def _quota(quota: Object) -> None:
    """What the quota controller writes: that it enforces the quota."""
    quota["status"] = {"hard": quota.get("spec", {}).get("hard", {})}


_DEFAULTS: dict[Resource, Callable[[Object], None]] = {
    EVENTS: _event,
    JOBS: _job,
    NAMESPACES: _namespace,
    PODS: _pod,
    QUOTAS: _quota,
    SECRETS: _secret,
}
_ON_CREATION: dict[Resource, Callable[[Object], None]] = {JOBS: _select_own_pods, PODS: _new_pod}

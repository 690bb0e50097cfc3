"""Why a Job does not go on, or has failed, from what Kubernetes shows of it: Job, pods and events,
and Kaniko's log.

States and reasons: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and, for what
takes a pod away from outside,
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions. The texts
are those of Kubernetes 1.27 to 1.36.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imagemill.builders.engine_failures import NO_SUCH_IMAGE
from imagemill.builders.kaniko import executor_log
from imagemill.builders.kaniko.api_errors import admission
from imagemill.builders.kaniko.context_access import without_signatures
from imagemill.builders.kaniko.job import BUILD_ID, DEFAULT_CONTAINER
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    TransientError,
    UserError,
)
from imagemill.place import machine
from imagemill.text import shortened

Object = Mapping[str, Any]

NO_POD = 60.0
"""Seconds for which a Job may be without a pod, and without a reason for that."""

CREATING = 30.0
"""Seconds for which the Job's controller may try again to make a pod, where the reason is none that
is known to stay: several that count against one quota get in each other's way, for example."""

PULLING = 60.0
"""Seconds for which the kubelet may try again to pull an image, where the registry does not answer.

After that the build fails for good: the kubelet's tries are the retries, and a Job for each try of
ours would begin them anew (docs/adr/0011).
"""

MISSING = 3.0
"""Seconds for which a Secret or ConfigMap may be missing: some are made by others, and the kubelet
may lag behind.
"""

DELETED = 5.0
"""Seconds for which nothing may say why a pod is deleted: if the Job's controller did it, the Job
says so soon.
"""

STARTING = 60.0
"""Seconds for which a container may wait for a reason that nobody here knows."""

MOUNTING = 120.0
"""Seconds for which a volume may fail to be mounted, as they do while they are attached to a
node, or the pod's network to be made.
"""

_PULL_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_START_REASONS = frozenset(
    {
        "CreateContainerError",
        "RunContainerError",
        "StartError",
        "ContainerCannotRun",
        "CrashLoopBackOff",
    }
)
_ON_ITS_WAY = frozenset({"ContainerCreating", "PodInitializing", "CreateContainerConfigError"})
"""Reasons for which the containers of any pod wait; for the last one see `_missing`."""

_UNPREPARED = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
"""Reasons of events that say why the node cannot make the pod, before all of its containers."""
_NO_LOGIN = re.compile(
    r"unauthorized|denied|forbidden|authentication required|no basic auth|\b40[13]\b", re.IGNORECASE
)
_WRONG_PLATFORM = re.compile(r"no match for platform|exec format error", re.IGNORECASE)
_REGISTRY_AWAY = re.compile(
    r"i/o timeout|connection (?:refused|reset)|TLS handshake timeout|no such host|toomanyrequests|too many requests"
    r"|\b429\b|\b50[0234]\b|deadline exceeded|unexpected EOF|network is unreachable|no route to host",
    re.IGNORECASE,
)
_PULL_FAILED = re.compile(r"Failed to pull image \"(?P<image>[^\"]+)\": (?P<said>.*)", re.DOTALL)
_BACK_OFF = re.compile(r"Back-off pulling image \"[^\"]*\"(?:: )?(?P<said>.*)", re.DOTALL)
_MISSING = re.compile(
    r"\b(?P<kind>secret|configmap|persistentvolumeclaim)s? \"(?P<name>[^\"]+)\" not found"
    r"|couldn't find key (?P<key>\S+) in (?P<holder>Secret|ConfigMap) (?:\S*/)?(?P<keyed>[^\s/]+)"
    r"|references non-existent (?P<which>secret|config) key: (?P<path>\S+)",
    re.IGNORECASE,
)
_OWN_STORAGE = re.compile(
    r"exceeds the (?:total )?limit|exceeded its local ephemeral storage limit", re.IGNORECASE
)

_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted: its node was needed for more important pods",
    "DeletionByTaintManager": "lost with its node, which does not answer or must not run it any more",
    "DeletionByPodGC": "lost with its node, which is not in the cluster any more",
    "EvictionByEvictionAPI": "evicted: its node is being emptied",
    "TerminationByKubelet": "evicted by its node",
}
_POD_REASONS = {
    "Evicted": "evicted by its node",
    "NodeLost": "lost with its node",
    "NodeShutdown": "stopped, since its node is shut down",
    "Shutdown": "stopped, since its node is shut down",
    "Terminated": "stopped, since its node is shut down",
    "Preempting": "preempted on its node",
    "Preempted": "preempted on its node",
    "OutOfcpu": "refused by its node, which had no processor left",
    "OutOfmemory": "refused by its node, which had no memory left",
    "OutOfpods": "refused by its node, which had no room left for pods",
    "NodeAffinity": "refused by its node, whose labels have changed",
    "UnexpectedAdmissionError": "refused by its node",
}


@dataclass(frozen=True)
class Trouble:
    """What keeps a Job from going on. It may pass, for `patience` seconds; then it is the build's
    failure.
    """

    kind: str
    error: ImagemillError
    patience: float = 0.0

    @property
    def is_told(self) -> bool:
        """Whether it is worth a line of the log while there is patience: not what every pod goes
        through.
        """
        return self.patience > 0 and self.kind not in ("no pod", "deletion")


@dataclass(frozen=True)
class PodEvidence:
    """What is known of a Job that has not ended well."""

    job: Object
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()
    """Warnings about the Job and its pods, the latest last."""
    log: Sequence[str] = ()
    """The last lines of the executor's log."""
    image: str = ""
    """What was to be pushed."""
    ours: Collection[str] = ()
    """Names of Secrets that the build itself makes, which may come after the pod."""
    scheduling_timeout: float = 300.0
    build_id: str = ""
    """The build that asks, which need not be the one that began the Job."""
    own_deadline: int | None = None
    """The `activeDeadlineSeconds` of the config, if it has one."""

    @property
    def pod(self) -> Object | None:
        """The latest pod."""
        return self.pods[-1] if self.pods else None

    def warnings(self, *reasons: str) -> list[tuple[str, str]]:
        """Return reason and message of the events with one of these reasons, the latest first."""
        return [
            (str(event.get("reason")), str(event.get("message") or ""))
            for event in reversed(self.events)
            if event.get("reason") in reasons
        ]

    def said(self, *reasons: str) -> list[str]:
        """Return the messages of the events with one of these reasons, the latest first."""
        return [message for _, message in self.warnings(*reasons)]


def executor_state(pod: Object) -> Object:
    """Return the state of the container that runs Kaniko: `running`, `waiting` or `terminated`, or
    none yet.
    """
    name = executor_of(pod)["name"]
    for status in pod.get("status", {}).get("containerStatuses") or ():
        if status["name"] == name:
            state: Object = status.get("state") or {}
            return state
    return {}


def executor_of(pod: Object) -> Object:
    """Return the container that runs Kaniko, as the pod describes it."""
    containers: Sequence[Object] = pod["spec"]["containers"]
    name = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    return next((container for container in containers if container["name"] == name), containers[0])


def has_failed(job: Object, pods: Sequence[Object]) -> bool:
    """Whether the Job has failed, or is bound to: it runs once, so its pod's end is its own."""
    if holding(job, "Failed") or holding(job, "FailureTarget"):
        return True
    return any(
        pod.get("status", {}).get("phase") == "Failed" or _terminated(pod).get("exitCode")
        for pod in pods
        if not _is_deleted(pod)
    )


def is_complete(job: Object) -> bool:
    """Whether the Job has succeeded."""
    return bool(holding(job, "Complete") or holding(job, "SuccessCriteriaMet"))


def is_out_of_memory(pods: Sequence[Object]) -> bool:
    """Whether the executor was killed because it needed more memory than it may use."""
    return (
        bool(pods)
        and _disruption(pods[-1]) is None
        and _terminated(pods[-1]).get("reason") == "OOMKilled"
    )


def memory_limit(pod: Object) -> str | None:
    """Return the executor's limit, as a Kubernetes quantity."""
    return _memory_of(pod, "limits")


def memory_request(pod: Object) -> str | None:
    """Return what the executor asks its node for; without a word of its own it is its limit."""
    return _memory_of(pod, "requests") or memory_limit(pod)


def _memory_of(pod: Object, kind: str) -> str | None:
    amount = ((executor_of(pod).get("resources") or {}).get(kind) or {}).get("memory")
    return None if amount is None else str(amount)


def trouble(evidence: PodEvidence) -> Trouble | None:
    """Return what keeps a Job that has not ended from going on; None while all is well."""
    pod = evidence.pod
    if pod is None:
        return _no_pod(evidence)
    if error := _disruption(pod):
        return (
            Trouble("deletion", error, DELETED)
            if _is_deleted(pod)
            else Trouble("disruption", error)
        )
    for rule in (_missing, _image, _start, _unprepared, _scheduling):
        if found := rule(evidence, pod):
            return found
    return None


def failure(evidence: PodEvidence) -> ImagemillError:
    """Why a Job has failed."""
    reasons = {holding(evidence.job, kind).get("reason") for kind in ("Failed", "FailureTarget")}
    if evidence.pod is not None:
        reasons.add(evidence.pod.get("status", {}).get("reason"))
    if "DeadlineExceeded" in reasons:
        return _out_of_time(evidence)
    pod = evidence.pod
    if pod is None:
        return TransientError(
            "The build's pod vanished, and its Job failed", "see who deletes pods in the namespace"
        )
    for rule in _FAILURES:
        if error := rule(evidence, pod):
            return error
    return TransientError(
        f"The build's pod {_name(pod)} failed without a reason", "see the events of the namespace"
    )


def tag_is_kept(evidence: PodEvidence) -> bool:
    """Whether a Job has failed since the registry has its image already, and does not let anybody
    change it.
    """
    return evidence.pod is not None and executor_log.tag_is_kept(
        _last_lines(evidence, evidence.pod)
    )


def _out_of_time(evidence: PodEvidence) -> ImagemillError:
    """Return the error for a Job whose time is up: the time of the build that began it, which
    another one may have adopted when it was almost over.
    """
    began = (evidence.job["metadata"].get("annotations") or {}).get(BUILD_ID, evidence.build_id)
    if began != evidence.build_id:
        return TransientError(
            f"The Job was begun by the build {began}, and Kubernetes ended it at that build's deadline",
            "it is tried again, with a Job of its own",
        )
    told = "The build ran out of time: Kubernetes ended its Job at the deadline"
    if evidence.own_deadline is not None and evidence.own_deadline == evidence.job["spec"].get(
        "activeDeadlineSeconds"
    ):
        return UserError(
            told,
            "see in the log what was slow, or raise activeDeadlineSeconds in builder.kaniko-config",
        )
    return UserError(
        told,
        "see in the log what was slow, or ask for more with --timeout, up to IMAGEMILL_BUILD_TIMEOUT",
    )


def holding(item: Object, kind: str) -> Object:
    """Return the condition of this type, if it holds."""
    for condition in item.get("status", {}).get("conditions") or ():
        if condition["type"] == kind and condition["status"] == "True":
            found: Object = condition
            return found
    return {}


def _no_pod(evidence: PodEvidence) -> Trouble | None:
    for said in evidence.said("FailedCreate"):
        if known := admission(said):
            return Trouble("creation", known)
        hint = f"see why the Job's controller cannot make pods: {_see_events(evidence)}"
        return Trouble(
            "no creation",
            OperatorError(f"The build's pod is refused: {shortened(said)}", hint),
            CREATING,
        )
    if evidence.job.get("spec", {}).get("suspend"):
        error = OperatorError(
            "The build's Job is suspended, by a queue or by hand",
            f"see the queue, and {_see_events(evidence)}",
        )
        return Trouble("suspended", error, evidence.scheduling_timeout)
    error = OperatorError(
        f"The build's Job got no pod within {NO_POD:.0f} s",
        f"{_see_events(evidence)}; with permission to watch events, {machine()} says why itself",
    )
    return Trouble("no pod", error, NO_POD)


def _see_events(evidence: PodEvidence, item: Object | None = None) -> str:
    """Return the command that shows the events of a Job, or of its pod, which stay for an hour when
    the Job itself is deleted.
    """
    namespace = evidence.job["metadata"].get("namespace", "default")
    name = _name(item or evidence.job)
    return f"kubectl get events -n {namespace} --field-selector involvedObject.name={name}"


def _disruption(pod: Object) -> ImagemillError | None:
    """Return what took the pod away from outside, which the next try may be spared."""
    what = "deleted by somebody" if _is_deleted(pod) else _taken(pod)
    if what is None:
        return None
    status, condition = pod.get("status", {}), holding(pod, "DisruptionTarget")
    told = shortened(str(status.get("message") or condition.get("message") or ""))
    if _OWN_STORAGE.search(told):
        return OperatorError(
            f"The build used more disk than it may: {told}",
            "raise resources.limits.ephemeral-storage of the container in builder.kaniko-config",
        )
    where = f" on {pod['spec']['nodeName']}" if pod["spec"].get("nodeName") else ""
    hint = "it is tried again; if it happens often, raise the build's requests or its priority in builder.kaniko-config"
    return TransientError(
        f"The build's pod {_name(pod)}{where} was {what}{told and f': {told}'}", hint
    )


def _taken(pod: Object) -> str | None:
    """Return what became of a pod that the cluster took away for a reason that it gives."""
    reason = str(pod.get("status", {}).get("reason"))
    if what := _DISRUPTIONS.get(
        str(holding(pod, "DisruptionTarget").get("reason"))
    ) or _POD_REASONS.get(reason):
        return what
    return (
        "lost with its node" if _terminated(pod).get("reason") == "ContainerStatusUnknown" else None
    )


def _is_deleted(pod: Object) -> bool:
    """Whether a pod that has not succeeded is deleted, and does not say why."""
    is_deleted = "deletionTimestamp" in pod["metadata"] and _terminated(pod).get("exitCode") != 0
    return is_deleted and _taken(pod) is None


def _scheduling(evidence: PodEvidence, pod: Object) -> Trouble | None:
    """Return why no node takes the pod, in the scheduler's own words."""
    if pod["spec"].get("nodeName"):
        return None
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = str(condition.get("message") or condition.get("reason"))
            if missing := _MISSING.search(said):
                return Trouble("missing", _absent(missing, said), MISSING)
            error = OperatorError(
                f"No node can run the build's pod {_name(pod)}: {shortened(said)}",
                f"{_wanted_nodes(pod)}lower the resources or widen node selectors and tolerations in"
                " builder.kaniko-config, or add nodes; builder.scheduling-timeout says how long to wait",
            )
            return Trouble("scheduling", error, evidence.scheduling_timeout)
    return None


def _wanted_nodes(pod: Object) -> str:
    """Which nodes the build's platform asks for, as the beginning of a hint."""
    architecture = (pod["spec"].get("nodeSelector") or {}).get("kubernetes.io/arch")
    return f"the build's platform needs a node that is {architecture}; " if architecture else ""


def _waiting(pod: Object) -> Iterator[tuple[Object, str, str]]:
    """Yield the containers that wait: their status, the reason, and the message."""
    status = pod.get("status", {})
    for container in (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ):
        if waiting := (container.get("state") or {}).get("waiting"):
            yield container, str(waiting.get("reason")), str(waiting.get("message") or "")


def _image(evidence: PodEvidence, pod: Object) -> Trouble | None:
    for container, reason, message in _waiting(pod):
        if reason in _PULL_REASONS:
            return _pull(
                str(container.get("image")), reason, _registry_said(evidence, reason, message)
            )
    return None


def _registry_said(evidence: PodEvidence, reason: str, message: str) -> str:
    """Return the registry's words. While the kubelet waits for its next try, older ones have them
    in an event only.
    """
    if found := _BACK_OFF.search(message):
        message = found["said"]
    if message:
        return message
    for said in evidence.said("Failed"):
        if found := _PULL_FAILED.search(said):
            return found["said"]
    return reason


def _pull(image: str, reason: str, said: str) -> Trouble:
    told = f"The image {image} cannot be pulled: {shortened(said)}"
    if reason == "InvalidImageName":
        return Trouble("image", OperatorError(told, "mend the image's name in the launch config"))
    if _NO_LOGIN.search(said):
        hint = "name a Secret with the registry's login under imagePullSecrets in builder.kaniko-config"
        return Trouble("image", PermissionDenied(told, hint, "pull", image))
    if _WRONG_PLATFORM.search(said) or NO_SUCH_IMAGE.search(said):
        hint = "check builder.kaniko-image and the images in builder.kaniko-config, and that the nodes can reach them"
        return Trouble("image", OperatorError(told, hint))
    if _REGISTRY_AWAY.search(said) or reason == "ImagePullBackOff":
        host = image.partition("/")[0] if "." in image.partition("/")[0] else "Docker Hub"
        hint = (
            f"check the name of the image's host, {host}, and that the nodes can reach it;"
            " or mirror the image (builder.kaniko-image)"
        )
        return Trouble("image", OperatorError(told, hint), PULLING)
    return Trouble(
        "image", OperatorError(told, "see the kubelet's events: kubectl get events"), PULLING
    )


def _missing(evidence: PodEvidence, pod: Object) -> Trouble | None:
    """Return the trouble where the cluster lacks a Secret, ConfigMap or key that the pod refers
    to; its volumes' faults are in events only.
    """
    told = [
        message for _, reason, message in _waiting(pod) if reason == "CreateContainerConfigError"
    ]
    if not is_made(pod):
        told += evidence.said("FailedMount")
    for said in told:
        found = _MISSING.search(said)
        if found and (found["name"] or found["keyed"]) not in evidence.ours:
            return Trouble("missing", _absent(found, said), MISSING)
    if config := [
        message for _, reason, message in _waiting(pod) if reason == "CreateContainerConfigError"
    ]:
        return _config_fault(config[0], evidence.ours)
    return None


def _absent(found: re.Match[str], said: str) -> ImagemillError:
    hint = f"create it in {machine()}'s namespace, or mend builder.secret-name or builder.kaniko-config"
    if found["name"]:
        kind = {"secret": "Secret", "configmap": "ConfigMap"}.get(
            found["kind"].lower(), "PersistentVolumeClaim"
        )
        return OperatorError(
            f"The {kind} {found['name']} that the build needs does not exist", hint
        )
    if found["key"]:
        return OperatorError(
            f"The {found['holder']} {found['keyed']} has no key {found['key']}, which the build needs",
            hint,
        )
    return OperatorError(
        f"A Secret or ConfigMap that the build needs lacks a key: {shortened(said)}", hint
    )


def _config_fault(said: str, ours: Collection[str]) -> Trouble | None:
    found = _MISSING.search(said)
    if found and (found["name"] or found["keyed"]) in ours:
        return None
    error = OperatorError(
        f"The build's container cannot be configured: {shortened(said)}",
        "mend builder.kaniko-config",
    )
    return Trouble("configuration", error)


def _start(evidence: PodEvidence, pod: Object) -> Trouble | None:
    for container, reason, message in _waiting(pod):
        if reason in _START_REASONS:
            return Trouble("start", _cannot_start(str(container.get("name")), message or reason))
        if reason not in _ON_ITS_WAY:
            error = _cannot_start(str(container.get("name")), f"{reason}: {message}")
            return Trouble("waiting", error, STARTING)
    return None


def _cannot_start(container: str, said: str) -> ImagemillError:
    return OperatorError(
        f"The build's container {container} cannot be started: {shortened(said)}",
        "check builder.kaniko-image and builder.kaniko-config: command, mounts, security context, platform",
    )


def _unprepared(evidence: PodEvidence, pod: Object) -> Trouble | None:
    """Return why the node has not made the pod: a volume or the network is missing. Of what it has
    made the warnings are old.
    """
    if is_made(pod):
        return None
    for reason, said in evidence.warnings(*_UNPREPARED):
        found = _MISSING.search(said)
        if found and found["name"] in evidence.ours:
            continue
        if reason == "FailedCreatePodSandBox":
            told = f"The node cannot make the build's pod {_name(pod)}: {shortened(said)}"
            hint = f"see the node's network and runtime: {_see_events(evidence, pod)}"
        else:
            told = f"A volume of the build cannot be mounted: {shortened(said)}"
            hint = "see the volumes in builder.kaniko-config, and builder.context-volume-claim"
        return Trouble("mount", OperatorError(told, hint), MOUNTING)
    return None


def is_made(pod: Object) -> bool:
    """Whether the pod has its volumes and its network, so that only its containers are to begin."""
    return has_started(pod) or bool(holding(pod, "PodReadyToStartContainers"))


def has_started(pod: Object) -> bool:
    """Whether the executor runs, or has run."""
    return not {"running", "terminated"}.isdisjoint(executor_state(pod))


def _terminated(pod: Object) -> Object:
    terminated: Object = executor_state(pod).get("terminated") or {}
    return terminated


def _taken_away(_: PodEvidence, pod: Object) -> ImagemillError | None:
    return _disruption(pod)


def _init_container(_: PodEvidence, pod: Object) -> ImagemillError | None:
    """Return which init container failed. Where the executor has begun none did: one that runs
    beside it ends after it, as it may.
    """
    if has_started(pod):
        return None
    for status in pod.get("status", {}).get("initContainerStatuses") or ():
        terminated = (status.get("state") or {}).get("terminated") or {}
        if terminated.get("exitCode"):
            why = terminated.get("message") or terminated.get("reason")
            return OperatorError(
                f"The init container {status['name']} of the build failed with exit code {terminated['exitCode']}:"
                f" {shortened(str(why))}",
                f"kubectl logs {_name(pod)} -c {status['name']}",
            )
    return None


def _memory(_: PodEvidence, pod: Object) -> ImagemillError | None:
    if _terminated(pod).get("reason") != "OOMKilled":
        return None
    limit = memory_limit(pod)
    allowed = (
        f"more memory than its limit of {limit}"
        if limit
        else "more memory than its node has, as it has no limit"
    )
    if limit and limit != memory_request(pod):
        allowed += ", or than its node had left"
    return OperatorError(
        f"The build was killed (OOMKilled): it needs {allowed}",
        "raise resources.limits.memory of the container in builder.kaniko-config, and builder.memory-ceiling",
    )


def _container_start(_: PodEvidence, pod: Object) -> ImagemillError | None:
    terminated = _terminated(pod)
    if terminated.get("reason") not in _START_REASONS:
        return None
    return _cannot_start(
        str(executor_of(pod)["name"]), str(terminated.get("message") or terminated["reason"])
    )


def _own_failure(evidence: PodEvidence, pod: Object) -> ImagemillError | None:
    """Return what Kaniko itself said; its log may be lost, and then the end of it is in the pod."""
    code = _terminated(pod).get("exitCode")
    if not code:
        return None
    return executor_log.explain(_last_lines(evidence, pod), int(code), evidence.image)


def _last_lines(evidence: PodEvidence, pod: Object) -> Sequence[str]:
    said = without_signatures(str(_terminated(pod).get("message") or ""))
    return evidence.log or said.splitlines()


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


_FAILURES: tuple[Callable[[PodEvidence, Object], ImagemillError | None], ...] = (
    _taken_away,
    _init_container,
    _memory,
    _container_start,
    _own_failure,
)

"""Plays what becomes of Jobs' pods through the API of a cluster, with the methods by which
KubernetesServer is played.

The pods are for a scheduler that does not exist, so that no node runs them: their states are
written in their kubelet's place. Their Jobs are the cluster's own controller's, which draws its own
conclusions; so where the API server of the tests is told what becomes of a Job, here that is waited
for. What an API cannot be made to do from outside, break a connection or hand out a log without a
node, is not here: tests that need it are `own_server`'s.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, watch

from builds import until
from clusters import Cluster, fresh_namespace, real_cluster

Object = dict[str, Any]

NOBODY: Object = {"spec": {"template": {"spec": {"schedulerName": "nobody"}}}}
"""The part of a Job that keeps its pods from being run."""

HOLD = "tests.example.com/hold"
"""A finalizer, by which a pod stays `Terminating`."""

_MERGE = "application/merge-patch+json"
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""What of a kubeconfig is a path."""

_ENDS = ("Complete", "Failed")
_PATIENCE = 60.0


def own_server(why: str) -> pytest.MarkDecorator:
    """Mark a test that only the API server of the tests can be played for: a real cluster leaves it
    out.
    """
    reason = f"not on a real cluster: {why}"
    return pytest.mark.skipif(real_cluster() is not None, reason=reason)


@contextmanager
def api_player(kubeconfig: Path, folder: Path) -> Iterator["ApiPlayer"]:
    """A player of a namespace of its own."""
    with fresh_namespace(kubeconfig) as cluster:
        yield ApiPlayer(cluster, kubeconfig_of(cluster, folder / "kubeconfig.yaml"))


class ApiPlayer:
    """What becomes of the Jobs and pods of one namespace. A Job or pod is given by its name, or as
    the object itself.

    What is returned is as it was just after the call; the cluster may have gone on since.
    """

    def __init__(self, cluster: Cluster, kubeconfig: Path) -> None:
        self.kubeconfig, self.namespace = kubeconfig, cluster.namespace
        self._core, self._batch = cluster.core, cluster.batch

    def jobs(self) -> list[Object]:
        """The Jobs of the namespace."""
        return _items(self._ask(self._batch.list_namespaced_job), "Job", "batch/v1")

    def job(self, name: str | Object) -> Object:
        """The Job as it is now."""
        return self._ask(self._batch.read_namespaced_job, _name(name))

    def pods(self, job: str | Object) -> list[Object]:
        """The pods of a Job, in the order in which they were created."""
        selector = f"batch.kubernetes.io/job-name={_name(job)}"
        pods = _items(
            self._ask(self._core.list_namespaced_pod, label_selector=selector), "Pod", "v1"
        )
        return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def pod(self, name: str | Object) -> Object:
        """The pod as it is now."""
        return self._ask(self._core.read_namespaced_pod, _name(name))

    def start_pod(self, job: str | Object) -> Object:
        """The pod that the Job's controller has created, once it is there."""
        assert until(lambda: bool(self.pods(job)), _PATIENCE), f"{_name(job)} got no pod"
        return self.pods(job)[-1]

    def schedule_pod(self, pod: str | Object) -> Object:
        """The pod's containers are being created, as on a node; it has none."""
        return self.wait_in(pod, "ContainerCreating")

    def run_pod(self, pod: str | Object) -> Object:
        """Let the pod's containers run."""
        state = {"running": {"startedAt": _now()}}
        conditions = [
            _condition(kind, "True") for kind in ("PodScheduled", "ContainersReady", "Ready")
        ]
        return self._containers(
            pod, state, phase="Running", startTime=_now(), conditions=conditions
        )

    def wait_in(self, pod: str | Object, reason: str, message: str = "") -> Object:
        """The pod's containers wait: `ImagePullBackOff`, `CreateContainerConfigError` …"""
        state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        return self._containers(pod, state, conditions=[_condition("PodScheduled", "True")])

    def unschedulable(self, pod: str | Object, message: str) -> Object:
        """The scheduler has found no node: the pod's condition and event."""
        self.event(self.pod(pod), "FailedScheduling", message, "Warning")
        condition = _condition("PodScheduled", "False") | {
            "reason": "Unschedulable",
            "message": message,
        }
        return self.pod_status(pod, {"conditions": [condition]})

    def pod_status(self, pod: str | Object, patch: Object) -> Object:
        """Merge into the pod's status (RFC 7396: lists are replaced)."""
        body = {"status": patch}
        return self._ask(
            self._core.patch_namespaced_pod_status, _name(pod), body=body, _content_type=_MERGE
        )

    def event(self, involved: Object, reason: str, message: str, type: str = "Normal") -> Object:
        """An event about an object, as the kubelet, the scheduler or a controller records it."""
        metadata = involved["metadata"]
        about = {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")}
        event = {
            "metadata": {"generateName": f"{metadata['name']}."},
            "involvedObject": about | {key: involved[key] for key in ("kind", "apiVersion")},
            "reason": reason,
            "message": message,
            "type": type,
            "source": {"component": "tests"},
            "firstTimestamp": _now(),
            "lastTimestamp": _now(),
            "count": 1,
        }
        return self._ask(self._core.create_namespaced_event, body=event)

    def log(self, pod: str | Object, lines: list[str]) -> None:
        """Nothing, if there are no lines: without a node there is no log."""
        if lines:
            raise NotImplementedError(
                "a pod that no node runs has no log: mark the test with own_server"
            )

    def finish_pod(
        self, pod: str | Object, exit_code: int = 0, message: str = "", reason: str = ""
    ) -> Object:
        """End a pod's containers."""
        ended = {"exitCode": exit_code, "reason": reason or ("Error" if exit_code else "Completed")}
        ended |= {"startedAt": _now(), "finishedAt": _now()} | (
            {"message": message} if message else {}
        )
        return self._containers(
            pod, {"terminated": ended}, phase="Failed" if exit_code else "Succeeded"
        )

    def finish(
        self, job: str | Object, exit_code: int = 0, message: str = "", reason: str = ""
    ) -> Object:
        """End the containers of the Job's newest pod; returns the Job, once its controller has
        drawn its conclusions.

        `message` is the termination message. `reason` is `OOMKilled`, or what the exit code says.
        """
        before = self.job(job)
        self.finish_pod(self.start_pod(job), exit_code, message, reason)
        return self._concluded(before)

    def fail_job(self, job: str | Object, reason: str = "BackoffLimitExceeded") -> Object:
        """Have the Job's controller give it up: it does by itself where a pod has failed, or for
        `DeadlineExceeded`.
        """
        before = self.job(job)
        if reason == "DeadlineExceeded":
            body = {"spec": {"activeDeadlineSeconds": 1}}
            self._ask(self._batch.patch_namespaced_job, _name(job), body=body, _content_type=_MERGE)
        return self._concluded(before)

    def delete_pod(self, pod: str | Object) -> None:
        """The pod is gone, as when its node is removed; no kubelet ends it first."""
        self._ask(self._core.delete_namespaced_pod, _name(pod), grace_period_seconds=0)
        self._wait_until_gone(self.pod, pod)

    def expire_job(self, job: str | Object) -> None:
        """Delete the Job as the TTL controller does, with its pods and its Secrets."""
        self._ask(self._batch.delete_namespaced_job, _name(job), propagation_policy="Foreground")
        self._wait_until_gone(self.job, job)

    def keep_terminating(self, kept: bool = True) -> None:
        """Whether the pods that there are now stay `Terminating` when they are deleted, as on a
        node that is lost.
        """
        for pod in self._ask(self._core.list_namespaced_pod)["items"]:
            held = partial(self._hold, _name(pod), kept)
            assert until(held, _PATIENCE), f"the finalizers of {_name(pod)} change all the time"

    def _hold(self, pod: str, kept: bool) -> bool:
        """Whether the pod's finalizers could be changed: not if the Jobs' controller has changed
        them meanwhile.
        """
        metadata = self._ask(self._core.read_namespaced_pod, pod)["metadata"]
        others = [name for name in metadata.get("finalizers", []) if name != HOLD]
        finalizers = [*others, HOLD] if kept else others
        changed = {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}
        try:
            self._ask(
                self._core.patch_namespaced_pod,
                pod,
                body={"metadata": changed},
                _content_type=_MERGE,
            )
        except client.ApiException as error:
            if error.status != 409:
                raise
            return False
        return True

    def set_quota(self, name: str, hard: dict[str, int]) -> None:
        """A ResourceQuota that counts: how many there may be of `pods`, `count/jobs.batch` and the
        like.
        """
        quota = {
            "metadata": {"name": name},
            "spec": {"hard": {key: str(count) for key, count in hard.items()}},
        }
        self._ask(self._core.create_namespaced_resource_quota, body=quota)

        def counts() -> bool:
            return "used" in self._ask(self._core.read_namespaced_resource_quota, name).get(
                "status", {}
            )

        assert until(counts, _PATIENCE), f"the quota {name} does not count"

    def _containers(self, pod: str | Object, state: Object, **status: Any) -> Object:
        """The same state for all containers, and more of the pod's status."""
        runs = "running" in state
        statuses = [
            {key: container[key] for key in ("name", "image")}
            | {
                "imageID": "",
                "ready": runs,
                "started": runs,
                "restartCount": 0,
                "state": state,
                "lastState": {},
            }
            for container in self.pod(pod)["spec"]["containers"]
        ]
        return self.pod_status(pod, status | {"containerStatuses": statuses})

    def _concluded(self, job: Object) -> Object:
        """The Job, from this state on, once it has ended; or its last state, if it was deleted
        meanwhile.
        """
        metadata = job["metadata"]
        watching: Any = watch.Watch()  # type: ignore[no-untyped-call]
        stream = watching.stream(
            self._batch.list_namespaced_job,
            self.namespace,
            field_selector=f"metadata.name={metadata['name']}",
            resource_version=metadata["resourceVersion"],
            timeout_seconds=int(_PATIENCE),
        )
        try:
            for event in stream:
                found: Object = event["raw_object"]
                if event["type"] == "DELETED" or _has_ended(found):
                    return found
        finally:
            stream.close()
        raise AssertionError(f"the Job {metadata['name']} has not ended")

    def _wait_until_gone(
        self, read: Callable[[str | Object], Object], doomed: str | Object
    ) -> None:
        def is_gone() -> bool:
            try:
                read(doomed)
            except client.ApiException as error:
                if error.status == 404:
                    return True
                raise
            return False

        assert until(is_gone, _PATIENCE), f"{_name(doomed)} is still there"

    def _ask(self, act: Callable[..., Any], *name: str, **options: Any) -> Object:
        """The answer as JSON: the client's models do not have it as the API writes it."""
        answer: Object = json.loads(
            act(*name, namespace=self.namespace, _preload_content=False, **options).data
        )
        return answer


def kubeconfig_of(cluster: Cluster, path: Path) -> Path:
    """A copy of the cluster's kubeconfig, in which the namespace is the default."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    parts = [each["cluster"] for each in config["clusters"]] + [
        each["user"] for each in config["users"]
    ]
    for part in parts:
        part |= {
            key: str(cluster.kubeconfig.resolve().parent / part[key])
            for key in _FILES
            if key in part
        }
    for each in config["contexts"]:
        each["context"]["namespace"] = cluster.namespace
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


def _has_ended(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(
        condition["type"] in _ENDS and condition["status"] == "True" for condition in conditions
    )


def _items(listed: Object, kind: str, api_version: str) -> list[Object]:
    """With what the items of a list leave unsaid."""
    return [{"kind": kind, "apiVersion": api_version, **item} for item in listed["items"]]


def _name(wanted: str | Object) -> str:
    return wanted if isinstance(wanted, str) else str(wanted["metadata"]["name"])


def _condition(kind: str, value: str) -> Object:
    return {"type": kind, "status": value, "lastTransitionTime": _now()}


def _now() -> str:
    """The time as metav1.Time has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The Jobs' controller at work by itself, as in a real cluster, for tests that reach a cluster
through its API alone.

It does what the reference says of Jobs that run one pod at a time; a pod that has failed is
replaced without a delay. https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

import asyncio
from datetime import UTC, datetime

from kubernetes_server import clock
from kubernetes_server.play import DEADLINE, Play
from kubernetes_server.resources import JOBS, PODS
from kubernetes_server.status import Object
from kubernetes_server.store import Change

TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a pod until its end has been counted; see #job-tracking-with-finalizers
there.
"""


class JobController(Play):
    """Acts on each change of a Job or its pods, a moment later; what has not been counted yet has
    the finalizer.
    """

    def _watch_jobs(self) -> None:
        self.store.subscribers.add(self._see)

    def _see(self, change: Change) -> None:
        if change.resource in (JOBS, PODS):
            metadata = change.object["metadata"]
            job = metadata.get("labels", {}).get("batch.kubernetes.io/job-name", metadata["name"])
            asyncio.get_running_loop().call_soon(self._sync, metadata["namespace"], job)

    def _sync(self, namespace: str, name: str) -> None:
        """Bring a Job one step further."""
        job = self.store.get(JOBS, namespace, name)
        pods = [
            pod
            for pod in self._pods(name, namespace)
            if TRACKING in pod["metadata"].get("finalizers", [])
        ]
        if job is None or "deletionTimestamp" in job["metadata"] or _has_finished(job):
            for pod in pods:
                self._release(pod)
        elif ended := next((pod for pod in pods if _has_ended(pod)), None):
            self._conclude(job, ended["status"]["phase"] == "Succeeded")
            self._release(ended)
        elif not job["spec"].get("suspend"):
            self._go_on(job, pods)

    def _go_on(self, job: Object, pods: list[Object]) -> None:
        if not pods:
            self._start_pod(job, [TRACKING])
            return
        counted = self._count(job, active=len(pods), ready=sum(map(_is_ready, pods)))
        deadline = job["spec"].get("activeDeadlineSeconds")
        if deadline is None:
            return
        left = (
            deadline
            - (datetime.now(UTC) - clock.parse(counted["status"]["startTime"])).total_seconds()
        )
        if left <= 0:
            for pod in pods:
                self._release(pod)
            self._give_up(counted, *DEADLINE)
        else:
            metadata = job["metadata"]
            asyncio.get_running_loop().call_later(
                left, self._sync, metadata["namespace"], metadata["name"]
            )

    def _release(self, pod: Object) -> None:
        """The pod is counted, and may go."""
        metadata = pod["metadata"]
        left = [name for name in metadata["finalizers"] if name != TRACKING]
        kept = {key: value for key, value in metadata.items() if key != "finalizers"}
        self.api.change(PODS, pod | {"metadata": kept | ({"finalizers": left} if left else {})})


def _has_finished(job: Object) -> bool:
    ends = ("Complete", "Failed")
    return any(
        one["type"] in ends and one["status"] == "True"
        for one in job["status"].get("conditions", [])
    )


def _has_ended(pod: Object) -> bool:
    """Whether the pod counts: with the default `podReplacementPolicy`, also one that is being
    deleted.
    """
    return (
        pod["status"]["phase"] in ("Succeeded", "Failed") or "deletionTimestamp" in pod["metadata"]
    )


def _is_ready(pod: Object) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True"
        for one in pod["status"].get("conditions", [])
    )

"""The rest of a cluster, played by the test: the Job controller, the scheduler and the kubelet.

Each call writes what they would write, through the same store, so that watches and logs show it.
"""

import time
from typing import Any

from kubernetes_server import clock, defaults, patches
from kubernetes_server.base import Running
from kubernetes_server.resources import EVENTS, JOBS, PODS, Resource
from kubernetes_server.status import Object
from kubernetes_server.validation import of_new

NODE = "node-1"
COMPLETE = ("CompletionsReached", "Reached expected number of succeeded pods")
FAILED = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")


class Play(Running):
    """What becomes of Jobs and pods. A Job or pod is given by its name, or as the object itself."""

    def jobs(self) -> list[Object]:
        """The Jobs of all namespaces."""
        return self._call(lambda: self.store.select(JOBS))

    def objects(self, resource: Resource) -> list[Object]:
        """All objects of a kind, of all namespaces."""
        return self._call(lambda: self.store.select(resource))

    def job(self, name: str | Object) -> Object:
        """The Job as it is now."""
        return self._call(lambda: self._now(JOBS, name))

    def pods(self, job: str | Object) -> list[Object]:
        """The pods of a Job, in the order in which they were created."""
        return self._call(lambda: self._pods(_name(job), _namespace(job, self.namespace)))

    def pod(self, name: str | Object) -> Object:
        """The pod as it is now."""
        return self._call(lambda: self._now(PODS, name))

    def start_pod(self, job: str | Object) -> Object:
        """Create the Job's pod, as the Job controller does: pending, on no node yet."""
        return self._call(lambda: self._start_pod(self._now(JOBS, job)))

    def run_pod(self, pod: str | Object, node: str = NODE) -> Object:
        """Put the pod on a node and let its containers run."""
        return self._call(lambda: self._run_pod(self._now(PODS, pod), node))

    def schedule_pod(self, pod: str | Object, node: str = NODE) -> Object:
        """Put the pod on a node; its containers are being created."""
        return self._call(lambda: self._schedule(self._now(PODS, pod), node))

    def pod_status(self, pod: str | Object, patch: Object) -> Object:
        """Merge into the pod's status (RFC 7396: lists are replaced)."""
        return self._call(lambda: self._patch_status(PODS, self._now(PODS, pod), patch))

    def wait_in(self, pod: str | Object, reason: str, message: str = "") -> Object:
        """The pod's containers wait on its node: `ImagePullBackOff`, `CreateContainerConfigError`
        …
        """
        state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        return self._call(
            lambda: self._containers(self._schedule(self._now(PODS, pod), NODE), state, ready=False)
        )

    def unschedulable(self, pod: str | Object, message: str) -> Object:
        """The scheduler has found no node: the pod's condition and event."""
        condition = _condition("PodScheduled", "False", "Unschedulable", message)

        def mark() -> Object:
            self._event(
                self._now(PODS, pod), "FailedScheduling", message, "Warning", "default-scheduler"
            )
            return self._patch_status(PODS, self._now(PODS, pod), {"conditions": [condition]})

        return self._call(mark)

    def log(self, pod: str | Object, lines: list[str], container: str = "") -> None:
        """Lines that a container writes; its pod runs from then on, if it did not."""

        def write() -> None:
            current = self._now(PODS, pod)
            if current["status"]["phase"] == "Pending":
                current = self._run_pod(current, NODE)
            name = container or current["spec"]["containers"][0]["name"]
            self.frontend.log(current["metadata"]["uid"], name).add(lines)

        self._call(write)

    def event(self, involved: Object, reason: str, message: str, type: str = "Normal") -> Object:
        """An event about an object, as the kubelet, the scheduler or a controller records it."""
        return self._call(lambda: self._event(involved, reason, message, type))

    def finish(
        self,
        job: str | Object,
        exit_code: int = 0,
        message: str = "",
        reason: str = "",
        pod: str | Object | None = None,
    ) -> Object:
        """End the containers of the Job's newest pod, and draw the Job controller's conclusions;
        returns the Job, in its last state if it was deleted meanwhile.

        `message` is the termination message. `reason` is `OOMKilled`, or what the exit code says.
        """
        current = self.job(job)
        ended = self._call(
            lambda: self._now(PODS, pod) if pod is not None else self._newest_pod(current)
        )
        self.finish_pod(ended, exit_code, message, reason)
        self._pause()

        def conclude() -> Object:
            left = self._left(JOBS, current)
            return current if left is None else self._conclude(left, exit_code == 0)

        return self._call(conclude)

    def finish_pod(
        self, pod: str | Object, exit_code: int = 0, message: str = "", reason: str = ""
    ) -> Object:
        """End a pod's containers, and then, as the kubelet does some time later, the pod; the Job
        controller has not seen it yet.

        Returns the pod, in its last state if it was deleted meanwhile.
        """
        ended = self._call(
            lambda: self._end_containers(self._now(PODS, pod), exit_code, message, reason)
        )
        self._pause()

        def end() -> Object:
            left = self._left(PODS, ended)
            phase = "Failed" if exit_code else "Succeeded"
            return ended if left is None else self._patch_status(PODS, left, {"phase": phase})

        return self._call(end)

    def _pause(self) -> None:
        """Let a moment pass in which others see what has happened so far, as they do in a real
        cluster: a container's end, its pod's and its Job's are a second or two apart there.
        """
        time.sleep(self.pace)

    def fail_job(self, job: str | Object, reason: str = FAILED[0], message: str = "") -> Object:
        """The Job controller gives the Job up (`DeadlineExceeded` …): it deletes what runs, then
        the Job is Failed.
        """

        def fail() -> Object:
            words = message or dict([FAILED, DEADLINE]).get(reason, reason)
            return self._give_up(self._now(JOBS, job), reason, words)

        return self._call(fail)

    def delete_pod(self, pod: str | Object) -> None:
        """The pod is gone at once, as when its node is removed; no kubelet ends it first."""

        def delete() -> None:
            self.store.remove(PODS, self._now(PODS, pod))

        self._call(delete)

    def expire_job(self, job: str | Object) -> None:
        """The TTL controller deletes a finished Job, its pods and its Secrets
        (`ttlSecondsAfterFinished`).
        """

        def expire() -> None:
            self.api.garbage.delete(JOBS, self._now(JOBS, job), "foregroundDeletion")
            self.api.garbage.collect()

        self._call(expire)

    # on the loop

    def _now(self, resource: Resource, wanted: str | Object) -> Object:
        found = self.store.get(resource, _namespace(wanted, self.namespace), _name(wanted))
        if found is None:
            raise LookupError(f"there is no {resource.kind} {_name(wanted)!r}")
        return found

    def _pods(self, job: str, namespace: str) -> list[Object]:
        """In the order of their creation, which is the store's own."""
        return [
            found
            for resource, found in self.store.everything()
            if resource == PODS
            and found["metadata"]["namespace"] == namespace
            and found["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name") == job
        ]

    def _newest_pod(self, job: Object) -> Object:
        pods = self._pods(job["metadata"]["name"], job["metadata"]["namespace"])
        return pods[-1] if pods else self._start_pod(job)

    def _active(self, job: Object) -> list[Object]:
        pods = self._pods(job["metadata"]["name"], job["metadata"]["namespace"])
        return [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]

    def _start_pod(self, job: Object, finalizers: list[str] | None = None) -> Object:
        template, metadata = job["spec"]["template"], job["metadata"]
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        pod: Object = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": template["metadata"]
            | {
                "generateName": f"{metadata['name']}-",
                "namespace": metadata["namespace"],
                "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
                "annotations": template["metadata"].get("annotations", {}),
                **({"finalizers": finalizers} if finalizers else {}),
            },
            "spec": template["spec"],
        }
        created = self.api.insert(PODS, self._checked(pod))
        self._event(
            job,
            "SuccessfulCreate",
            f"Created pod: {created['metadata']['name']}",
            "Normal",
            "job-controller",
        )
        self._count(self._now(JOBS, job), active=len(self._active(job)))
        return created

    def _checked(self, pod: Object) -> Object:
        """The pod with its defaults; a template that makes no valid pod is the test's fault."""
        prepared = defaults.prepare(PODS, pod)
        if causes := of_new(PODS, prepared):
            raise ValueError(
                f"the Job's template makes no valid pod: {'; '.join(map(str, causes))}"
            )
        return prepared

    def _schedule(self, pod: Object, node: str) -> Object:
        if pod["spec"].get("nodeName"):
            return pod
        bound = self.store.put(PODS, pod | {"spec": pod["spec"] | {"nodeName": node}})
        patch = {
            "conditions": [_condition("PodScheduled", "True")],
            "startTime": clock.now(),
            "hostIP": "192.0.2.1",
        }
        self._event(
            bound,
            "Scheduled",
            f"Successfully assigned {_path(bound)} to {node}",
            "Normal",
            "default-scheduler",
        )
        scheduled = self._patch_status(PODS, bound, patch)
        return self._containers(
            scheduled, {"waiting": {"reason": "ContainerCreating"}}, ready=False
        )

    def _run_pod(self, pod: Object, node: str) -> Object:
        scheduled = self._schedule(pod, node)
        patch = {"phase": "Running", "podIP": "198.51.100.1", "podIPs": [{"ip": "198.51.100.1"}]}
        running = self._patch_status(PODS, scheduled, patch)
        running = self._containers(running, {"running": {"startedAt": clock.now()}}, ready=True)
        job = self._job_of(running)
        if job is not None:
            self._count(job, ready=len(self._active(job)))
        return running

    def _left(self, resource: Resource, known: Object) -> Object | None:
        """The object as it is now, None if it is gone."""
        found = self.store.find(known["metadata"]["uid"])
        return None if found is None else found[1]

    def _end_containers(self, pod: Object, exit_code: int, message: str, reason: str) -> Object:
        if pod["status"]["phase"] == "Pending":
            pod = self._run_pod(pod, NODE)
        started = (
            pod["status"]["containerStatuses"][0]["state"]
            .get("running", {})
            .get("startedAt", clock.now())
        )
        terminated: Object = {
            "exitCode": exit_code,
            "reason": reason or ("Error" if exit_code else "Completed"),
            "startedAt": started,
            "finishedAt": clock.now(),
            "containerID": f"containerd://{pod['metadata']['uid']}",
        }
        if message:
            terminated["message"] = message
        self.frontend.end_logs(pod)
        return self._containers(pod, {"terminated": terminated}, ready=False)

    def _conclude(self, job: Object, succeeded: bool) -> Object:
        """The Job controller: complete, failed, or another try."""
        counted = "succeeded" if succeeded else "failed"
        job = self._count(job, active=0, ready=0, **{counted: job["status"].get(counted, 0) + 1})
        if succeeded:
            job = self._add_condition(job, "SuccessCriteriaMet", *COMPLETE)
            return self._end_job(job, "Complete", *COMPLETE)
        if job["status"]["failed"] <= job["spec"]["backoffLimit"]:
            return job
        job = self._add_condition(job, "FailureTarget", *FAILED)
        return self._end_job(job, "Failed", *FAILED)

    def _give_up(self, job: Object, reason: str, words: str) -> Object:
        """The Job controller deletes what runs; then the Job is Failed."""
        job = self._add_condition(job, "FailureTarget", reason, words)
        for running in self._active(job):
            self.api.garbage.delete(PODS, running)
        self.api.garbage.collect()
        failed = job["status"].get("failed", 0) + job["status"].get("active", 0)
        return self._end_job(self._count(job, active=0, failed=failed), "Failed", reason, words)

    def _end_job(self, job: Object, kind: str, reason: str, message: str) -> Object:
        ended = self._add_condition(job, kind, reason, message)
        if kind == "Complete":
            ended = self._patch_status(JOBS, ended, {"completionTime": clock.now()})
            self._event(ended, "Completed", "Job completed", "Normal", "job-controller")
        else:
            self._event(ended, reason, message, "Warning", "job-controller")
        return ended

    def _add_condition(self, job: Object, kind: str, reason: str, message: str) -> Object:
        conditions = [
            *job["status"].get("conditions", []),
            _condition(kind, "True", reason, message),
        ]
        return self._patch_status(JOBS, job, {"conditions": conditions})

    def _count(self, job: Object, **counts: int) -> Object:
        """Set counters of the Job's status; those of zero are left out, but for `ready` and
        `terminating`.
        """
        now = job["status"]
        first: Object = {
            "startTime": clock.now(),
            "uncountedTerminatedPods": {},
            "terminating": 0,
            "ready": 0,
        }
        counted = {key: count if count or key in first else None for key, count in counts.items()}
        return self._patch_status(JOBS, job, {**first, **now, **counted})

    def _containers(self, pod: Object, state: Object, *, ready: bool) -> Object:
        """The same state for all containers."""
        statuses = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": f"{container['image'].partition('@')[0]}@sha256:{'0' * 64}"
                if "waiting" not in state
                else "",
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
                "lastState": {},
            }
            for container in pod["spec"]["containers"]
        ]
        return self._patch_status(PODS, pod, {"containerStatuses": statuses})

    def _job_of(self, pod: Object) -> Object | None:
        owners = pod["metadata"].get("ownerReferences", [])
        found = self.store.find(owners[0]["uid"]) if owners else None
        return found[1] if found else None

    def _patch_status(self, resource: Resource, changed: Object, patch: Object) -> Object:
        current = self._now(resource, changed)
        merged: Any = patches.merge(current.get("status", {}), patch)
        return self.api.change(resource, current | {"status": merged})

    def _event(
        self, involved: Object, reason: str, message: str, type: str, component: str = "kubelet"
    ) -> Object:
        metadata, now = involved["metadata"], clock.now()
        about = {
            "kind": involved["kind"],
            "apiVersion": involved["apiVersion"],
            "namespace": metadata["namespace"],
        }
        about |= {key: metadata[key] for key in ("name", "uid", "resourceVersion")}
        event: Object = {
            "metadata": {
                "generateName": f"{metadata['name']}.",
                "namespace": metadata["namespace"],
            },
            "involvedObject": about,
            "reason": reason,
            "message": message,
            "type": type,
            "source": {"component": component},
            "reportingComponent": component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        return self._insert(EVENTS, event)


def _name(wanted: str | Object) -> str:
    return wanted if isinstance(wanted, str) else str(wanted["metadata"]["name"])


def _namespace(wanted: str | Object, otherwise: str) -> str:
    return otherwise if isinstance(wanted, str) else str(wanted["metadata"]["namespace"])


def _path(named: Object) -> str:
    return f"{named['metadata']['namespace']}/{named['metadata']['name']}"


def _condition(kind: str, value: str, reason: str = "", message: str = "") -> Object:
    condition: Object = {
        "type": kind,
        "status": value,
        "lastProbeTime": None,
        "lastTransitionTime": clock.now(),
    }
    return (
        condition
        | ({"reason": reason} if reason else {})
        | ({"message": message} if message else {})
    )

"""The Job of a build by its name: made, or adopted where it is there already, and cleared away."""

import time

from imagemill.builders.kaniko import failures
from imagemill.builders.kaniko.api import JOBS, SECRETS, Object, Resource
from imagemill.builders.kaniko.job import BUILD_ID, circumstances_of, own_secrets
from imagemill.builders.kaniko.overlay import executor
from imagemill.builders.kaniko.task import Ending, Observation
from imagemill.builders.kaniko.validation import valid_job
from imagemill.builders.kaniko.watch import Sight
from imagemill.errors import ImagemillError, TransientError

REMOVAL = 15.0
"""Seconds for which a deleted Job may keep its name. Its pod may be on a node that is lost, and
then it stays.
"""

REMOVAL_PAUSES = (0.5, 2.0, 0.0)
"""Seconds after each try to delete something, while the API server is away: a build that was
cancelled is to end.
"""


class JobClaim:
    """A build's claim on the Job of a name: of the attempt with this number, whose limit of memory
    is `memory` if that is not the config's.
    """

    def __init__(self, observed: Observation, number: int, memory: str | None) -> None:
        self.task, self.feed, self.name = observed.task, observed.feed, observed.feed.name
        self._observed, self._number, self._memory = observed, number, memory

    def obtain(self) -> Object | None:
        """Return the Job of the name, new or adopted; None if the name is taken."""
        cluster, log, wanted = self.task.cluster, self.task.progress.log, self._wanted()
        while True:
            self.task.progress.check()
            if created := cluster.create(JOBS, wanted):
                log(f"Created the Job {self.name} in the namespace {cluster.namespace}")
                return created
            there = cluster.get(JOBS, self.name)
            if there is None:
                continue
            if _destinations(there) != _destinations(wanted):
                return None
            if "deletionTimestamp" not in there["metadata"]:
                if self._is_ours_to_take(there):
                    log(
                        f"Found the Job {self.name}, which builds this already; its log follows from its first line"
                    )
                    return there
                log(f"Deleting the Job {self.name}, which failed earlier")
                cluster.delete(JOBS, self.name, there["metadata"]["uid"])
            if not self._goes(there):
                return None

    def _goes(self, job: Object) -> bool:
        """Wait until a Job that is being deleted is gone; False if it stays."""
        self.feed.put(JOBS, job)
        give_up = time.monotonic() + REMOVAL
        while not self.feed.see(job["metadata"]["uid"]).gone:
            if time.monotonic() > give_up:
                return False
            self._observed.wait(job)
        return True

    def _wanted(self) -> Object:
        task = self.task
        facts = circumstances_of(
            task.section,
            task.environment,
            task.inputs,
            has_login=bool(task.logins.find()),
            is_signed=task.signer is not None,
            certificates=task.certificates,
            remaining=task.progress.remaining(),
            endpoint=task.endpoint,
            insecure_registries=task.insecure_registries,
            attempt=self._number,
            memory=self._memory,
        )
        return valid_job(task.section, task.inputs, task.context_uri, facts)

    def _is_ours_to_take(self, there: Object) -> bool:
        """Whether to adopt a Job: not if it failed, unless its failure is this very build's result.

        Then the message was delivered again. What failed for an earlier build, or of what time may
        have mended, is to be tried again.
        """
        sight = self._observed.look(there)
        self.feed.recall(self.task.cluster, there["metadata"]["uid"])
        if has_succeeded(sight) or not failures.has_failed(there, sight.pods):
            return True
        mine = (there["metadata"].get("annotations") or {}).get(
            BUILD_ID
        ) == self.task.inputs.build_id
        return mine and not isinstance(
            failures.failure(self._observed.evidence(there, sight)), TransientError
        )

    def clear(self, job: Object, ending: Ending) -> None:
        """Remove what is not to stay of a Job that has ended."""
        if not ending.is_kept:
            self.delete(job)
            return
        for name in own_secrets(job):
            self._remove(SECRETS, name)

    def delete(self, job: Object) -> None:
        """Delete the Job, with all that it owns."""
        self._remove(JOBS, self.name, job["metadata"]["uid"])

    def _remove(self, resource: Resource, name: str, uid: str = "") -> None:
        """Delete an object; if that fails for good, the log says so: the build has ended as it
        has.
        """
        failure: ImagemillError | None = None
        for pause in REMOVAL_PAUSES:
            try:
                return self.task.cluster.delete(resource, name, uid)
            except TransientError as error:
                failure = error
                time.sleep(pause)
            except ImagemillError as error:
                failure = error
                break
        self.task.progress.log(
            f"Could not delete {resource.plural}/{name}, which is left in the cluster: {failure}"
        )


def has_succeeded(sight: Sight) -> bool:
    """Whether the executor ended well, by what its pod or its Job says."""
    ended = [failures.executor_state(pod).get("terminated") or {} for pod in sight.pods]
    return any(end.get("exitCode") == 0 for end in ended) or (
        sight.job is not None and failures.is_complete(sight.job)
    )


def _destinations(job: Object) -> set[str]:
    """Where a Job pushes to. Its name tells only what it is made from."""
    return {
        argument
        for argument in executor(job).get("args") or ()
        if argument.startswith("--destination=")
    }

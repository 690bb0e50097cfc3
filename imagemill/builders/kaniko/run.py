"""One Job of a build: made or adopted, watched to its end, its log handed on, and cleared away.

What becomes of the Job is decided by how its supervision ends. A Job that has succeeded, was
cancelled or cannot go on is deleted, and all that it owns goes with it. One that has failed by
itself stays until its retention is over. And one whose worker gives up for a reason that time can
mend, or dies, goes on: whoever gets the build next adopts it.
"""

import re
import time
from collections import deque
from collections.abc import Callable

from imagemill.builders.kaniko import failures, tally
from imagemill.builders.kaniko.api import JOBS, Cluster, Object
from imagemill.builders.kaniko.claim import JobClaim, has_succeeded
from imagemill.builders.kaniko.context_access import without_signatures
from imagemill.builders.kaniko.executor_log import Readable
from imagemill.builders.kaniko.failures import Trouble
from imagemill.builders.kaniko.job import job_name
from imagemill.builders.kaniko.logs import PodLog, followers_of
from imagemill.builders.kaniko.secrets import JobSecrets
from imagemill.builders.kaniko.task import Ending, Observation, Task
from imagemill.builders.kaniko.watch import Sight, watches_of
from imagemill.errors import ImagemillError, OperatorError, TransientError
from imagemill.messages import State
from imagemill.ports import Progress

_PUSHING = re.compile(r"\bPushing image to ")
_TAIL = 200
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def attempt(task: Task, number: int = 1, memory: str | None = None) -> Ending | None:
    """Return how the Job of the task that has this number ended; None if its name is taken by one
    that can be neither adopted nor deleted.

    `memory` is its limit, if that is not the config's.
    """
    name = job_name(task.section, task.inputs, number)
    with watches_of(task.cluster).feed(name, task.progress.check) as feed:
        observed = Observation(task, feed)
        claim = JobClaim(observed, number, memory)
        job = claim.obtain()
        if job is None:
            return None
        supervision = Supervision(observed, job)
        try:
            ending = supervision.run()
        except TransientError:
            raise  # the Job goes on
        except ImagemillError:
            claim.delete(job)
            raise
        finally:
            supervision.log.close()
            tally.forget(job["metadata"]["uid"])
        claim.clear(job, ending)
        return ending


class Supervision:
    """Watches a Job to its end."""

    def __init__(self, observed: Observation, job: Object) -> None:
        self.task, self.feed = observed.task, observed.feed
        self.log = ExecutorLog(self.task.cluster, self.task.progress, self.feed.wake)
        self._observed, self._job = observed, job
        self._name, self._uid = job["metadata"]["name"], job["metadata"]["uid"]
        self._trouble: Trouble | None = None
        self._since = 0.0

    def run(self) -> Ending:
        """Return how it ended, with its log handed on and its Secrets kept fresh meanwhile."""
        self.feed.put(JOBS, self._job)
        secrets = JobSecrets(self.task, self._job)
        secrets.bring()
        while True:
            sight = self.feed.see(self._uid)
            if ending := self._ending(sight):
                return ending
            runs = any("running" in failures.executor_state(pod) for pod in sight.pods)
            tally.note(self._uid, "running" if runs else "pending")
            self.log.follow(sight)
            secrets.renew(has_started=any(map(failures.has_started, sight.pods)))
            self._observed.wait(self._job)

    def _ending(self, sight: Sight) -> Ending | None:
        """How the Job ended, if it has, or cannot go on."""
        current = sight.job or self._job
        if has_succeeded(sight):
            sight = sight if _message(sight) else self._observed.look(self._job)
            self.log.finish(sight)
            return self._success(_message(sight))
        if sight.gone:
            hint = "see who deletes Jobs in the namespace"
            return Ending(
                error=TransientError(
                    f"The Job {self._name} was deleted while it was building", hint
                )
            )
        if failures.has_failed(current, sight.pods):
            return self._failure()
        trouble = failures.trouble(self._observed.evidence(current, sight, self.log.tail))
        if trouble is None:
            self._trouble = None
        return Ending(error=trouble.error) if trouble and self._lasts(trouble) else None

    def _success(self, message: str | None) -> Ending:
        """Return the digest that Kaniko wrote; where its pod is gone, the one that the registry
        has.
        """
        image, hint = (
            self.task.inputs.image,
            "see the log, and command, args and image in builder.kaniko-config",
        )
        if message is None:
            if digest := self.task.registry.digest(image):
                return Ending(digest)
            what = f"the registry has no image {image}, and its pod is gone"
            return Ending(error=OperatorError(f"The Job {self._name} succeeded, but {what}", hint))
        if found := _DIGEST.search(message):
            return Ending(found[0])
        # What the registry has may be older than this build.
        return Ending(
            error=OperatorError(f"The Job {self._name} succeeded, but Kaniko wrote no digest", hint)
        )

    def _failure(self) -> Ending:
        sight = self._observed.look(self._job)
        self.log.finish(sight)
        evidence = self._observed.evidence(sight.job or self._job, sight, self.log.tail)
        if failures.tag_is_kept(evidence) and (kept := self._kept()):
            return Ending(kept)
        error = failures.failure(evidence)
        killed = failures.is_out_of_memory(sight.pods)
        return Ending(
            error=error,
            is_kept=not isinstance(error, TransientError),
            is_out_of_memory=killed,
            memory_limit=failures.memory_limit(sight.pods[-1]) if killed else None,
            memory_request=failures.memory_request(sight.pods[-1]) if killed else None,
        )

    def _kept(self) -> str | None:
        """Return the digest of the image that the registry does not let this build replace: it is
        of the same source.
        """
        image = self.task.inputs.image
        digest = self.task.registry.digest(image)
        if digest:
            self.task.progress.log(
                f"{image} is there already, and cannot be replaced: {digest} is kept"
            )
        return digest

    def _lasts(self, trouble: Trouble) -> bool:
        """Whether the trouble has lasted for longer than there is patience for it."""
        if self._trouble is None or self._trouble.kind != trouble.kind:
            self._since = time.monotonic()
            if trouble.is_told:
                self.task.progress.log(f"Waiting: {trouble.error.message}")
        self._trouble = trouble
        return time.monotonic() - self._since >= trouble.patience


def _message(sight: Sight) -> str | None:
    """Return what the executor left behind when it ended well; None if that cannot be seen (any
    more).
    """
    ended = [failures.executor_state(pod).get("terminated") or {} for pod in sight.pods]
    return next((str(end.get("message") or "") for end in ended if end.get("exitCode") == 0), None)


class ExecutorLog:
    """The log of a build: what the pods of one Job say, handed on line by line, as people read it.
    `wake` is called when there is more of it.
    """

    def __init__(self, cluster: Cluster, progress: Progress, wake: Callable[[], None]) -> None:
        self.tail: deque[str] = deque(maxlen=_TAIL)
        """The last lines, as the executor wrote them."""
        self._cluster, self._progress, self._wake = cluster, progress, wake
        self._readable = Readable()
        self._logs: dict[str, PodLog] = {}
        self._pushing = False

    def close(self) -> None:
        """Follow no more."""
        for log in self._logs.values():
            log.close()

    def follow(self, sight: Sight) -> None:
        """Hand on the lines that have come, and have the logs of new pods followed."""
        for pod in sight.pods:
            state, uid = failures.executor_state(pod), pod["metadata"]["uid"]
            if uid not in self._logs and not {"running", "terminated"}.isdisjoint(state):
                container = failures.executor_of(pod)["name"]
                self._logs[uid] = PodLog(
                    self._cluster, pod["metadata"]["name"], container, self._wake
                )
                if "running" in state:
                    followers_of(self._cluster).add(self._logs[uid])
        for log in self._logs.values():
            for line in log.take():
                self._say(line)
            if log.failure is not None:
                self._progress.log(f"The log cannot be followed: {log.failure}")
                log.failure = None

    def finish(self, sight: Sight) -> None:
        """Hand on the rest of the logs; a log that is lost is no reason to lose the build."""
        self.follow(sight)
        for log in self._logs.values():
            try:
                for line in log.rest():
                    self._say(line)
            except (OperatorError, TransientError) as error:
                self._progress.log(f"The end of the log could not be read: {error}")

    def _say(self, line: str) -> None:
        line = without_signatures(line)
        self.tail.append(line)
        if (readable := self._readable.line(line)) is not None:
            self._progress.log(readable)
        if not self._pushing and _PUSHING.search(line):
            self._pushing = True
            self._progress.enter(State.PUSHING)

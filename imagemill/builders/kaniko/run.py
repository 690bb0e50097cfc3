"""One Job of a build: made or adopted, watched to its end, its log handed on, and cleared away.

What becomes of the Job is decided by how its supervision ends. A Job that has succeeded, was
cancelled or cannot go on is deleted, and all that it owns goes with it. One that has failed by
itself stays until its retention is over. And one whose worker gives up for a reason that time can
mend, or dies, goes on: whoever gets the build next adopts it.
"""

import math
import re
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from imagemill.builders.kaniko import failures, secrets
from imagemill.builders.kaniko.api import JOBS, SECRETS, Cluster, Object, Resource
from imagemill.builders.kaniko.executor_log import Readable
from imagemill.builders.kaniko.failures import Evidence, Trouble
from imagemill.builders.kaniko.job import (
    BUILD_ID,
    build_secret_name,
    circumstances_of,
    docker_secret_name,
    job_name,
    own_secrets,
)
from imagemill.builders.kaniko.logs import PodLog, followers_of
from imagemill.builders.kaniko.overlay import Document, executor
from imagemill.builders.kaniko.pod_credentials import needs_docker_secret
from imagemill.builders.kaniko.validation import valid_job
from imagemill.builders.kaniko.watch import Feed, Sight, watches_of
from imagemill.config.model import Environment, KanikoBuilder
from imagemill.errors import ImagemillError, OperatorError, TransientError
from imagemill.messages import State
from imagemill.ports import BuildInputs, Progress, Registry

REMOVAL = 15.0
"""Seconds for which a deleted Job may keep its name. Its pod may be on a node that is lost, and
then it stays.
"""

REMOVAL_PAUSES = (0.5, 2.0, 0.0)
"""Seconds after each try to delete something, while the API server is away: a build that was
cancelled is to end.
"""

RENEW_AGAIN = 20.0
"""Seconds after which a login is renewed that could not be."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PUSHING = re.compile(r"\bPushing image to ")
_TAIL = 200


@dataclass(frozen=True)
class Task:
    """What is to be built, and by what means."""

    cluster: Cluster
    section: KanikoBuilder
    environment: Environment
    inputs: BuildInputs
    context_uri: str
    registry: Registry
    progress: Progress
    endpoint: str | None = None
    """Where the worker finds the context store, if that is not the cloud's own place."""
    insecure_registries: Collection[str] = ()


@dataclass(frozen=True)
class Ending:
    """How a Job ended: with a digest, or with an error."""

    digest: str = ""
    error: ImagemillError | None = None
    is_kept: bool = False
    """Whether the Job itself has failed, and so is to stay for a while."""
    is_out_of_memory: bool = False
    memory_limit: str | None = None
    memory_request: str | None = None


@dataclass
class Attempt:
    """The Job of a task that has this number; `memory` is its limit, if that is not the
    config's.
    """

    task: Task
    number: int = 1
    memory: str | None = None
    _tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))
    _readable: Readable = field(default_factory=Readable)
    _logs: dict[str, PodLog] = field(default_factory=dict)
    _trouble: Trouble | None = None
    _since: float = 0.0
    _renewal: float = math.inf
    _pushing: bool = False

    @property
    def name(self) -> str:
        """The Job's name."""
        return job_name(self.task.section, self.task.inputs, self.number)

    def run(self) -> Ending | None:
        """How it ended; None if the name is taken by a Job that can be neither adopted nor
        deleted.
        """
        watches = watches_of(self.task.cluster)
        with watches.feed(self.name, self.task.progress.check) as feed:
            job = self._obtain(feed)
            if job is None:
                return None
            try:
                ending = self._supervise(job, feed)
            except TransientError:
                raise  # the Job goes on
            except ImagemillError:
                self._delete(job)
                raise
            finally:
                for log in self._logs.values():
                    log.close()
            self._clear(job, ending)
            return ending

    # the Job

    def _obtain(self, feed: Feed) -> Object | None:
        """The Job of the name, new or adopted; None if the name is taken."""
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
                if self._is_ours_to_take(there, feed):
                    log(
                        f"Found the Job {self.name}, which builds this already; its log follows from its first line"
                    )
                    return there
                log(f"Deleting the Job {self.name}, which failed earlier")
                cluster.delete(JOBS, self.name, there["metadata"]["uid"])
            if not self._goes(there, feed):
                return None

    def _goes(self, job: Object, feed: Feed) -> bool:
        """Wait until a Job that is being deleted is gone; False if it stays."""
        feed.put(JOBS, job)
        give_up = time.monotonic() + REMOVAL
        while not feed.see(job["metadata"]["uid"]).gone:
            if time.monotonic() > give_up:
                return False
            self._wait(job, feed)
        return True

    def _wait(self, job: Object, feed: Feed) -> None:
        """Wait for news of a Job; raise if the build is to stop, or nothing can be known of its Job
        any more.
        """
        self.task.progress.check()
        watches_of(self.task.cluster).check()
        feed.wait()
        if feed.take_stale():
            self._look(job, feed)

    def _wanted(self) -> Object:
        task, image = self.task, self.task.inputs.image
        login = needs_docker_secret(
            task.section, task.environment, image
        ) and task.registry.credentials(image)
        facts = circumstances_of(
            task.section,
            task.environment,
            task.inputs,
            has_login=bool(login),
            remaining=task.progress.remaining(),
            endpoint=task.endpoint,
            insecure_registries=task.insecure_registries,
            attempt=self.number,
            memory=self.memory,
        )
        return valid_job(task.section, task.inputs, task.context_uri, facts)

    def _is_ours_to_take(self, there: Object, feed: Feed) -> bool:
        """Whether to adopt a Job: not if it failed, unless its failure is this very build's result.

        Then the message was delivered again. What failed for an earlier build, or of what time may
        have mended, is to be tried again.
        """
        sight = self._look(there, feed)
        feed.recall(self.task.cluster, there["metadata"]["uid"])
        if _has_succeeded(sight) or not failures.has_failed(there, sight.pods):
            return True
        mine = (there["metadata"].get("annotations") or {}).get(
            BUILD_ID
        ) == self.task.inputs.build_id
        return mine and not isinstance(
            failures.failure(self._evidence(sight, there)), TransientError
        )

    def _look(self, job: Object, feed: Feed) -> Sight:
        """Job and pods as they are now: they come over two watches, of which one may be ahead."""
        feed.refresh(self.task.cluster, job["metadata"]["uid"])
        return feed.see(job["metadata"]["uid"])

    def _clear(self, job: Object, ending: Ending) -> None:
        if not ending.is_kept:
            self._delete(job)
            return
        for name in own_secrets(job):
            self._remove(SECRETS, name)

    def _delete(self, job: Object) -> None:
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

    # its supervision

    def _supervise(self, job: Object, feed: Feed) -> Ending:
        feed.put(JOBS, job)
        self._bring_secrets(job)
        while True:
            sight = feed.see(job["metadata"]["uid"])
            if ending := self._ending(sight, job, feed):
                return ending
            self._follow(sight, feed)
            self._renew(job)
            self._wait(job, feed)

    def _ending(self, sight: Sight, job: Object, feed: Feed) -> Ending | None:
        """How the Job ended, if it has, or cannot go on."""
        current = sight.job or job
        if _has_succeeded(sight):
            sight = sight if _message(sight) else self._look(job, feed)
            self._finish_log(sight, feed)
            return self._success(_message(sight))
        if sight.gone:
            hint = "see who deletes Jobs in the namespace"
            return Ending(
                error=TransientError(f"The Job {self.name} was deleted while it was building", hint)
            )
        if failures.has_failed(current, sight.pods):
            return self._failure(job, feed)
        trouble = failures.trouble(self._evidence(sight, current))
        if trouble is None:
            self._trouble = None
        return Ending(error=trouble.error) if trouble and self._lasts(trouble) else None

    def _success(self, message: str | None) -> Ending:
        """The digest that Kaniko wrote; where its pod is gone, the one that the registry has."""
        image, hint = (
            self.task.inputs.image,
            "see the log, and command, args and image in builder.kaniko-config",
        )
        if message is None:
            if digest := self.task.registry.digest(image):
                return Ending(digest)
            what = f"the registry has no image {image}, and its pod is gone"
            return Ending(error=OperatorError(f"The Job {self.name} succeeded, but {what}", hint))
        if found := _DIGEST.search(message):
            return Ending(found[0])
        # What the registry has may be older than this build.
        return Ending(
            error=OperatorError(f"The Job {self.name} succeeded, but Kaniko wrote no digest", hint)
        )

    def _failure(self, job: Object, feed: Feed) -> Ending:
        sight = self._look(job, feed)
        self._finish_log(sight, feed)
        evidence = self._evidence(sight, sight.job or job)
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
        """The digest of the image that the registry does not let this build replace: it is of the
        same source.
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

    def _evidence(self, sight: Sight, job: Object) -> Evidence:
        ours = {docker_secret_name(self.name), build_secret_name(self.name)}
        return Evidence(
            job=job,
            pods=sight.pods,
            events=sight.events,
            log=tuple(self._tail),
            image=str(self.task.inputs.image),
            ours=ours,
            scheduling_timeout=self.task.section.scheduling_timeout,
            build_id=self.task.inputs.build_id,
            own_deadline=_own_deadline(self.task.section.kaniko_config),
        )

    # its Secrets

    def _bring_secrets(self, job: Object) -> None:
        """Make the Secrets that the Job's pod waits for, or, of an adopted one, make them anew."""
        self._bring_login(job)
        if build_secret_name(self.name) in own_secrets(job):
            secrets.put(
                self.task.cluster,
                secrets.build_secret(job, secrets.values(self.task.inputs.secrets)),
            )

    def _bring_login(self, job: Object) -> None:
        if docker_secret_name(self.name) not in own_secrets(job):
            return
        image = self.task.inputs.image
        credentials = self.task.registry.credentials(image)
        if credentials is not None:
            secrets.put(self.task.cluster, secrets.docker_secret(job, image.registry, credentials))
            self._renewal = secrets.renewal(credentials)

    def _renew(self, job: Object) -> None:
        """Bring a new login before the old one ends; where that cannot be had just now, try again
        in a while.
        """
        if time.time() < self._renewal:
            return
        self._renewal = math.inf
        try:
            self._bring_login(job)
        except TransientError as error:
            self._renewal = time.time() + RENEW_AGAIN
            self.task.progress.log(
                f"The pod's login could not be renewed, which is tried again: {error}"
            )

    # its log

    def _follow(self, sight: Sight, feed: Feed) -> None:
        """Hand on the lines that have come, and have the logs of new pods followed."""
        for pod in sight.pods:
            state, uid = failures.executor_state(pod), pod["metadata"]["uid"]
            if uid not in self._logs and not {"running", "terminated"}.isdisjoint(state):
                container = failures.executor_of(pod)["name"]
                self._logs[uid] = PodLog(
                    self.task.cluster, pod["metadata"]["name"], container, feed.wake
                )
                if "running" in state:
                    followers_of(self.task.cluster).add(self._logs[uid])
        for log in self._logs.values():
            for line in log.take():
                self._say(line)
            if log.failure is not None:
                self.task.progress.log(f"The log cannot be followed: {log.failure}")
                log.failure = None

    def _finish_log(self, sight: Sight, feed: Feed) -> None:
        """Hand on the rest of the logs; a log that is lost is no reason to lose the build."""
        self._follow(sight, feed)
        for log in self._logs.values():
            try:
                for line in log.rest():
                    self._say(line)
            except (OperatorError, TransientError) as error:
                self.task.progress.log(f"The end of the log could not be read: {error}")

    def _say(self, line: str) -> None:
        self._tail.append(line)
        if (readable := self._readable.line(line)) is not None:
            self.task.progress.log(readable)
        if not self._pushing and _PUSHING.search(line):
            self._pushing = True
            self.task.progress.enter(State.PUSHING)


def _own_deadline(config: Document) -> int | None:
    """The deadline that the config gives each Job, if it does."""
    deadline: int | None = (config.get("spec") or {}).get("activeDeadlineSeconds")
    return deadline


def _has_succeeded(sight: Sight) -> bool:
    """Whether the executor ended well, by what its pod or its Job says."""
    ended = [failures.executor_state(pod).get("terminated") or {} for pod in sight.pods]
    return any(end.get("exitCode") == 0 for end in ended) or (
        sight.job is not None and failures.is_complete(sight.job)
    )


def _message(sight: Sight) -> str | None:
    """What the executor left behind when it ended well; None if that cannot be seen (any more)."""
    ended = [failures.executor_state(pod).get("terminated") or {} for pod in sight.pods]
    return next((str(end.get("message") or "") for end in ended if end.get("exitCode") == 0), None)


def _destinations(job: Object) -> set[str]:
    """Where a Job pushes to. Its name tells only what it is made from."""
    return {
        argument
        for argument in executor(job).get("args") or ()
        if argument.startswith("--destination=")
    }

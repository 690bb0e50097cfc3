"""What is to be built in a Job, how that ended, and what can be seen of it meanwhile."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from imagemill.builders.kaniko.api import Cluster, Object
from imagemill.builders.kaniko.context_access import Signer
from imagemill.builders.kaniko.failures import PodEvidence
from imagemill.builders.kaniko.job import secret_names
from imagemill.builders.kaniko.logins import BuildLogins
from imagemill.builders.kaniko.watch import Feed, Sight, watches_of
from imagemill.config.model import Environment, KanikoBuilder
from imagemill.errors import ImagemillError
from imagemill.ports import BuildInputs, Progress, Registry


@dataclass(frozen=True)
class Task:
    """What is to be built, and by what means."""

    cluster: Cluster
    section: KanikoBuilder
    environment: Environment
    inputs: BuildInputs
    context_uri: str
    registry: Registry
    logins: BuildLogins
    progress: Progress
    endpoint: str | None = None
    """Where the worker finds the context store, if that is not the cloud's own place."""
    insecure_registries: Collection[str] = ()
    certificates: Mapping[str, bytes] = field(default_factory=dict)
    """What the pod is to trust besides its image's authorities: see `trust.certificates`."""
    signer: Signer | None = None
    """What signs the context's URL; None: the pod reads it with what it has."""


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


@dataclass(frozen=True)
class Observation:
    """What the watches tell of the Jobs of a task."""

    task: Task
    feed: Feed

    def wait(self, job: Object) -> None:
        """Wait for news of a Job; raise if the build is to stop, or nothing can be known of its Job
        any more.
        """
        self.task.progress.check()
        watches_of(self.task.cluster).check()
        self.feed.wait()
        if self.feed.take_stale():
            self.look(job)

    def look(self, job: Object) -> Sight:
        """Return Job and pods as they are now: they come over two watches, of which one may be
        ahead.
        """
        self.feed.refresh(self.task.cluster, job["metadata"]["uid"])
        return self.feed.see(job["metadata"]["uid"])

    def evidence(self, job: Object, sight: Sight, log: Sequence[str] = ()) -> PodEvidence:
        """Return what is known of a Job that has not ended well; `log`: its last lines."""
        task, name = self.task, self.feed.name
        spec = task.section.kaniko_config.get("spec") or {}
        return PodEvidence(
            job=job,
            pods=sight.pods,
            events=sight.events,
            log=tuple(log),
            image=str(task.inputs.image),
            ours=secret_names(name),
            scheduling_timeout=task.section.scheduling_timeout,
            build_id=task.inputs.build_id,
            own_deadline=spec.get("activeDeadlineSeconds"),  # type: ignore[union-attr, arg-type]
        )

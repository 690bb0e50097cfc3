"""What tests of the Kaniko builder need: builds in threads, on a cluster that the test plays."""

import io
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from api_player import NOBODY, api_player
from builds import Watched, until
from clusters import real_cluster
from imagemill.builders import Workplace
from imagemill.builders.kaniko.api import JOBS, PODS, SECRETS, Cluster, Resource, connect
from imagemill.builders.kaniko.builder import KanikoJobBuilder
from imagemill.builders.kaniko.overlay import lay
from imagemill.config.model import KanikoBuilder as Section
from imagemill.context.handover import Packed
from imagemill.context.tarball import Writer
from imagemill.errors import ImagemillError
from imagemill.ports import BuildInputs, Credentials, PushRole, Registry
from imagemill.reference import ImageReference
from imagemill.registries.authorization import Login
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry
from kubernetes_server import KubernetesServer

Object = dict[str, Any]

DIGEST = f"sha256:{'d1' * 32}"
DOCKERFILE = b"FROM python:3.12\nCOPY . /app\n"
DESTINATION = "registry.example.com/team/app"


class Logins:
    """A source of credentials that hands out, or raises, one after the other, and then the last one
    again.
    """

    def __init__(self, *answers: Credentials | ImagemillError) -> None:
        self._answers = list(answers)

    def login(self, repository: ImageReference) -> Login:
        if not self._answers:
            return Login(None)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, ImagemillError):
            raise answer
        return Login(answer)


class Passwords(OciRegistry):
    """Registries that log in by passwords, and need not be there: nobody asks them."""

    def push_token(
        self,
        repository: ImageReference,
        pushed: Iterable[ImageReference] = (),
        pulled: Iterable[ImageReference] = (),
        role: PushRole | None = None,
    ) -> None:
        """See `Registry.push_token`."""


def section(**settings: Any) -> Section:
    """A config's builder section."""
    given = {
        "type": "kaniko",
        "destination": DESTINATION,
        "build_context_store": "s3://bucket/contexts",
        "context_access": "identity",
    }
    return Section.model_validate(given | settings)


def container(**fields: Any) -> Object:
    """A `kaniko-config` that says this of the executor's container."""
    return {"spec": {"template": {"spec": {"containers": [fields]}}}}


@contextmanager
def packed() -> Iterator[io.BytesIO]:
    """A packed context, of which nobody reads more than the Dockerfile."""
    out = io.BytesIO()
    with Writer(out) as writer:
        writer.dockerfile(DOCKERFILE)
    yield io.BytesIO(out.getvalue())


class RunningBuild:
    """A build in a thread of its own."""

    def __init__(self, builder: KanikoJobBuilder, inputs: BuildInputs, registry: Registry) -> None:
        self.progress = Watched()
        context = Packed(packed, f"s3://bucket/contexts/{inputs.source_hash}.tar.gz")
        pool = ThreadPoolExecutor(1)
        self._future = pool.submit(builder.build, inputs, context, registry, self.progress)
        pool.shutdown(wait=False)

    def result(self) -> str:
        """The digest, or the error."""
        return self._future.result(timeout=30)

    def error(self) -> BaseException | None:
        """What it failed with; None if it did not."""
        return self._future.exception(timeout=30)

    @property
    def is_running(self) -> bool:
        return not self._future.done()

    def says(self, text: str) -> bool:
        """Whether a line with this text comes into its log."""
        return until(lambda: any(text in line for line in self.progress.lines))

    def stop(self, error: BaseException) -> None:
        """Make the build's next check raise this."""

        def check() -> None:
            raise error

        self.progress.check = check  # type: ignore[method-assign]


class PlayedCluster:
    """A cluster, and builds in it."""

    def __init__(self, server: KubernetesServer, folder: Path) -> None:
        self.server = server
        self._folder = folder

    def builder(self, **settings: Any) -> KanikoJobBuilder:
        """A builder, as a worker makes it."""
        place = Workplace(
            scratch=self._folder,
            docker_config=DockerConfig(self._folder / "nothing"),
            environment={"KUBECONFIG": str(self.server.kubeconfig)},
        )
        return KanikoJobBuilder(place, section(**settings))

    def build(
        self,
        source_hash: str = "",
        *,
        build_id: str = "build-1",
        destination: str = DESTINATION,
        registry: Registry | None = None,
        secrets: dict[str, Path] | None = None,
        **settings: Any,
    ) -> RunningBuild:
        """Start a build; of a source of its own, if no hash is given."""
        source_hash = source_hash or uuid.uuid4().hex * 2
        image = ImageReference.parse(f"{destination}:{source_hash}")
        inputs = BuildInputs(
            image, source_hash=source_hash, build_id=build_id, secrets=secrets or {}
        )
        return RunningBuild(
            self.builder(**settings), inputs, registry or Passwords(Logins(), frozenset())
        )

    def job(self, number: int = 1) -> Object:
        """The only Job there is, once it is there; or the only one of the attempt with this
        number.
        """
        found: list[Object] = []

        def look() -> bool:
            suffix = f"-{number}"
            found[:] = [
                job
                for job in self.server.jobs()
                if number == 1 or job["metadata"]["name"].endswith(suffix)
            ]
            return len(found) == 1

        assert until(look), self.server.jobs()
        return found[0]

    def run(self, number: int = 1, lines: Iterable[str] = ()) -> tuple[Object, Object]:
        """Let the Job's pod run, and write these lines; returns both."""
        job = self.job(number)
        pod = self.server.run_pod(self.server.start_pod(job))
        self.server.log(pod, list(lines))
        return job, pod

    def succeed(self, number: int = 1) -> Object:
        """Let the Job run and end well."""
        job, _ = self.run(number)
        return self.server.finish(job, 0, DIGEST)

    @property
    def api(self) -> Cluster:
        """The cluster's API, as the builder uses it."""
        return connect({"KUBECONFIG": str(self.server.kubeconfig)})

    def objects(self, resource: Resource) -> list[Object]:
        """All objects of a kind."""
        found: list[Object] = self.api.list(resource)["items"]
        return found

    def is_empty(self) -> bool:
        """Whether there is nothing left of any build, within a moment."""
        return until(lambda: not any(self.objects(resource) for resource in (JOBS, PODS, SECRETS)))

    def streams(self) -> int:
        """How many watches and log streams are open."""
        return sum(self.server.connections.values())


class UnscheduledBuilds(PlayedCluster):
    """A namespace of a cluster, and builds in it whose pods no node runs."""

    def builder(self, **settings: Any) -> KanikoJobBuilder:
        config = lay(NOBODY, settings.get("kaniko_config", {}))
        return super().builder(**settings | {"kaniko_config": config})


@contextmanager
def unscheduled_builds(kubeconfig: Path, folder: Path) -> Iterator[PlayedCluster]:
    """A namespace of its own on a cluster that is played through its API."""
    with api_player(kubeconfig, folder) as player:
        # What the player cannot play is needed by tests for `own_server` alone.
        yield UnscheduledBuilds(cast(KubernetesServer, player), folder)


@contextmanager
def played_cluster(folder: Path) -> Iterator[PlayedCluster]:
    """A cluster of its own for one test, or the real one that `make test-cluster` names."""
    if named := real_cluster():
        with unscheduled_builds(named, folder) as played:
            yield played
    else:
        with KubernetesServer(folder) as server:
            yield PlayedCluster(server, folder)

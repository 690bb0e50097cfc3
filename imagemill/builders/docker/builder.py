"""Builds and pushes with a Docker engine, through the docker CLI: docker-py cannot speak BuildKit.

The push goes through the CLI as well: a process can be stopped at any time, over every kind of
connection to an engine, and a thread that waits for docker-py cannot. Credentials are in a config
folder of the build's own, so nobody is logged in on the host.
"""

import hashlib
import json
import math
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagemill.builders import Workplace
from imagemill.builders.docker.arguments import build_arguments, other_arguments
from imagemill.builders.docker.cli import (
    Cli,
    Endpoint,
    ask,
    choose,
    find_endpoint,
    needed,
    no_cli,
    path_of,
    run,
)
from imagemill.builders.docker.failures import Evidence, bare, explain, is_solving, locate
from imagemill.builders.docker.job_folder import any_left, job_folder, note_tags, remove_dead
from imagemill.builders.docker.layer_cache import CONTAINERD, INLINE, LayerCache, places_of
from imagemill.builders.docker.progress import BuildLog, ClassicLog
from imagemill.builders.docker.push import PushLog, push_failure
from imagemill.context import CONTEXT, DOCKERFILE
from imagemill.dockerfile.generate import SHARED
from imagemill.dockerfile.images import images as named_images
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    TransientError,
    UserError,
)
from imagemill.messages import State
from imagemill.place import machine
from imagemill.ports import BuildInputs, Progress, Registry, StoredContext
from imagemill.reference import ImageReference

PUSH_TRIES = 5
"""How often a push is begun whose tag another build of the same image took away, or whose
credentials ended.
"""

_NODE = hashlib.sha256(f"imagemill {socket.gethostname()}".encode()).hexdigest()
"""What BuildKit is told of this node; 64 hex digits, as the docker command makes them up."""

_CLOCKS = 60.0
"""Seconds by which the clocks of a worker and of a registry may differ."""

_HELD = "localhost/imagemill-build"
"""Repository of the tag that holds an image in the engine while it is pushed; it is never pushed
itself.
"""

_NO_BUILDKIT = (
    "This docker CLI has no BuildKit, since its buildx plugin is missing: building with the classic builder, which"
    " knows no secrets, cache mounts, caches in registries or here-documents (install docker-buildx-plugin)"
)


class DockerCommandBuilder:
    """Builds and pushes with the engine of its workplace."""

    def __init__(self, place: Workplace, _: object = None) -> None:
        self._place = place

    def build(
        self, inputs: BuildInputs, context: StoredContext, registry: Registry, progress: Progress
    ) -> str:
        """See `Builder.build`. No tag is left in the engine; BuildKit's cache keeps the layers."""
        place = self._place
        cli, endpoint = self._reach()
        self._clear_dead(cli, endpoint)
        with job_folder(place.scratch) as folder:
            source = context.folder(folder / "source", progress)
            job = _Job(inputs, registry, progress, place, cli, endpoint, folder, source)
            exports = self._exports(cli, endpoint, inputs)
            cache = LayerCache.of(inputs, exports) if cli.buildkit else LayerCache()
            note_tags(folder, (*job.tags, *map(str, cache.images)))
            with job.cleared():
                job.build(cache.arguments)
                progress.enter(State.PUSHING)
                digest = job.push()
                for reference in cache.images:
                    job.keep_layers(reference)
                return digest

    def discard(self, build: str) -> None:
        """See `Builder.discard`: a build ends with the docker command, and that with its worker;
        what is left are credentials, and the tag that held the image.
        """
        self.tidy()

    def tidy(self, _: object = None) -> None:
        """See `Builder.tidy`."""
        if any_left(self._place.scratch):
            self._clear_dead(*self._reach())

    def _reach(self) -> tuple[Cli, Endpoint]:
        """Return the docker command, and the engine that it reaches."""
        place = self._place
        cli = choose(place.docker_cli, path_of(place.environment), place.docker_config.folder)
        if cli is None:
            raise no_cli(f"There is no docker command on {machine()}")
        endpoint = find_endpoint(
            cli.path, place.docker_host, place.environment, place.docker_config.folder
        )
        return cli, endpoint

    def _exports(self, cli: Cli, endpoint: Endpoint, inputs: BuildInputs) -> bool:
        """Return whether layers, if they are to be kept, are sent to a registry by the builder itself."""
        if not cli.buildx or not places_of(inputs):
            return False
        variables = {**needed(self._place.environment), **endpoint.environment}
        command = [cli.path, "info", "--format", "{{json .DriverStatus}}"]
        return CONTAINERD in ask(command, variables).stdout

    def _clear_dead(self, cli: Cli, endpoint: Endpoint) -> None:
        """Remove what builds have left whose worker has died, of all builds on this node."""
        variables = {**self._place.environment, **endpoint.environment}
        remove_dead(self._place.scratch, lambda tags: not _untag(cli, tags, variables))


@dataclass(frozen=True)
class _Job:
    """One build in `folder`, which only the worker's user can read."""

    inputs: BuildInputs
    registry: Registry
    progress: Progress
    place: Workplace
    cli: Cli
    endpoint: Endpoint
    folder: Path
    source: Path
    """Where the context lies: at a path that never comes again, or where no file is changed without
    getting a time that it has not had (`imagemill.context.mirrors`).

    BuildKit keeps what it has read of a folder, and takes a file of the same size and time for
    unchanged when it reads the folder again.
    """
    held: str = field(default_factory=lambda: f"{_HELD}:{uuid.uuid4().hex}")

    @property
    def tags(self) -> tuple[str, ...]:
        """The names that the image has in the engine while it is there."""
        return str(self.inputs.image), self.held

    @property
    def environment(self) -> dict[str, str]:
        """The variables that docker gets; it takes its settings from nowhere else."""
        config = self.folder / "config"
        return {
            "HOME": str(self.folder),
            **needed(self.place.environment),
            **self.endpoint.environment,
            "DOCKER_CONFIG": str(config),
            "DOCKER_BUILDKIT": "1" if self.cli.buildkit else "0",
            "DOCKER_CLI_HINTS": "false",
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        }

    def build(self, more: Sequence[str]) -> None:
        """Make the image, under its own name and under `held`, with `more` arguments."""
        tags = [f"--tag={tag}" for tag in self.tags]
        kind = BuildLog if self.cli.buildkit else ClassicLog
        log = kind(self.progress.log, self.progress.amount)
        if self._run_build(self.inputs, [*self._flags(), *more, *tags], log):
            raise self._why(log)

    def keep_layers(self, reference: ImageReference) -> None:
        """Push what later builds may take layers from, as an image of its own: the same layers, and
        what each was made by. A cache is not worth a build: where that fails, a warning says so.
        """
        try:
            if reference.registry == self.inputs.image.registry:
                self.registry.prepare(reference)
            inputs, log = replace(self.inputs, no_cache=False), BuildLog(_nowhere, _nowhere)
            # In a build of its own, since it is written into the image's config; all is there.
            if self._run_build(inputs, [*self._flags(), INLINE, f"--tag={reference}"], log):
                raise self._why(log)
            self._write_config([reference])
            pushed = PushLog(_nowhere, _nowhere)
            command = [self.cli.path, "push", str(reference)]
            if run(command, self.environment, pushed.read, self.progress.check):
                raise push_failure(pushed.last, reference, self.endpoint.host)
        except (OperatorError, PermissionDenied, TransientError, UserError) as error:
            self.progress.warn(f"The layers are not kept for later builds: {error.message}")
        finally:
            ask([self.cli.path, "rmi", str(reference)], self.environment)

    def _run_build(self, inputs: BuildInputs, more: Sequence[str], log: BuildLog) -> int:
        """Return the exit code of a build with `more` arguments."""
        caches = map(ImageReference.parse, (*inputs.cache_from, *map(str, places_of(inputs))))
        self._write_config([*_images(self._dockerfile, inputs.build_args), *caches])
        arguments, variables = build_arguments(inputs, self.environment)
        command = [self.cli.path, "build", *arguments, *other_arguments(inputs), *more]
        command += [f"--file={self._file()}", str(self.source / CONTEXT)]
        return run(
            command,
            variables | self.environment,
            log.read,
            self.progress.check,
            log.read_unfinished,
        )

    def push(self) -> str:
        """Push the image and return its digest.

        Another build of the same image may take its tag away, and a push may outlive its
        credentials: then it is begun again, and goes on where it was, since the engine sends no
        layer that the registry has.
        """
        for _ in range(PUSH_TRIES):
            expires = self._write_config()
            log = PushLog(self.progress.log, self.progress.amount)
            code = run(
                [self.cli.path, "push", str(self.inputs.image)],
                self.environment,
                log.read,
                self.progress.check,
                terminal=True,
            )
            if code == 0 and log.digest:
                return log.digest
            if log.tag_is_kept and (kept := self.registry.digest(self.inputs.image)):
                self.progress.log(
                    f"{self.inputs.image} is there already, and cannot be replaced: {kept} is kept"
                )
                return kept
            failure = push_failure(log.last, self.inputs.image, self.endpoint.host)
            if log.tag_is_gone:
                ask([self.cli.path, "tag", self.held, str(self.inputs.image)], self.environment)
            elif isinstance(failure, PermissionDenied) and expires - time.time() < _CLOCKS:
                self.progress.log("The credentials for the push have ended: going on with new ones")
            else:
                raise failure
        raise failure

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Remove our tags from the engine at the end, whatever happens; if that fails, the log says
        so.
        """
        try:
            yield
        finally:
            try:
                said = _untag(self.cli, self.tags, self.environment)
            except ImagemillError as error:
                said = [str(error)]
            for line in said:
                self.progress.log(f"Could not clear up in the Docker engine: {line}")

    def _file(self) -> Path:
        """Return the Dockerfile; one that mounts shared caches, with caches of the build's own
        place.
        """
        given, own = self.source / DOCKERFILE, self.folder / DOCKERFILE
        text, shared = given.read_bytes(), SHARED.encode()
        if shared not in text:
            return given
        own.write_bytes(text.replace(shared, f"id=imagemill-{self.inputs.cache}-".encode()))
        shutil.copyfile(f"{given}.dockerignore", f"{own}.dockerignore")
        return own

    @property
    def _dockerfile(self) -> str:
        return (self.source / DOCKERFILE).read_text(errors="replace")

    def _write_config(self, images: Iterable[ImageReference] = ()) -> float:
        """Write docker's config anew, since credentials may end during a long build; when they do,
        since 1970. It has logins for the image that is made, and for `images`.
        """
        folder = self.folder / "config"
        folder.mkdir(mode=0o700, exist_ok=True)
        image = self.inputs.image
        credentials = self.registry.credentials(image)
        copy = self.place.docker_config.private_copy(image.registry, credentials, images)
        (folder / "config.json").write_text(json.dumps(copy))
        # BuildKit knows a folder again by its path and by the node that this file names.
        for place in (folder, folder / "buildx"):
            place.mkdir(mode=0o700, exist_ok=True)
            (place / ".buildNodeID").write_text(_NODE)
        return (
            math.inf if credentials is None or credentials.expires is None else credentials.expires
        )

    def _flags(self) -> list[str]:
        if self.cli.buildkit:
            return ["--progress=plain"]
        if self.inputs.secrets or self.inputs.ssh:
            what = "Build secrets" if self.inputs.secrets else "SSH keys"
            raise OperatorError(
                f"{what} need BuildKit, and the docker CLI on {machine()} has none",
                "install its buildx plugin (docker-buildx-plugin)",
            )
        self.progress.log(_NO_BUILDKIT)
        return ["--force-rm"]

    def _why(self, log: BuildLog) -> ImagemillError:
        """Return the error for a build that has failed."""
        text = self._dockerfile
        return explain(
            Evidence(
                text=bare(log.fault or log.error),
                step=log.step,
                instruction=locate(text, log.step, log.source_line),
                solving=is_solving(log.error),
                output=tuple(log.output),
                dockerfile=text,
                target=self.inputs.target,
                host=self.endpoint.host,
            )
        )


def _untag(cli: Cli, tags: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Remove tags from the engine; return what it says against it."""
    said = ask([cli.path, "rmi", *tags], environment).stderr
    # Of a build that has failed or was killed there may be none.
    return [line for line in said.splitlines() if "No such image" not in line]


def _nowhere(text: str) -> None:
    """Take what is said is of the build that was shown already."""


def _images(dockerfile: str, build_args: Mapping[str, str]) -> Iterator[ImageReference]:
    """Yield the images that the Dockerfile names; what is none fails in the build, with its line."""
    for name in named_images(dockerfile, build_args):
        with suppress(UserError):
            yield ImageReference.parse(name)

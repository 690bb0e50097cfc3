"""The docker command line: which one to use, which engine it reaches, and how to run it so that it
can be stopped.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from imagemill import processes
from imagemill.builders.engine_failures import engine_failure
from imagemill.errors import OperatorError, ServiceUnreachable
from imagemill.text import shortened

MAX_LINE = 8192
"""Bytes of one line of output; the rest is cut."""

GRACE = 5.0
"""Seconds that a command has to end after SIGTERM, before it is killed."""

ANSWER = 20.0
"""Seconds that the CLI has to say something about itself or its engine."""

_BUILT_IN = range(18, 23)
"""Major versions of the CLI with BuildKit in it:
https://docs.docker.com/engine/release-notes/23.0/#2300.
"""


@dataclass(frozen=True)
class Cli:
    """A docker command line; `buildkit` says whether it can build with BuildKit, by itself or by
    its plugin `buildx`.
    """

    path: str
    buildkit: bool
    buildx: bool = False


@dataclass(frozen=True)
class Endpoint:
    """Where an engine is; `certificates` is the folder with ca.pem, cert.pem and key.pem, if it
    wants TLS.
    """

    host: str
    certificates: Path | None = None
    verify: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make the CLI use this engine."""
        variables = {"DOCKER_HOST": self.host}
        if self.certificates:
            variables["DOCKER_CERT_PATH"] = str(self.certificates)
            variables["DOCKER_TLS_VERIFY" if self.verify else "DOCKER_TLS"] = "1"
        return variables


_NEEDED = re.compile(
    r"HOME|USER|LOGNAME|TMPDIR|TZ|LANG|LC_[A-Z]+|SSH_AUTH_SOCK|XDG_RUNTIME_DIR"
    r"|SSL_CERT_(?:FILE|DIR)|(?i:(?:HTTPS?|NO|ALL)_PROXY)"
)
"""What docker needs of a worker's environment: the rest may be secret, and is none of its business.
"""


def needed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the docker command gets of a worker's environment."""
    return {name: environment[name] for name in environment if _NEEDED.fullmatch(name)} | {
        "PATH": path_of(environment)
    }


def path_of(environment: Mapping[str, str]) -> str:
    """Where programs are looked for."""
    return environment.get("PATH", processes.DEFAULT_PATH)


def choose(cli: Path | None, path: str, docker_config: Path) -> Cli | None:
    """Return the CLI at `cli` if that is given, else the best one on `path`."""
    return describe_cli(str(cli), path, docker_config) if cli else find_cli(path, docker_config)


@lru_cache
def find_cli(path: str, docker_config: Path) -> Cli | None:
    """Return the first `docker` in the folders of `path` that speaks BuildKit, else the first at
    all; None if there is none.

    `docker_config` is the folder in which plugins of the user may lie. Remembered for the life of
    the process.
    """
    programs = filter(
        None, (shutil.which("docker", path=folder) for folder in path.split(os.pathsep))
    )
    clis = [describe_cli(program, path, docker_config) for program in dict.fromkeys(programs)]
    return next((cli for cli in clis if cli.buildkit), clis[0] if clis else None)


@lru_cache
def describe_cli(cli: str, path: str, docker_config: Path) -> Cli:
    """Find out what the CLI at `cli` can do, with `path` to find its helpers by."""
    environment = {"PATH": path, "DOCKER_CONFIG": str(docker_config)}
    version = ask(
        [cli, "--version"], environment
    ).stdout  # Docker version 20.10.24+dfsg1, build 297e128
    major = version.removeprefix("Docker version ").split(".")[0]
    if major.isdigit() and int(major) in _BUILT_IN:
        return Cli(cli, buildkit=True)
    buildx = ask([cli, "buildx", "version"], environment).returncode == 0
    return Cli(cli, buildkit=buildx, buildx=buildx)


def reaches_engine(
    cli: str, host: str | None, environment: Mapping[str, str], docker_config: Path
) -> bool:
    """Whether the CLI reaches an engine; False if there is none on this machine and nobody has
    named one.

    An engine that somebody named in `host`, that refuses us or that does not answer in time is an
    error: it may be there the next time.
    """
    endpoint = find_endpoint(cli, host, environment, docker_config)
    variables = {
        **needed(environment),
        **endpoint.environment,
        "DOCKER_CONFIG": str(docker_config),
    }
    done = ask([cli, "version", "--format", "{{.Server.Version}}"], variables)
    if done.returncode == 0:
        return True
    error = engine_failure(done.stderr, endpoint.host) or OperatorError(
        f"{cli} version failed: {shortened(done.stderr)}",
        "try it as the user that Imagemill runs as",
    )
    if isinstance(error, ServiceUnreachable) and host is None:
        return False
    raise error


def find_endpoint(
    cli: str, host: str | None, environment: Mapping[str, str], docker_config: Path
) -> Endpoint:
    """Return the engine that `docker` itself would use: `host` if given, else that of the current
    context in its config.
    """
    if host:
        certificates = environment.get("DOCKER_CERT_PATH")
        verify = bool(environment.get("DOCKER_TLS_VERIFY"))
        tls = verify or bool(environment.get("DOCKER_TLS"))
        return Endpoint(host, Path(certificates) if tls and certificates else None, verify)
    chosen = {name: environment[name] for name in ("DOCKER_CONTEXT",) if name in environment}
    variables = {**needed(environment), **chosen, "DOCKER_CONFIG": str(docker_config)}
    done = ask([cli, "context", "inspect"], variables)
    if done.returncode != 0:
        raise OperatorError(
            f"docker context inspect failed: {shortened(done.stderr)}", "see `docker context ls`"
        )
    return _endpoint_of(json.loads(done.stdout)[0])


def _endpoint_of(context: dict[str, Any]) -> Endpoint:
    """Read what `docker context inspect` says:
    https://docs.docker.com/reference/cli/docker/context/inspect/.
    """
    engine = context["Endpoints"]["docker"]
    has_tls = "docker" in (context.get("TLSMaterial") or {})
    certificates = Path(context["Storage"]["TLSPath"], "docker") if has_tls else None
    return Endpoint(engine["Host"], certificates, not engine.get("SkipTLSVerify", False))


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    read: Callable[[str], None],
    check: Callable[[], None],
    read_unfinished: Callable[[str], None] = lambda line: None,
    *,
    terminal: bool = False,
) -> int:
    """Run a command and return its exit code; `read` gets each line of its output, standard error
    among it, and `read_unfinished` what there is of a line that is written over and over. At a
    `terminal`, where docker shows bytes, `read` gets each state of such a line.

    `check` is called at least once a second. If it or `read` raises, the command and all that it
    started is ended; the engine ends a build whose client has gone.
    """
    lines = _Lines(read, read_unfinished)

    def take(chunk: bytes) -> None:
        lines.take(chunk.replace(b"\r", b"\n") if terminal else chunk)

    try:
        code = processes.run(
            command, environment, lambda _: check(), take, grace=GRACE, terminal=terminal
        )
    except processes.CannotRunError as error:
        raise no_cli(str(error)) from None
    lines.end()
    return code


class _Lines:
    """Cuts output into lines, and each of them at `MAX_LINE`."""

    def __init__(self, read: Callable[[str], None], read_unfinished: Callable[[str], None]) -> None:
        self._read, self._read_unfinished = read, read_unfinished
        self._rest = b""

    def take(self, chunk: bytes) -> None:
        *whole, last = (self._rest + chunk).split(b"\n")
        self._rest = last[:MAX_LINE]
        for line in whole:
            self._read(_text(line))
        if b"\r" in last:
            self._read_unfinished(last[-MAX_LINE:].decode(errors="replace"))

    def end(self) -> None:
        """Hand on what came after the last line end."""
        if self._rest:
            self._read(_text(self._rest))


def no_cli(message: str) -> OperatorError:
    """Return the error for a missing docker CLI."""
    return OperatorError(
        message,
        "install the Docker CLI (Debian: docker.io; else docker-ce-cli, docker-buildx-plugin)",
    )


def ask(
    command: Sequence[str], environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run the CLI for a short answer; `ServiceUnreachable` if there is none in `ANSWER` seconds."""
    try:
        return subprocess.run(
            command,
            env=dict(environment),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER,
            check=False,
        )
    except OSError as error:
        raise no_cli(f"{command[0]} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ServiceUnreachable(
            f"{' '.join(command)} gave no answer in {ANSWER:.0f} s",
            "see whether the Docker engine hangs",
        ) from None


def _text(line: bytes) -> str:
    return line[:MAX_LINE].decode(errors="replace")

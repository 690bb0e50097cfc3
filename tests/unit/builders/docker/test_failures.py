"""What failed builds and pushes are told as, in the words of BuildKits that are newer than the
tests' own engine.
"""

from dataclasses import dataclass

import pytest

from imagemill.builders.docker.failures import Evidence, bare, explain, is_solving, locate
from imagemill.builders.docker.push import push_failure
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.reference import ImageReference

HOST = "unix:///run/docker.sock"
SOLVE = "ERROR: failed to build: failed to solve: "
MAKE = 'process "/bin/sh -c make" did not complete successfully: '
DOCKERFILE = """\
FROM python:3.12 AS build
WORKDIR /src
COPY nothere /src
RUN <<END
make
END
FROM scratch
COPY --from=build /src/out /out
"""


@dataclass(frozen=True)
class Case:
    """A failure: the error, the step and the line as BuildKit gives them, and what is to be made of
    it.
    """

    error: str
    kind: type[ImagemillError]
    message: str
    hint: str = ""
    step: str = ""
    output: tuple[str, ...] = ()
    target: str | None = None


RUN = "[build 4/4] RUN <<END (make)"
PYTHON = "[internal] load metadata for docker.io/library/python:3.12"
LINES = {
    RUN: 4,
    "[build 3/4] COPY nothere /src": 3,
    "[stage-1 1/1] COPY --from=build /src/out /out": 8,
}
"""The lines that BuildKit names itself."""

CASES = {
    "syntax": Case(
        f"{SOLVE}dockerfile parse error on line 2: unknown instruction: WORKDR (did you mean WORKDIR?)",
        UserError,
        "Line 2 of the Dockerfile cannot be read: unknown instruction: WORKDR (did you mean WORKDIR?)",
        "here-documents need",
    ),
    "unknown target": Case(
        f'{SOLVE}target stage "biuld" could not be found (did you mean build?)',
        UserError,
        "The Dockerfile has no stage 'biuld'",
        "did you mean 'build'? its stages are: build",
        target="biuld",
    ),
    "command": Case(
        f"{MAKE}exit code: 2",
        UserError,
        "Line 4 of the Dockerfile (RUN <<END) failed with exit code 2",
        "the last lines of the log",
        step=RUN,
    ),
    "program not found": Case(
        f"{MAKE}exit code: 127", UserError, "exit code 127", "a program was not found", step=RUN
    ),
    "out of memory": Case(
        f"{MAKE}cannot allocate memory",
        UserError,
        "failed with exit code 137: it was killed",
        "memory",
        step=RUN,
    ),
    "other platform": Case(
        f"{MAKE}exit code: 1",
        UserError,
        "failed with exit code 1",
        "another platform",
        output=("exec /bin/sh: exec format error",),
        step=RUN,
    ),
    "no space for a command": Case(
        f"{MAKE}exit code: 1",
        OperatorError,
        f"The Docker engine at {HOST} has no space left",
        "docker builder prune",
        output=("cc: No space left on device",),
        step=RUN,
    ),
    "file missing": Case(
        'failed to calculate checksum of ref 5a3::b8: "/nothere": not found',
        UserError,
        "Line 3 of the Dockerfile (COPY nothere /src): there is no 'nothere' in the build context",
        ".dockerignore",
        step="[build 3/4] COPY nothere /src",
    ),
    "folder missing": Case(
        "failed to walk /var/lib/docker/tmp/buildkit-mount17/no: lstat /var/lib/docker/tmp/buildkit-mount17/no: no such"
        " file or directory",
        UserError,
        "there is no 'no' in the build context",
        ".dockerignore",
        step="[build 3/4] COPY nothere /src",
    ),
    "file missing in a stage": Case(
        'failed to calculate checksum of ref 5a3::b8: "/src/out": not found',
        UserError,
        "there is no 'src/out' where it copies from",
        "check path and stage",
        step="[stage-1 1/1] COPY --from=build /src/out /out",
    ),
    "no such base": Case(
        "docker.io/library/python:3.12: not found",
        UserError,
        "The base image docker.io/library/python:3.12 does not exist",
        "check its name, tag and platform; one that only the engine has is found if builder.base-digests is false",
        step=PYTHON,
    ),
    "no such base, or private": Case(
        "pull access denied, repository does not exist or may require authorization: insufficient_scope: authorization",
        UserError,
        "The base image docker.io/library/python:3.12 does not exist, or the worker may not pull it",
        "login",
        step=PYTHON,
    ),
    "no access to the base": Case(
        "failed to authorize: unexpected status from GET request to https://ghcr.io/token: 403 Forbidden",
        PermissionDenied,
        "Pulling the base image ghcr.io/a/b:1 failed",
        "give the worker a login that ghcr.io accepts",
        step="[internal] load metadata for ghcr.io/a/b:1",
    ),
    "rate limit": Case(
        "unexpected status from HEAD request to https://registry-1.docker.io/v2/library/python/manifests/3.12:"
        " 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit.",
        ServiceUnreachable,
        "docker.io limits how often it is asked",
        "mirror",
        step=PYTHON,
    ),
    "the base's registry is away": Case(
        'failed to do request: Head "https://r.example/v2/": dial tcp: lookup r.example: i/o timeout',
        ServiceUnreachable,
        "Pulling the base image r.example/b:1 failed",
        "check that r.example runs",
        step="[internal] load metadata for r.example/b:1",
    ),
    "the base's registry is ill": Case(
        "failed to copy: httpReadSeeker: failed open: unexpected status code https://r/: 503 Service Unavailable",
        ServiceUnreachable,
        "Pulling the base image r.example/b:1 failed",
        step="[build 1/4] FROM r.example/b:1",
    ),
    "the base's registry is away, told by the classic builder": Case(
        'Get "https://r.example/v2/": dial tcp: lookup r.example: no such host',
        ServiceUnreachable,
        "Pulling the base image r.example/b:1 failed",
        "check that r.example runs",
        step="Step 1/8 : FROM r.example/b:1 AS shell",
    ),
    "no frontend": Case(
        "failed to do request: dial tcp: lookup registry-1.docker.io: no such host",
        ServiceUnreachable,
        "Pulling the Dockerfile frontend docker.io/docker/dockerfile:1 failed",
        step="resolve image config for docker-image://docker.io/docker/dockerfile:1",
    ),
    "secret": Case(
        "secret tok: not found",
        UserError,
        "needs the build secret 'tok', which was not asked for",
        step=RUN,
    ),
    "the engine is lost": Case(
        f"{SOLVE}failed to read dockerfile: rpc error: code = Unavailable desc = error reading from server: EOF",
        ServiceUnreachable,
        f"The Docker engine at {HOST} broke off",
        "journalctl",
    ),
    "no engine": Case(
        f"ERROR: failed to connect to the docker API at {HOST}; check if the daemon is running: no such file",
        ServiceUnreachable,
        f"The Docker engine at {HOST} does not answer",
        "systemctl start docker",
    ),
    "no access to the engine": Case(
        f"ERROR: permission denied while trying to connect to the Docker daemon socket at {HOST}",
        PermissionDenied,
        f"The worker may not use the Docker engine at {HOST}",
        "group",
    ),
    "no space for the engine": Case(
        f"{SOLVE}write /var/lib/docker/x: no space left on device",
        OperatorError,
        "has no space left",
        "docker builder prune",
    ),
    "platform": Case(
        'ERROR: "a/b/c/d": invalid platform specifier', UserError, "does not take the request"
    ),
    "unknown, of the solver": Case(
        f"{SOLVE}base name (${{X}}) should not be blank",
        UserError,
        "The build failed: base name (${X}) should not be blank",
        "log",
    ),
    "unknown, in a step": Case(
        "something new",
        UserError,
        "Line 2 of the Dockerfile (WORKDIR /src) failed: something new",
        "log",
        step="[build 2/4] WORKDIR /src",
    ),
    "unknown, of the command line": Case(
        "ERROR: something else", OperatorError, "docker build failed: something else", "log"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_failed_build_is_told_by_who_can_mend_it(case: Case) -> None:
    evidence = Evidence(
        text=bare(case.error),
        step=case.step,
        instruction=locate(DOCKERFILE, case.step, LINES.get(case.step)),
        solving=is_solving(case.error),
        output=case.output,
        dockerfile=DOCKERFILE,
        target=case.target,
        host=HOST,
    )
    error = explain(evidence)
    assert type(error) is case.kind
    assert case.message in error.message
    assert error.hint
    assert case.hint in error.hint


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "denied: requested access to the resource is denied",
            PermissionDenied,
            "Pushing to r.example/team/app failed",
        ),
        (
            "unexpected status from POST request to https://r.example/v2/: 401 Unauthorized",
            PermissionDenied,
            "team/app",
        ),
        ("received unexpected HTTP status: 502 Bad Gateway", ServiceUnreachable, "502"),
        (
            'Put "https://r.example/v2/": net/http: TLS handshake timeout',
            ServiceUnreachable,
            "timeout",
        ),
        (
            'Get "https://r.example/v2/": http: server gave HTTP response to HTTPS client',
            OperatorError,
            "TLS",
        ),
        (
            'Get "https://r.example/v2/": x509: certificate signed by unknown authority',
            OperatorError,
            "x509",
        ),
        ("toomanyrequests: retry later", ServiceUnreachable, "limits how often"),
        (
            'error parsing HTTP 429 response body: unexpected end of JSON input: ""',
            ServiceUnreachable,
            "limits how often",
        ),
        (
            "manifest blob unknown: blob unknown to registry",
            TransientError,
            "does not find a layer",
        ),
        ("manifest invalid: something", OperatorError, "manifest invalid: something"),
        ("error during connect: Post ...: EOF", ServiceUnreachable, "does not answer"),
        (
            "name unknown: The repository with name 'team/app' does not exist",
            OperatorError,
            "name unknown",
        ),
    ],
)
def test_a_failed_push_is_told_by_who_can_mend_it(
    text: str, kind: type[ImagemillError], message: str
) -> None:
    error = push_failure(text, ImageReference.parse("r.example/team/app:1"), HOST)
    assert type(error) is kind
    assert message in error.message
    assert error.hint

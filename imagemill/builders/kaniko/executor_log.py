"""Why Kaniko's executor failed, from the last lines of its log: whose fault it is, and what to do.

The executor ends with one line that begins with what it was doing: `cmd/executor/cmd/root.go` of
https://github.com/osscontainertools/kaniko. The texts within are those of go-containerregistry and
the clouds' SDKs.
"""

import re
from collections.abc import Sequence

from imagemill.builders.engine_failures import (
    IMMUTABLE_TAG,
    NO_SPACE,
    PLAIN_HTTP,
    UNTRUSTED,
    Doing,
    registry_failure,
)
from imagemill.encoding import json_value
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.patterns import Linear
from imagemill.place import machine
from imagemill.text import shortened, without_escapes

_LAST_WORD = Linear(
    r"(?:Error: )?(?P<doing>error (?:building image|checking push permissions|pushing image|resolving source context"
    r"|resolving dockerfile path))\b.*?: (?P<why>.*)|Error: (?P<fault>.*)|.*level=fatal msg=\"?(?P<fatal>.*?)\"?$"
    r"|FATA\[\d+\]:? (?P<died>.*)"
)
_INSTRUCTION = Linear(
    r"(?:INFO\[\d+\]|.*level=info msg=\"?)\s*"
    r"(?P<text>(?:ADD|COPY|RUN|WORKDIR|USER|ENV|ARG|FROM|VOLUME|LABEL|SHELL|ONBUILD) .*?)\"?$"
)
_EXIT = re.compile(r"waiting for process to exit: exit status (?P<code>\d+)")
_KILLED = re.compile(r"waiting for process to exit: signal: killed")
_ABSENT = re.compile(
    r"MANIFEST_UNKNOWN|NAME_UNKNOWN|manifest unknown|NoSuchKey|NotFound|object doesn't exist|\b404\b"
)
_REFUSED = re.compile(
    r"UNAUTHORIZED|DENIED|AccessDenied|Forbidden|\b40[13]\b|no basic auth|NoCredential",
    re.IGNORECASE,
)
_NO_CONTEXT = re.compile(r"NoSuchKey|object doesn't exist|BlobNotFound")
_NO_CREDENTIALS = re.compile(
    r"no EC2 IMDS role found|failed to refresh cached credentials|NoCredentialProviders|get credentials: "
    r"|could not find default credentials|DefaultAzureCredential: failed|no valid credential|AnonymousCredential",
    re.IGNORECASE,
)
_NOT_IN_CONTEXT = Linear(
    r"(?:fileinfo for|l?stat) /kaniko/buildcontext/(?:context/)?(?P<path>\S+?): (?:l?stat\b|no such file)"
)
_TEXT_FORMAT = re.compile(
    r'time="[^"]*" level=(?P<level>[a-z]+) msg=(?P<text>"(?:[^"\\]|\\.)*"|\S*)(?: .*)?'
)
_USAGE = re.compile(
    r"\s*|\s+\S.*|(?:Usage|Flags|Available Commands|Global Flags|Aliases):.*|Use \".*"
)
_REGISTRY = Linear(
    r"(?:GET|HEAD|POST|PUT|PATCH) \"?https?://(?P<host>[^/\s\"]+)/(?:v2/(?P<path>\S+?)/manifests/(?P<tag>\S+?):)?",
    ignore_case=True,
)


def explain(log: Sequence[str], code: int, image: str) -> ImagemillError:
    """Return the error for an executor that ended with an exit code other than 0; `image` is what
    it was to push.
    """
    lines = _bare(log)
    doing, why = _last_word(lines)
    if NO_SPACE.search(why):
        return OperatorError(
            f"The build's node has no disk left for it: {shortened(why)}",
            "raise resources.requests.ephemeral-storage of the container in builder.kaniko-config",
        )
    match doing:
        case "error building image" | "error resolving dockerfile path":
            found = (
                match["text"] for line in reversed(lines) if (match := _INSTRUCTION.match(line))
            )
            return _building(why, next(found, ""))
        case "error checking push permissions" | "error pushing image":
            return _pushing(why, image)
        case "error resolving source context":
            return _context(why)
    told = shortened(why or (lines[-1] if lines else "it said nothing"))
    return OperatorError(
        f"Kaniko ended with exit code {code}: {told}",
        "see the log, and args and image in builder.kaniko-config",
    )


class Readable:
    """The executor's log as people read it: what was said, without the logger's own marks, and
    without the list of all flags that follows on some errors.
    """

    def __init__(self) -> None:
        self._in_usage = False

    def line(self, line: str) -> str | None:
        """Return what the line says; None if it says nothing."""
        self._in_usage = line == "Usage:" or (self._in_usage and _USAGE.fullmatch(line) is not None)
        if self._in_usage:
            return None
        found = _TEXT_FORMAT.fullmatch(line)
        if found is None:
            return line
        level, text = found["level"], _unquoted(found["text"])
        return text if level in ("info", "debug", "trace") else f"{level}: {text}"


def _unquoted(text: str) -> str:
    """Return what Go's %q has put into quotes; as it is, if it is not of that form."""
    if not text.startswith('"'):
        return text
    try:
        return str(json_value(text))
    except ValueError:
        return text[1:-1]


def tag_is_kept(log: Sequence[str]) -> bool:
    """Whether the executor failed since the registry has an image of that tag, which it does not
    let anybody change.
    """
    doing, why = _last_word(_bare(log))
    return doing == "error pushing image" and IMMUTABLE_TAG.search(why) is not None


def _bare(log: Sequence[str]) -> list[str]:
    return [without_escapes(line) for line in log if line.strip()]


def _last_word(lines: Sequence[str]) -> tuple[str, str]:
    """Return what the executor was doing when it gave up, and why it did; both empty if it did not
    say.
    """
    for line in reversed(lines):
        if found := _LAST_WORD.match(line):
            return found["doing"] or "", found["why"] or found["fault"] or found["fatal"] or found[
                "died"
            ] or line
    return "", ""


def _building(why: str, instruction: str) -> ImagemillError:
    place = f"{shortened(instruction, 200)} in the Dockerfile" if instruction else "The Dockerfile"
    if found := _EXIT.search(why):
        return UserError(
            f"{place} failed with exit code {found['code']}",
            "the last lines of the log are its own",
        )
    if _KILLED.search(why):
        return UserError(
            f"{place} was killed, most likely for want of memory",
            "let it use less, or raise resources.limits.memory of the container in builder.kaniko-config",
        )
    if found := _REGISTRY.search(why):
        return _base_image(why, found)
    if found := _NOT_IN_CONTEXT.search(why):
        return UserError(
            f"{place} failed: {found['path']} is not in the build context: no such file or directory",
            "check the path, and that .dockerignore does not leave it out",
        )
    return UserError(f"{place} failed: {shortened(why)}", "see the last lines of the log")


def _base_image(why: str, found: re.Match[str]) -> ImagemillError:
    name = (
        f"{found['host']}/{found['path']}:{found['tag']}"
        if found["path"]
        else f"on {found['host']}"
    )
    told = f"A base image cannot be pulled: {shortened(why)}"
    if _ABSENT.search(why):
        return UserError(
            f"The base image {name} does not exist: {shortened(why)}", "mend FROM in the Dockerfile"
        )
    if _REFUSED.search(why):
        hint = "check its name; if it is private, give the pod a login (builder.secret-name) or a service account"
        return PermissionDenied(told, hint, "pull", name)
    known = _registry_failure(why, Doing("Pulling a base image", found["host"]))
    return known or UserError(told, "see the last lines of the log")


def _pushing(why: str, image: str) -> ImagemillError:
    registry = image.partition("/")[0]
    if _REFUSED.search(why):
        return PermissionDenied(
            f"The build's pod may not push to {image}: {shortened(why)}",
            f"give {machine()} a login for it, name one in builder.secret-name, or allow the pod's service account",
            "push",
            image,
        )
    known = _registry_failure(why, Doing(f"Pushing to {image}", registry))
    return known or OperatorError(
        f"Pushing to {image} failed: {shortened(why)}", "see the log of the registry"
    )


def _registry_failure(why: str, doing: Doing) -> ImagemillError | None:
    """As `failures.registry_failure`, with what to do where there is a pod and no Docker engine."""
    action, registry = doing
    if PLAIN_HTTP.search(why):
        hint = f"add --insecure-registry={registry} to args in builder.kaniko-config if it is to be used without"
        return OperatorError(f"{action} failed: {registry} does not speak TLS", hint)
    if UNTRUSTED.search(why):
        hint = (
            "mount the certificate of the authority that signed it, and add"
            f" --registry-certificate={registry}=/ITS/PATH to args in builder.kaniko-config"
        )
        return OperatorError(f"{action} failed: {shortened(why)}", hint)
    known = registry_failure(why, doing)
    if isinstance(known, ServiceUnreachable):
        return ServiceUnreachable(
            known.message, f"check that {registry} runs, and that pods can reach it"
        )
    return known


def _context(why: str) -> ImagemillError:
    told = f"The build's pod cannot read the context: {shortened(why)}"
    if _NO_CREDENTIALS.search(why):
        hint = (
            "the pod has no credentials for builder.build-context-store: name a Secret in builder.secret-name,"
            " or run it as a service account that has a role (serviceAccountName in builder.kaniko-config)"
        )
        return PermissionDenied(told, hint, "read", "the context store")
    if _REFUSED.search(why):
        hint = (
            "allow the pod's service account to read builder.build-context-store, "
            "or name a key in builder.secret-name"
        )
        return PermissionDenied(told, hint, "read", "the context store")
    if _NO_CONTEXT.search(why):
        # One context serves all builds of its source, and another of them may have ended and
        # removed it.
        return TransientError(
            told,
            "it is packed again; if this lasts, see who deletes from builder.build-context-store",
        )
    if isinstance(registry_failure(why, Doing("", "the store")), ServiceUnreachable):
        return ServiceUnreachable(told, "check that pods can reach builder.build-context-store")
    return OperatorError(told, "check builder.build-context-store, and what pods can read of it")

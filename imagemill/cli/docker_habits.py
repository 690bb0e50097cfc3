"""What docker's users type: what it means here, and what to do instead where it cannot be."""

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from imagemill.cli.options import Misuse
from imagemill.errors import UserError
from imagemill.reference import ImageReference, is_tag

_PUSHED = "the image is in its registry: `docker pull IMAGE` brings it here"
_ONE_MACHINE = "set it on the docker engine, or build with `docker build`"

INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "--load": _PUSHED,
        "--output": f"{_PUSHED}, and `docker save IMAGE` into a file",
        "-o": f"{_PUSHED}, and `docker save IMAGE` into a file",
        "--no-cache-filter": "--no-cache builds all stages anew",
        "--build-context": "put the folder into the source, or FROM and COPY --from=IMAGE an image",
        "--annotation": "--label KEY=VALUE says it in the image's config",
        "--attest": "sign and attest the image by its digest, which --metadata-file writes",
        "--provenance": "attest the image by its digest, which --metadata-file writes",
        "--sbom": "scan the image by its digest, which --metadata-file writes",
        "--call": "`imagemill hash SRC` reads the source, and `imagemill dockerfile SRC` generates",
        "--check": "`imagemill hash SRC` reads the source without building",
        "--builder": "builder.type in the launch config says what builds",
        "--network": _ONE_MACHINE,
        "--add-host": _ONE_MACHINE,
        "--allow": _ONE_MACHINE,
        "--shm-size": _ONE_MACHINE,
        "--ulimit": _ONE_MACHINE,
        "--memory": _ONE_MACHINE,
        "-m": _ONE_MACHINE,
        "--memory-swap": _ONE_MACHINE,
        "--cpu-quota": _ONE_MACHINE,
        "--cpu-period": _ONE_MACHINE,
        "--cpu-shares": _ONE_MACHINE,
        "-c": _ONE_MACHINE,
        "--cpuset-cpus": _ONE_MACHINE,
        "--cpuset-mems": _ONE_MACHINE,
        "--cgroup-parent": _ONE_MACHINE,
        "--security-opt": _ONE_MACHINE,
        "--isolation": _ONE_MACHINE,
        "--squash": "a Dockerfile of several stages gives a small image",
        "--compress": "leave it out: contexts are compressed",
        "--rm": "leave it out: nothing stays behind",
        "--force-rm": "leave it out: nothing stays behind",
        "--disable-content-trust": "leave it out",
    }
)
"""Option of `docker build` that is not here → what to do instead."""

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "buildx": "`imagemill build` builds",
        "help": "`imagemill --help` lists the commands, and `imagemill COMMAND --help` tells of one",
        "images": "`imagemill list` lists the builds of the last day, with their images",
        "login": "log in with `docker login REGISTRY`: its credentials are used",
        "logout": "`docker logout REGISTRY` forgets the credentials",
        "ps": "`imagemill list` lists the builds of the last day",
        "pull": _PUSHED,
        "push": "`imagemill build` pushes what it builds",
        "run": f"{_PUSHED}, and `docker run IMAGE` runs it",
        "tag": "`imagemill build --tag TAG` adds a tag, and builds nothing twice",
        "version": "`imagemill --version` tells it",
    }
)
"""Command of docker's that is not here → what to do instead."""

_YES, _NO = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})


def plain_switches(arguments: Sequence[str], switches: Collection[str]) -> list[str]:
    """Return the arguments with switches as they are here where docker's may have a value:
    `--pull` for `--pull=true`, and nothing for `--pull=false`.
    """
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    plain: list[str] = []
    for argument in given[:end]:
        name, equals, value = argument.partition("=")
        known = equals and name in switches and value.lower() in _YES | _NO
        if not known:
            plain.append(argument)
        elif value.lower() in _YES:
            plain.append(name)
    return plain + given[end:]


def named(tags: Sequence[str], destination: str | None) -> tuple[tuple[str, ...], str | None]:
    """Return tags and destination where tags are written as docker has them, `REPOSITORY:TAG`.

    `Misuse` if they name several repositories, or another one than `destination`.
    """
    plain: list[str] = []
    repositories = [] if destination is None else [destination]
    for text in tags:
        if "/" not in text and ":" not in text:
            plain.append(text)
            continue
        repository, tag = _split(text)
        if _in_full(repository) not in map(_in_full, repositories):
            repositories.append(repository)
        plain.append(tag)
    if len(repositories) > 1:
        given = f"--destination {repositories[0]}"
        raise Misuse(
            f"An image goes to one repository, and these are several: {', '.join(repositories)}",
            f"give {given} {' '.join(f'--tag {tag}' for tag in dict.fromkeys(plain))}, and build once more for"
            " another one: nothing is built twice, if a cache is shared",
        )
    return tuple(dict.fromkeys(plain)), repositories[0] if repositories else None


def _split(text: str) -> tuple[str, str]:
    """Repository and tag; as with docker, the tag is `latest` if there is none."""
    if "@" in text:
        raise Misuse(f"{text!r} has a digest, and an image gets its own", "give REPOSITORY:TAG")
    repository, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = text, "latest"
    if not is_tag(tag):
        raise Misuse(f"{text!r} has no tag behind its last ':'", f"give -t {repository}:TAG")
    if "/" not in repository:
        raise Misuse(
            f"{text!r} names no registry to push to",
            f"give -t REGISTRY/{text}, or -d REGISTRY/REPOSITORY -t {tag}",
        )
    return repository, tag


def _in_full(repository: str) -> str:
    """Return the repository as docker shortens it."""
    try:
        reference = ImageReference.parse_destination(repository)
    except UserError:
        return repository
    return f"{reference.registry}/{reference.path}"


def dockerfile(path: str | None, source: str) -> tuple[str | None, str | None]:
    """Return the path of the Dockerfile within a source that is a folder here, or its text if it
    lies outside of it.

    As docker has it, `path` is relative to the working folder, and `-` is standard input; else it
    is relative to the source.
    """
    if path == "-":
        return None, _standard_input()
    if path is None or not Path(source).is_dir():
        return path, None
    there, top = Path(path).absolute(), Path(source).resolve()
    if ".." in there.parts:  # what they lead to is not told by the path alone
        there = there.parent.resolve() / there.name
    if not there.is_file():
        return path, None
    for folder in (Path(source).absolute(), top):
        for file in (there, there.parent.resolve() / there.name):
            if file.is_relative_to(folder):
                return str(file.relative_to(folder)), None
    if there.with_name(f"{there.name}.dockerignore").exists():
        raise Misuse(
            f"{there} lies outside of {source}, and has an ignore file beside it",
            "put both into the source, or the patterns into its .dockerignore",
        )
    try:
        return None, there.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"{there} cannot be read: {error}", "save the file as UTF-8") from None


def _standard_input() -> str:
    """Return the text that comes there: UTF-8, whatever the locale is, as files are."""
    if sys.stdin is None:
        raise Misuse("There is no standard input to read the Dockerfile from", "give --file PATH")
    try:
        return sys.stdin.buffer.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"Standard input cannot be read: {error}", "send it in UTF-8") from None

"""A build request from what was given on the command line."""

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagemill.cli.docker_habits import dockerfile
from imagemill.cli.options import Misuse
from imagemill.errors import UserError
from imagemill.messages import BuildRequest
from imagemill.reference import ImageReference
from imagemill.sources.git.url import is_git

if TYPE_CHECKING:
    from imagemill.config import Loaded

_DOCKERFILE = re.compile(
    r"(?:docker|container)file(?:\.(?!tar|zip|t?gz|t?bz2?|t?xz|zst)\w+)?", re.IGNORECASE
)

NAMES = {name: f"--{name.replace('_', '-')}" for name in BuildRequest.model_fields} | {
    "source": "SRC",
    "dockerfile": "--file",
    "dockerfile_text": "--file",
    "base_image": "--base",
    "build_args": "--build-arg",
    "labels": "--label",
    "secrets": "--secret",
    "system_packages": "--apt",
    "tags": "--tag",
}
"""Field of a request → what gives it on the command line."""


def request(source: str, *, remote: bool, **fields: Any) -> BuildRequest:
    """Return the request, with what git knows of the source where nothing else was said;
    `UserError` if it is not valid.

    `remote` says that the workers are elsewhere, and so may have a source that is not here.
    """
    place = located(source, remote=remote)
    fields["dockerfile"], fields["dockerfile_text"] = dockerfile(fields["dockerfile"], place)
    from imagemill.cli.git_info import GitInfo, checkout

    known = checkout(Path(place)) if Path(place).is_dir() else GitInfo()
    fields["revision"] = fields["revision"] or known.revision
    fields["source_url"] = fields["source_url"] or known.url
    _check_destination(fields["destination"] or "")
    return checked(source=place, **fields)


def checked(**fields: Any) -> BuildRequest:
    """Return the request; `UserError` names the options that are wrong."""
    return BuildRequest.parse(fields, NAMES)


def _check_destination(text: str) -> None:
    """Refuse a tag, which is an option of its own here; the rest is checked with the request."""
    repository, _, tag = text.rpartition(":")
    with suppress(UserError):
        # `localhost:5000` alone is rather a registry without a repository.
        if ImageReference.parse(text).tag == tag and ("/" in repository or not tag.isdigit()):
            raise Misuse(
                f"The destination {text!r} has a tag",
                f"give --destination {repository} --tag {tag}",
            )


def located(source: str, *, remote: bool = False) -> str:
    """Return the source with an absolute path; it means the same to a worker that runs in another
    folder.
    """
    if "://" in source or is_git(source):
        return source
    text, hash_, fragment = source.partition("#subdirectory=")
    path = Path(text)
    if not path.exists() and not (remote and path.is_absolute()):
        raise Misuse(
            "A source is not read from standard input"
            if source == "-"
            else f"There is no folder or file {source}",
            "SRC is a folder, an archive, git+https://HOST/PATH@REF or an image",
        )
    if path.is_file() and _DOCKERFILE.fullmatch(path.name):
        raise Misuse(f"{source} is no folder and no archive", f"give -f {source} {path.parent}")
    located = path.resolve() if ".." in path.parts else path.absolute()
    return f"{located}{hash_}{fragment}"


def check_config(config: str | None, default: Path | None) -> "Loaded":
    """Load the launch config that holds on this machine; `ConfigError` says what is wrong with
    it.
    """
    from imagemill.config import load_found

    return load_found(
        explicit=Path(config) if config else None,
        name=None,
        folder=None,
        environment_file=default,
        home=Path.home(),
    )

"""A build request from what was given on the command line."""

from pathlib import Path
from typing import Any

from imagemill.build import BuildRequest
from imagemill.cli.checkout import Checkout, checkout
from imagemill.cli.options import Misuse
from imagemill.config import Loaded, load_found


def request(source: str, *, remote: bool, **fields: Any) -> BuildRequest:
    """The request, with what git knows of the source where nothing else was said; `UserError` if it is not valid.

    `remote` says that the workers are elsewhere, and so may have a source that is not here.
    """
    place = located(source, remote=remote)
    known = checkout(Path(place)) if Path(place).is_dir() else Checkout()
    fields["revision"] = fields["revision"] or known.revision
    fields["source_url"] = fields["source_url"] or known.url
    return BuildRequest.parse({"source": place, **fields})


def located(source: str, *, remote: bool = False) -> str:
    """The source with an absolute path; it means the same to a worker that runs in another folder."""
    if "://" in source:
        return source
    path = Path(source)
    if not path.exists() and not (remote and path.is_absolute()):
        raise Misuse(f"There is no folder or file {source}", "SRC is a folder, an archive or docker-image://REFERENCE")
    return str(path.resolve() if ".." in path.parts else path.absolute())


def check_config(config: str | None, default: Path | None) -> Loaded:
    """Load the launch config that holds on this machine; `ConfigError` says what is wrong with it."""
    return load_found(
        explicit=Path(config) if config else None,
        name=None,
        folder=None,
        environment_file=default,
        home=Path.home(),
    )

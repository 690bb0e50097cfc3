"""Sources as they are read here, by whoever sits at the terminal: what that person may read, a command may."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagemill.cli.environment import everything
from imagemill.cli.requests import located
from imagemill.errors import UserError
from imagemill.ports import Quiet
from imagemill.sources import open_source
from imagemill.sources.options import SourceOptions


@contextmanager
def fetched(source: str, wanted: str = "files") -> Iterator[Path]:
    """The top folder of a source, for as long as the block lasts; `UserError` if it is an image.

    `wanted` says in that error what an image has none of.
    """
    with tempfile.TemporaryDirectory(prefix="imagemill-") as folder:
        opened = open_source(located(source), options(Path(folder)))
        if opened.image is not None:
            raise UserError(f"{source} is an image, which has no {wanted}", "give a folder, an archive or a repository")
        yield opened.fetch(Path(folder) / "source", Quiet())


def options(scratch: Path) -> SourceOptions:
    """What a person's own variables and git config say."""
    config = Path.home() / ".gitconfig"
    given = {"git_config": config} if config.is_file() else {}
    return SourceOptions.from_environment(everything(), roots=(Path("/"),), scratch=scratch, **given)

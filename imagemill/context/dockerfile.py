"""Finds the Dockerfile in a source, and the `.dockerignore` that goes with it, as BuildKit looks
for them.

https://github.com/moby/buildkit, `frontend/dockerui/config.go`: `<Dockerfile>.dockerignore` beside
the Dockerfile wins over `.dockerignore` at the top, and where there is no `Dockerfile`,
`dockerfile` will do.
"""

import os
import posixpath
from collections.abc import Mapping
from contextlib import suppress
from difflib import SequenceMatcher, get_close_matches
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from imagemill.context.dockerignore import DockerIgnore
from imagemill.context.walk import GIT, Walk, leaves, reading_failed
from imagemill.dockerfile.reads import reads_git
from imagemill.encoding import decoded, is_marked
from imagemill.errors import ImagemillError, UserError
from imagemill.files.tree import OpenFolder, open_below, shown
from imagemill.ports import Quiet

_DEFAULT = "Dockerfile"
OTHER_NAMES = ("Dockerfile.wandb", "Containerfile")
"""What other tools take by itself, the W&B agent and Podman: where there is no `Dockerfile`."""

_MAX_SIZE = 4 << 20
_DESCRIBING = (b"pyproject.toml", b"setup.py", b"setup.cfg")
"""What says how a project gets its version."""

_MAX_LOOKED_AT, _MAX_CANDIDATES = 20_000, 5


class Recipe(NamedTuple):
    """What a source says about its build."""

    path: str
    """Of the Dockerfile, relative to the source's top."""
    dockerfile: bytes
    """Its content."""
    ignore: DockerIgnore
    generated: bool = False
    """Whether the source has no Dockerfile, and it was generated."""
    files: Mapping[bytes, bytes] = MappingProxyType({})
    """What was read of the source for it, by its real path, and so has to be there to find the same
    again.
    """
    git: bool = False
    """Whether the build reads `.git`, which is no part of a source otherwise."""
    warnings: tuple[str, ...] = ()
    """What whoever builds it should know."""
    without_git: bool = False
    """Whether there is one that is left out though no ignore file says so."""


class Generated(NamedTuple):
    """What is generated for a source without a Dockerfile."""

    dockerfile: bytes
    ignore: bytes
    """What is to be ignored where the source has no ignore file."""
    warnings: tuple[str, ...] = ()
    """What the project declares and the image is without."""


class Generator(Protocol):
    """Makes a Dockerfile for a source that has none."""

    @property
    def named(self) -> tuple[str, ...]:
        """What it was asked for by name, which a Dockerfile of the source's own would pass over."""

    def generated(self, root: Path) -> Generated:
        """Return the Dockerfile for the source in the folder `root`; `UserError` if there is
        nothing to make one from.
        """


class Given(NamedTuple):
    """A Dockerfile that lies elsewhere than in the source."""

    text: str


Choice = str | Given | Generator | None
"""The path of a Dockerfile within the source; or its text; or what makes one if the source has
none; or nothing.
"""


def find(root: Path, top: int, dockerfile: Choice) -> Recipe:
    """Read the Dockerfile at `dockerfile` (default: `Dockerfile`) and the ignore file that goes
    with it.

    `root` is the source's folder, `top` its descriptor. `UserError` if the Dockerfile lies
    outside the source, or if there is none; then the error lists those that may have been meant. If
    there is nothing that could have been meant, a generator makes one.
    """
    read = _Reader(os.path.realpath(os.fsencode(root)), top)
    if isinstance(dockerfile, Given):
        return _recipe(read, top, _DEFAULT, dockerfile.text.encode())
    path, generator = (dockerfile, None) if isinstance(dockerfile, str) else (_DEFAULT, dockerfile)
    path = _inside(path)
    content = read.file(path)
    if content is None and posixpath.basename(path) == _DEFAULT:
        content = read.file(posixpath.join(posixpath.dirname(path), _DEFAULT.lower()))
    if content is None and not isinstance(dockerfile, str):
        found = ((name, read.file(name)) for name in OTHER_NAMES)
        path, content = next(
            ((name, text) for name, text in found if text is not None), (path, None)
        )
    if content is not None:
        if generator and generator.named:
            raise _for_nothing(path, generator.named)
        return _recipe(read, top, path, content)
    candidates = _candidates(top, path)
    if generator is None or candidates:
        raise _missing(path, candidates)
    made = generator.generated(OpenFolder.of(root, os.dup(top)))
    ignore = _ignore(read, path, made.ignore)
    return Recipe(
        path,
        made.dockerfile,
        ignore,
        generated=True,
        files=read.found,
        git=ignore.asks_for_git,
        warnings=made.warnings,
    )


def _recipe(read: "_Reader", top: int, path: str, content: bytes) -> Recipe:
    """Return the recipe of a source with this Dockerfile."""
    text = content.decode(errors="replace")
    if is_marked(content) or "\0" in text:
        text = decoded(content, path)
        content = text.encode()
    ignore, there = _ignore(read, path), _has_git(top)
    git = ignore.asks_for_git or (there and _reads_git(top, text))
    return Recipe(
        path,
        content,
        ignore,
        files=read.found,
        git=git,
        without_git=there and not git and not ignore.match(GIT, ignore.at_top)[0],
    )


def _has_git(top: int) -> bool:
    try:
        os.stat(GIT, dir_fd=top, follow_symlinks=False)
    except OSError:
        return False
    return True


def _reads_git(top: int, dockerfile: str) -> bool:
    """Whether a build by the Dockerfile reads `.git`, by itself or to find the project's
    version.
    """
    described = b""
    for name in _DESCRIBING:
        with suppress(OSError), open_below(top, name) as file:
            described += file.read(_MAX_SIZE)
    return reads_git(dockerfile, described.decode(errors="replace"))


def _ignore(read: "_Reader", path: str, default: bytes = b"") -> DockerIgnore:
    """Return what is to be ignored, by the ignore file that goes with the Dockerfile at `path`, or
    the `default`.
    """
    for name in (f"{path}.dockerignore", ".dockerignore"):
        patterns = read.file(name)
        if patterns is not None:
            return DockerIgnore.parse(patterns, name)
    return DockerIgnore.parse(default, ".dockerignore")


def _for_nothing(path: str, named: tuple[str, ...]) -> UserError:
    return UserError(
        f"The source has a {path}, which knows nothing of {' and '.join(named)}: they are for generated ones",
        "leave them out, or remove the Dockerfile; build arguments go to a Dockerfile's own ARGs",
    )


def _inside(path: str) -> str:
    normal = posixpath.normpath(path)
    if normal.startswith(("/", "../")) or normal == "..":
        raise UserError(
            f"The Dockerfile {path!r} lies outside the source",
            "give its path relative to the source's top folder",
        )
    return normal


class _Reader:
    """Reads small files of the source, whose real path is `root`, by their paths in it."""

    def __init__(self, root: bytes, top: int) -> None:
        self._root, self._top = root, top
        self.found: dict[bytes, bytes] = {}
        """Real path in the source → content."""

    def file(self, path: str) -> bytes | None:
        """Return the content of a file, followed through links that stay in the source; `None` if
        there is no such file.
        """
        real = os.path.realpath(posixpath.join(self._root, os.fsencode(path)))
        inside = posixpath.relpath(real, self._root)
        if inside.split(b"/")[0] == b"..":
            raise leaves(path)
        try:
            with open_below(self._top, inside) as file:
                content = file.read(_MAX_SIZE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            reading_failed(os.fsencode(path), error)
        if len(content) > _MAX_SIZE:
            raise UserError(
                f"{path!r} is larger than {_MAX_SIZE >> 20} MiB", "name the file that is meant"
            )
        self.found[inside] = content
        return content


def _missing(path: str, candidates: list[str]) -> UserError:
    if not candidates:
        return UserError(
            f"The source has no {path!r}",
            f"add a {_DEFAULT} at the source's top, or say where it is",
        ).about("dockerfile")
    return UserError(
        f"The source has no {path!r}, but it has {', '.join(candidates)}",
        "say which Dockerfile is meant, by its path",
    ).about("dockerfile")


def _candidates(top: int, path: str) -> list[str]:
    """Return the files in the source that may have been meant, the likeliest first."""
    files: list[str] = []
    # What cannot be read is passed over: the error to tell is the missing Dockerfile.
    with suppress(ImagemillError):
        entries = islice(Walk(DockerIgnore(), Quiet()).entries(top), _MAX_LOOKED_AT)
        files.extend(shown(entry.path) for entry in entries if entry.is_file)
    wanted = posixpath.basename(path)
    alike = get_close_matches(
        wanted, {posixpath.basename(file) for file in files}, n=_MAX_CANDIDATES, cutoff=0.75
    )
    meant = [
        file
        for file in files
        if posixpath.basename(file) in alike or _is_dockerfile(posixpath.basename(file))
    ]
    return sorted(meant, key=lambda file: -SequenceMatcher(None, file, path).ratio())[
        :_MAX_CANDIDATES
    ]


def _is_dockerfile(name: str) -> bool:
    return any(
        word in name.lower() for word in ("dockerfile", "containerfile")
    ) and not name.endswith("ignore")

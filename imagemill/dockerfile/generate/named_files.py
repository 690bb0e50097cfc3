"""Files that declare dependencies under names that vary: which of them is meant, and which are there
and not used.

A generated image never lacks in silence what its project declares: a file that is not used is
named, with what to do about it.
"""

import posixpath
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from imagemill.dockerfile.generate.project import Project
from imagemill.errors import UserError

BINDER = ("binder", ".binder")
"""Folders that Binder reads instead of the top one:
https://repo2docker.readthedocs.io/en/latest/configuration/.
"""

_REQUIREMENTS = (
    "requirements/*.txt",
    "requirements/*.in",
    "requirements*.txt",
    "requirements*.in",
    "*requirements.txt",
)
_ENVIRONMENTS = ("environment*.yml", "environment*.yaml", "*environment.yml", "conda.y*ml")
_FOR_WORK = re.compile(
    r"(?:^|[-_./])(?:dev|develop|development|tests?|testing|lint|linting|docs?|ci|build|typing|style"
    r"|format|local|bench|benchmarks?|extras?|optional|tools?|notebooks?)(?:[-_.]|$)",
    re.IGNORECASE,
)
"""In the name of a file with what those need who work on the project, and its image does not."""

_MEANT = ("prod", "production", "deploy", "serve", "main", "app", "runtime", "base", "requirements")
"""In the name of the file that an image is made of, the surest first."""

_DOCKERFILE = "write a Dockerfile for it"
_NOT_READ = {
    "pixi.toml": "`pixi workspace export conda-environment environment.yml` makes what is read",
    "pixi.lock": "`pixi workspace export conda-environment environment.yml` makes what is read",
    "conda-lock.yml": "keep environment.yml, which is read, beside it",
    "conda-linux-64.lock": "keep environment.yml, which is read, beside it",
    "pdm.lock": "`pdm export --format pylock --output pylock.toml` makes what is read",
    "Pipfile": "`pipenv lock` makes Pipfile.lock, which is read",
    "package.json": _DOCKERFILE,
    "install.R": _DOCKERFILE,
    "renv.lock": _DOCKERFILE,
    "DESCRIPTION": _DOCKERFILE,
    "Project.toml": _DOCKERFILE,
    "default.nix": _DOCKERFILE,
    "start": "give what it runs as the entry point",
}
"""File at the top, or in Binder's folder, that declares something → what to do, since we do not
read it.
"""

_READ = ("uv.lock", "poetry.lock", "Pipfile.lock", "pylock.toml", *_ENVIRONMENTS, *_REQUIREMENTS)


def requirements(project: Project) -> str | None:
    """Return the requirements file that an image is made of, where none has the usual name;
    `UserError` if several could be.
    """
    return _one(project, _matching(project, _REQUIREMENTS), "requirements.txt")


def environment(project: Project) -> str | None:
    """Return conda's environment that an image is made of, where none has the usual name;
    `UserError` if several could be.
    """
    return _one(project, _matching(project, _ENVIRONMENTS), "environment.yml")


def not_used(project: Project, found: Iterable[str], copied: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence for each file that declares something and is neither among those `found` to
    decide nor `copied` for them.
    """
    installed = ", ".join(found)
    known = {*found, *copied}
    told = []
    for path in project.files:
        folder, name = posixpath.split(path)
        if path in known or folder not in ("", "requirements", *BINDER):
            continue
        if name in _NOT_READ and folder != "requirements" and not _covers(known, name):
            told.append(f"{path} is not used: {_NOT_READ[name]}")
        elif (
            any(
                fnmatchcase(path.removeprefix(f"{folder}/" if folder in BINDER else ""), pattern)
                for pattern in _READ
            )
            and not _is_for_work(path)
            and not _is_made_from(path, known)
        ):
            what = f"{installed} is what is installed" if installed else "nothing reads it"
            told.append(f"{path} is not used: {what}")
    return tuple(told)


def _covers(known: set[str], name: str) -> bool:
    """Whether what was read is made from, or says the same as, a file that is not read."""
    return (name == "Pipfile" and "Pipfile.lock" in known) or (
        name.startswith("conda-") and any("environment" in path for path in known)
    )


def _is_made_from(path: str, known: set[str]) -> bool:
    """Whether it is the source of a requirements file that is read (pip-compile's `.in`)."""
    return path.endswith(".in") and f"{path.removesuffix('.in')}.txt" in known


def _is_for_work(path: str) -> bool:
    return _FOR_WORK.search(path.removeprefix("requirements/")) is not None


def _matching(project: Project, patterns: tuple[str, ...]) -> list[str]:
    found = [
        path
        for path in project.files
        if any(fnmatchcase(path, pattern) for pattern in patterns)
        and path.count("/")
        == any("/" in pattern for pattern in patterns if fnmatchcase(path, pattern))
        and not _is_for_work(path)
    ]
    return [path for path in found if not _is_made_from(path, set(found))]


def _one(project: Project, found: list[str], usual: str) -> str | None:
    for word in _MEANT:
        if preferred := [
            path for path in found if word in re.split(r"[-_./]", path.lower())[-2:-1]
        ]:
            found = preferred
            break
    if len(found) < 2:
        return found[0] if found else None
    raise UserError(
        f"It is not clear which of {', '.join(found)} the image is to be made of",
        f"call the one that is meant {usual}, or include it there",
    )

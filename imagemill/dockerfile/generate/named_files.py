"""Files that declare dependencies under names that vary: which of them is meant, and which are there
and not used.

A generated image never lacks in silence what its project declares: a file that is not used is
named, with what to do about it.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

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
    "requirements*.lock",
    "requirements*.pip",
    "*requirements.txt",
    "reqs*.txt",
    "req.txt",
)
_ENVIRONMENTS = (
    "environment*.y*ml",
    "*environment.yml",
    "conda.y*ml",
    "conda[-_]env*.y*ml",
    "env.y*ml",
    "requirements.y*ml",
)
_PYLOCKS = ("pylock.*.toml",)
"""Patterns of paths in small letters: systems that do not tell case apart write it as they like."""
_FOR_WORK = re.compile(
    r"(?:^|[-_./])(?:dev|develop|development|tests?|testing|lint|linting|docs?|ci|build|typing|style"
    r"|format|local|bench|benchmarks?|extras?|optional|tools?|notebooks?)(?:[-_.]|$)",
    re.IGNORECASE,
)
"""In the name of a file with what those need who work on the project, and its image does not."""

_MEANT = ("prod", "production", "deploy", "serve", "main", "app", "runtime", "base", "requirements")
"""In the name of the file that an image is made of, the surest first."""

_DOCKERFILE = "write a Dockerfile for it"
_LISTED = "list in requirements.txt and apt.txt what it does"
_NOT_READ = {
    "pixi.toml": "`pixi workspace export conda-environment environment.yml` makes what is read",
    "pixi.lock": "`pixi workspace export conda-environment environment.yml` makes what is read",
    "conda-lock.yml": "keep environment.yml, which is read, beside it",
    "conda-lock.yaml": "keep environment.yml, which is read, beside it",
    "conda-linux-64.lock": "keep environment.yml, which is read, beside it",
    "pdm.lock": "`pdm export --format pylock --output pylock.toml` makes what is read",
    "Pipfile": "`pipenv lock` makes Pipfile.lock, which is read",
    "package.json": _DOCKERFILE,
    "install.R": _DOCKERFILE,
    "renv.lock": _DOCKERFILE,
    "DESCRIPTION": _DOCKERFILE,
    "Project.toml": _DOCKERFILE,
    "default.nix": _DOCKERFILE,
    "shell.nix": _DOCKERFILE,
    "flake.nix": _DOCKERFILE,
    "cog.yaml": _LISTED,
    "bentofile.yaml": _LISTED,
    "packages.txt": "call it apt.txt, which is read, if it lists packages of the system",
    "start": "give what it runs as the entry point",
}
"""File at the top, or in Binder's folder, that declares something → what to do, since we do not
read it.
"""

_READ = (
    "uv.lock",
    "poetry.lock",
    "pipfile.lock",
    "pylock.toml",
    *_PYLOCKS,
    "python_env.y*ml",
    *_ENVIRONMENTS,
    *_REQUIREMENTS,
)

_TABLES = {
    ("tool", "pixi", "dependencies"): _NOT_READ["pixi.toml"],
    ("tool", "pixi", "pypi-dependencies"): _NOT_READ["pixi.toml"],
    ("tool", "flit", "metadata", "requires"): "list it as project.dependencies",
    ("tool", "pdm", "dependencies"): "list it as project.dependencies",
    ("tool", "hatch", "envs", "default", "dependencies"): "list it as project.dependencies",
    ("dependency-groups",): "list what the image needs as project.dependencies",
}
"""What declares something in pyproject.toml beside its standard → what to do, since we do not read
it.
"""

_OTHERS = re.compile(r"(?:^|/)(?:examples?|samples?|demos?|third_party|vendor)/")
"""Folders of what is not the project itself, besides those of `_FOR_WORK`."""


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


def pylock(project: Project) -> str | None:
    """Return the lock of any installer that an image is made of (PEP 751); `UserError` if several
    could be.
    """
    usual = "pylock.toml"
    return usual if project.has(usual) else _one(project, _matching(project, _PYLOCKS), usual)


def not_used(project: Project, found: Iterable[str], copied: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence for each file that declares something and is neither among those `found` to
    decide nor `copied` for them.
    """
    installed = ", ".join(found)
    known = {*found, *copied}
    told = list(_tables(project, known))
    for path in project.files:
        folder, name = posixpath.split(path)
        if path in known or folder not in ("", "requirements", *BINDER):
            continue
        if name in _NOT_READ and folder != "requirements" and not _covers(known, name):
            told.append(f"{path} is not used: {_NOT_READ[name]}")
        elif _is_read(path.removeprefix(f"{folder}/" if folder in BINDER else "")) and (
            not _is_for_work(path) and not _is_made_from(path, known) and _declares(project, path)
        ):
            what = f"{installed} is what is installed" if installed else "nothing reads it"
            told.append(f"{path} is not used: {what}")
    return tuple(told)


def below(project: Project) -> tuple[str, ...]:
    """Return a sentence for each file in a folder below that declares something, where scripts are
    at the top, and nothing that says what they need.
    """
    if not any(path.endswith(".py") and "/" not in path for path in project.files):
        return ()
    return tuple(
        f"{path} is not used: only what lies at the top is; include it in a requirements.txt there,"
        f" or build from {posixpath.dirname(path)}"
        for path in project.files
        if posixpath.dirname(path) not in ("", "requirements", *BINDER)
        and (_is_read(path) or _is_read(posixpath.basename(path)))
        and not any(map(_FOR_WORK.search, path.split("/")))
        and not _OTHERS.search(path)
        and _declares(project, path)
    )


def for_work(project: Project) -> tuple[str, ...]:
    """Return a sentence for each file that declares what those need who work on the project."""
    return tuple(
        f"{path} is not used: by its name it is for those who work on the project"
        for path in project.files
        if posixpath.dirname(path) in ("", "requirements") and _is_read(path) and _is_for_work(path)
    )


def _tables(project: Project, known: set[str]) -> Iterator[str]:
    """Yield a sentence for each table of pyproject.toml that declares something and is not read."""
    whole = project.toml("pyproject.toml")
    for keys, hint in _TABLES.items():
        document: Any = whole
        for key in keys:
            document = document.get(key) if isinstance(document, dict) else None
        if keys == ("dependency-groups",):
            groups = document if isinstance(document, dict) else {}
            document = [name for name in groups if not _FOR_WORK.search(name)]
        if document and ("pixi" in keys or not known):
            yield f"[{'.'.join(keys)}] in pyproject.toml is not used: {hint}"


def _is_read(path: str) -> bool:
    return any(fnmatchcase(path.lower(), pattern) for pattern in _READ)


def _declares(project: Project, path: str) -> bool:
    """Whether a file of YAML, which may be about something else, lists dependencies."""
    if not path.lower().endswith((".yml", ".yaml")):
        return True
    try:
        document = project.yaml(path)
    except UserError:
        return False
    return isinstance(document, dict) and isinstance(document.get("dependencies"), list)


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
        for fitting in [[each for each in patterns if fnmatchcase(path.lower(), each)]]
        if fitting
        and path.count("/") == any("/" in pattern for pattern in fitting)
        and not _is_for_work(path)
        and _declares(project, path)
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

"""Chooses the Python that an image gets: what the request says, else the project, else a default
that does not move.

`requires-python` is a range, and both its ends are poor choices: the lowest is often a Python
without security fixes, and the newest has come out before the wheels that the project needs, and
moves from year to year, which would change the source hash of a project that has not changed. So it
is the default where the range allows it, else the nearest that it does allow: the newest below the
default, else the lowest above.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from imagemill.dockerfile.generate.named_files import BINDER
from imagemill.dockerfile.generate.project import Project, line_of
from imagemill.errors import UserError

DEFAULT = "3.12"
"""Fixed until a release of Imagemill changes it: then the generated Dockerfiles change, and so do
their hashes.
"""

ANY = ">=3.8"
"""Every Python that uv installs for."""

_MINORS = range(8, 31)
"""Of Python 3: from the oldest that uv installs for, to what may come."""

_PATCHES = 100
_VERSION = re.compile(r"3\.(\d{1,2})(?:\.(\d{1,2}))?")


@dataclass(frozen=True)
class Constraint:
    """The Pythons that a project says that it runs on."""

    text: str
    where: str
    """File and key, as comments and errors show them."""
    allows: Callable[[Version], bool]
    specifier: str | None
    """The same for uv, if it can be said in one set of specifiers."""


@dataclass(frozen=True)
class Python:
    """The chosen version, `3.11` or `3.11.4`, and why."""

    version: str
    why: str
    named: bool
    """Whether somebody has named this very version."""


def choose(project: Project, wish: str | None, constraint: Constraint | None) -> Python:
    """Return the version to use; `UserError` if it is none, or if what asks for it contradicts the
    project's range.
    """
    named = _wished(wish) or _python_version(project) or _runtime(project)
    if named is None:
        if constraint is None:
            return Python(DEFAULT, "the default, since nothing says which", False)
        return Python(
            _nearest(constraint), f"since {constraint.where} says {constraint.text}", False
        )
    if constraint and not _allows_some(constraint, named.version):
        raise UserError(
            f"Python {named.version} ({named.why}) does not fit: {constraint.where} says {constraint.text}",
            "change one of the two, or ask for another Python",
        ).about("python")
    return named


def constraint(text: str, where: str) -> Constraint:
    """Read a set of specifiers
    (https://packaging.python.org/en/latest/specifications/version-specifiers/).
    """
    try:
        specifiers = SpecifierSet(text)
    except InvalidSpecifier:
        raise UserError(
            f"{where}: {text!r} is not a range of Pythons", "write it like >=3.10,<3.13"
        ) from None
    return Constraint(
        text, where, lambda version: specifiers.contains(version, prereleases=True), str(specifiers)
    )


def poetry_constraint(text: str, where: str) -> Constraint:
    """Read Poetry's own way to write it:
    https://python-poetry.org/docs/dependency-specification/.
    """
    alternatives = [
        constraint(
            ",".join(filter(None, map(_from_poetry, re.split(r"[,\s]+", part.strip())))), where
        )
        for part in re.split(r"\|\|?", re.sub(r"([<>=!~^])\s+", r"\1", text))
    ]
    only = alternatives[0].specifier if len(alternatives) == 1 else None
    return Constraint(
        text, where, lambda version: any(each.allows(version) for each in alternatives), only
    )


def _from_poetry(part: str) -> str:
    """One of Poetry's specifiers as one of PEP 440's; Python's own versions begin with a major that
    is not 0.
    """
    if part in ("", "*"):
        return ""
    if match := re.fullmatch(r"([\^~])(\d+)(?:\.(\d+))?((?:\.\d+)?)", part):
        sign, major, minor, patch = match.groups()
        lower = f"{major}.{minor or 0}{patch}"
        if sign == "^" or minor is None:
            return f">={lower},<{int(major) + 1}"
        return f">={lower},<{major}.{int(minor) + 1}"
    if re.fullmatch(r"\d+\.\d+", part):
        return f"=={part}.*"
    return f"=={part}" if part[0].isdigit() else part


def _wished(wish: str | None) -> Python | None:
    if wish is None:
        return None
    version = _checked(wish.strip())
    if version is None:
        raise UserError(
            f"{wish!r} is not a version of Python that we can install",
            "give one like 3.12 or 3.12.4",
        )
    return Python(version, "as requested", True)


def _python_version(project: Project) -> Python | None:
    """Return the first version in `.python-version`, which is pyenv's file, and uv's."""
    return _from_file(project, ".python-version", r"(?:c?python-?)?(3[\d.]*)", "3.12 or 3.12.4")


def _runtime(project: Project) -> Python | None:
    """`runtime.txt`, as Heroku and Binder read it."""
    paths = (*(f"{folder}/runtime.txt" for folder in BINDER), "runtime.txt")
    path = next((path for path in paths if project.has(path)), "runtime.txt")
    return _from_file(project, path, r"python-(3[\d.]*)", "python-3.12.4")


def _from_file(project: Project, path: str, pattern: str, example: str) -> Python | None:
    if not project.has(path):
        return None
    for number, line in enumerate(project.text(path).split("\n"), start=1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        match = re.fullmatch(pattern, words)
        version = _checked(match[1]) if match else None
        if version is None:
            raise UserError(
                f"{path}:{number}: {words!r} is not a version of Python that we can install",
                f"write it like {example}, or ask for another Python",
            ).about("python")
        return Python(version, f"from {path}", True)
    return None


def _checked(text: str) -> str | None:
    match = _VERSION.fullmatch(text)
    return text if match and int(match[1]) in _MINORS else None


def _allows_some(constraint: Constraint, version: str) -> bool:
    """Whether the version, or some patch release of a minor version, is allowed."""
    patched = (
        [version]
        if version.count(".") == 2
        else [f"{version}.{patch}" for patch in range(_PATCHES)]
    )
    return any(constraint.allows(Version(each)) for each in patched)


def _nearest(constraint: Constraint) -> str:
    default = int(DEFAULT.partition(".")[2])
    minors = [
        default,
        *range(default - 1, _MINORS.start - 1, -1),
        *range(default + 1, _MINORS.stop),
    ]
    # First those whose newest patch release is allowed: `<=3.12` means 3.12.0, which nobody wants.
    for minor in minors:
        if constraint.allows(Version(f"3.{minor}.{_PATCHES - 1}")):
            return f"3.{minor}"
    for minor in minors:
        for patch in reversed(range(_PATCHES)):
            if constraint.allows(Version(f"3.{minor}.{patch}")):
                return f"3.{minor}.{patch}"
    raise UserError(
        f"{constraint.where}: no Python from 3.{_MINORS.start} on fits {constraint.text!r}",
        "correct the range, or write a Dockerfile for an older Python",
    )


def locate(project: Project, path: str, words: str) -> str:
    """`path:line` of the first line in a file that has `words` in it."""
    return f"{path}:{line_of(project.text(path), words)}"

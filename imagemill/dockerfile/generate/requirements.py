"""Reads requirements files as far as a Dockerfile needs it: which files and folders they name, and
what they fetch.

The format is pip's: https://pip.pypa.io/en/stable/reference/requirements-file-format/.
"""

import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

import re2  # type: ignore[import-untyped]
from packaging.requirements import InvalidRequirement, Requirement

from imagemill.dockerfile.generate.indexes import PackageOrigin
from imagemill.dockerfile.generate.project import Project
from imagemill.errors import UserError
from imagemill.text import one_line

_INCLUDES = {"-r": "-r", "--requirement": "-r", "-c": "-c", "--constraint": "-c"}
_EDITABLE = ("-e", "--editable")
_INDEXES = ("-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links")
_LINKS = ("-f", "--find-links")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_OPTIONS_BEHIND = re.compile(r"\s--?[a-z].*$")
_OPTION_BEHIND = re.compile(r"\s(--?[A-Za-z][a-z-]*)")
_FOR_UV = {"--pre": ("--prerelease", "allow"), "--require-hashes": ("--require-hashes",)}
"""Options of a requirements file that uv wants on its command line, and passes over in the file."""

_HARMLESS = ("--use-feature", "--no-index", "--no-binary", "--only-binary")
_UNKNOWN_TO_UV = ("--prefer-binary", "--use-feature")
"""Options of pip that uv has no word for, and builds without."""
_SETS_INDEX = ("-i", "--index-url", "--pypi-url", "--no-index")
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_DIRECT = re2.compile(r"\s*[A-Za-z0-9._-]+\s*(?:\[[^\]]*\])?\s*@\s*(\S+)")
_ROOT = "${PROJECT_ROOT}"
LONGEST = 4096  # characters of one requirement without its options, of an option, of a command
_EXTRAS_BEHIND = re.compile(r"\[[A-Za-z0-9,._ -]*\]$")


@dataclass
class Requirements:
    """What requirements files say, taken together."""

    files: list[str] = field(default_factory=list)
    """The requirements files themselves, those that others include among them."""
    paths: list[str] = field(default_factory=list)
    """What they name of the project: wheels, and folders with packages, which have a slash at their
    end.
    """
    places: list[PackageOrigin] = field(default_factory=list)
    """The indexes, archives and repositories that they name."""
    whole: str = ""
    """Where they name the project's own folder, so that nothing can be installed before all of it
    is there.
    """
    whole_copied: bool = False
    """Whether one of those lines installs a copy of it, in place of the folder itself."""
    several_indexes: bool = False
    own_index: bool = False
    """Whether they say which index is asked in place of PyPI."""
    warnings: list[str] = field(default_factory=list)
    """What is done otherwise than pip does it."""
    flags: tuple[str, ...] = ()
    """What uv is told of their options, as it reads them in no file."""
    pip: bool = False
    """Whether pip itself reads them, which knows all of its options."""

    def read(self, project: Project, path: str) -> None:
        """Add what the file at `path` says."""
        if path in self.files:
            return
        self.files.append(path)
        for number, line in _lines(project.text(path)):
            self.line(project, line, f"{path}:{number}", posixpath.dirname(path))

    def line(self, project: Project, line: str, where: str, folder: str = "") -> None:
        """Add what one line says that stands in a file in `folder`."""
        option, value = _option(line, where)
        if option in _INCLUDES and not _URL.match(value):
            self.read(project, project.within(value, where, folder))
        elif option in _EDITABLE or not option:
            self.requirement(project, line if not option else value, where, in_place=bool(option))
        elif option in _INDEXES:
            self.several_indexes |= option == "--extra-index-url"
            self.own_index |= option in _SETS_INDEX
            self._index(project, option, value, where, folder)
        elif not self.pip:
            self._option(option, value, where)

    def _option(self, option: str, value: str, where: str) -> None:
        """Read an option of the whole file as pip does, or raise an error that names it."""
        if option == "--trusted-host":
            flags: tuple[str, ...] = ("--allow-insecure-host", value)
        elif option in _FOR_UV:
            flags = _FOR_UV[option]
        elif option == "--prefer-binary":
            self.warnings.append(
                f"{where}: {option} is not used: uv takes the newest version, built or not"
            )
            return
        elif option in (*_HARMLESS, *_INCLUDES):
            self.own_index |= option in _SETS_INDEX
            return
        else:
            raise UserError(
                f"{where}: uv, which installs, does not know the option {option}",
                "leave the line out, or write a Dockerfile that installs with pip",
            )
        if not set(flags) <= set(self.flags):
            self.flags += flags

    def requirement(
        self, project: Project, text: str, where: str, *, in_place: bool = False
    ) -> None:
        """Add one requirement: a name with specifiers, a URL or a path, which may be installed in
        place.
        """
        behind = [] if self.pip else _OPTION_BEHIND.findall(text)
        if other := next((option for option in behind if option != "--hash"), None):
            raise UserError(
                f"{where}: uv, which installs, does not know {other} behind a requirement",
                f"write {other} on a line of its own, if it can stand there; or write a Dockerfile"
                " that installs with pip",
            )
        bare = _OPTIONS_BEHIND.sub("", text).strip()
        if len(bare) > LONGEST:
            raise UserError(
                f"{where}: {one_line(bare, 60)} is longer than {LONGEST} characters",
                "write one requirement on a line",
            )
        direct = _DIRECT.match(bare)
        target = direct[1] if direct else bare
        if _URL.match(target) and not target.startswith("file:"):
            self.places.append(PackageOrigin(target, where).check())
        elif target.startswith(("git@", "git+git@")):
            PackageOrigin(target, where).check()
        elif direct or in_place or _is_path(project, target):
            # uv and pip take paths from the folder that they run in, which is the project's top.
            self._path(project, _path_of(target), where, in_place)
        else:
            check(bare, where)

    def _path(self, project: Project, path: str, where: str, in_place: bool) -> None:
        inside = project.local(
            _EXTRAS_BEHIND.sub("", path.partition("#")[0].partition(";")[0].strip()), where
        )
        if inside == "./":
            self.whole = self.whole or where
            self.whole_copied |= not in_place
        elif inside not in self.paths:
            self.paths.append(inside)

    def _index(self, project: Project, option: str, value: str, where: str, folder: str) -> None:
        if _URL.match(value) and not value.startswith("file:"):
            self.places.append(PackageOrigin(value, where).check())
        elif option in _LINKS:
            value = _path_of(value)
            base = (
                folder
                if project.has_folder(posixpath.normpath(posixpath.join(folder, value)))
                else ""
            )
            self.paths.append(project.local(value, where, base))


def check(text: str, where: str) -> str:
    """Return the requirement itself; `UserError` if it is none (PEP 508)."""
    try:
        Requirement(text)
    except (InvalidRequirement, RecursionError):
        raise UserError(
            f"{where}: {one_line(text)!r} is not a requirement", "write it like numpy>=1.26,<3"
        ) from None
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the logical lines, each with the number of its first."""
    joined, first = "", 0
    for number, line in enumerate(text.split("\n"), start=1):
        first = first or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            joined += line[:-1]
            continue
        words = _COMMENT.sub("", joined + line).strip()
        if words:
            yield first, words
        joined, first = "", 0
    if joined.strip():
        yield first, joined.strip()


def _option(line: str, where: str) -> tuple[str, str]:
    """Return the option that a line begins with, and its value; no option if it is a requirement."""
    if not line.startswith("-"):
        return "", ""
    if len(line) > LONGEST:
        raise UserError(f"{where}: the line is longer than {LONGEST} characters", "shorten it")
    match = re.match(r"(--[a-z-]+|-[a-z])(?:\s*=\s*|\s*)(.*)", line)
    if match is None:
        raise UserError(
            f"{where}: {line!r} is neither a requirement nor an option", "correct the line"
        )
    try:
        words = shlex.split(match[2])
    except ValueError:
        words = []
    return match[1], words[0] if len(words) == 1 else match[2]


def arguments(line: str, where: str) -> list[str]:
    """Return a line as words of uv's command, without what it is told by flags or has no word for."""
    option, value = _option(line, where)
    if not option:
        return [line]
    if option in (*_FOR_UV, *_UNKNOWN_TO_UV, "--trusted-host"):
        return []
    option = {"-r": "--requirement", "-c": "--constraint"}.get(option, option)
    return [option, value] if value else [option]


def _path_of(text: str) -> str:
    """Return the path that a `file:` URL names, by uv's variable perhaps, or the text itself."""
    path = text.removeprefix("file://").removeprefix("file:")
    return f".{path.partition(_ROOT)[2]}" if path.lstrip("/").startswith(_ROOT) else path


def _is_path(project: Project, text: str) -> bool:
    bare = _EXTRAS_BEHIND.sub("", text)
    return (
        text.startswith((".", "/", "file:"))
        or bare.endswith((".whl", ".tar.gz", ".zip"))
        or "/" in bare.partition(";")[0]
    )

"""A project's folder as a build will see it: what `.dockerignore` hides is not there, and no link
leads out of it.

A Dockerfile that copies what the build cannot see would fail far from its cause, so detection looks
through the same eyes as the build: `imagemill.context.walk`.
"""

import os
import posixpath
import re
import tokenize
import tomllib
from collections.abc import Iterable
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import re2  # type: ignore[import-untyped]
import yaml

from imagemill.context.dockerignore import DockerIgnore
from imagemill.context.walk import Walk, leaves, reading_failed
from imagemill.encoding import decoded, is_marked
from imagemill.errors import UserError
from imagemill.files.tree import open_below, open_top
from imagemill.ports import Quiet

IGNORE = b"""\
.git
.hg
.svn
**/__pycache__
**/*.py[cod]
**/*.egg-info
**/.venv
**/venv
**/.env
**/.tox
**/.nox
**/.mypy_cache
**/.pytest_cache
**/.ruff_cache
**/.ipynb_checkpoints
**/.DS_Store
**/node_modules
**/.idea
**/.vscode
wandb/run-*
wandb/offline-run-*
wandb/latest-run
wandb/debug*.log
"""
"""What a project without a Dockerfile and without a `.dockerignore` hides from its build: what is
not the project's own, what changes without it (so that the source hash lives longer), and `.env`,
which holds secrets."""

_IGNORE_FILES = ("Dockerfile.dockerignore", ".dockerignore")
_MAX_SIZE = 256 << 10
_MAX_SIZES = (
    (re2.compile(r"(?i)\block\b|\.ipynb$"), 16 << 20),  # what tools write
    (re2.compile(r"^setup\.py$"), 128 << 10),
    (re2.compile(r"\.py$"), 1 << 20),
)
"""What the name of a file has in it that is read in another time → bytes."""

_DEEP = re2.compile(r"""(?:(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){60}""")
"""A key of TOML that no project has: reading one takes the square of its length."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""That of C is ten times as fast, where there is one."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Project:
    """The files of a project, by their paths relative to its top folder; paths that are not plain
    text are left out.
    """

    def __init__(self, root: Path) -> None:
        self._folder, self._root = root, os.path.realpath(os.fsencode(root))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The paths of all files and links, sorted."""
        return tuple(path for path, is_folder in self._entries if not is_folder)

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """The paths of all folders, sorted."""
        return tuple(path for path, is_folder in self._entries if is_folder)

    @cached_property
    def _entries(self) -> tuple[tuple[str, bool], ...]:
        top = self._open_top()
        try:
            found = [
                (entry.path, entry.is_folder)
                for entry in Walk(self._ignore(), Quiet()).entries(top)
            ]
        finally:
            os.close(top)
        decoded = ((path.decode(errors="surrogateescape"), is_folder) for path, is_folder in found)
        return tuple(sorted((path, is_folder) for path, is_folder in decoded if _is_plain(path)))

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return path in self._file_set

    def has_folder(self, path: str) -> bool:
        """Whether there is such a folder; the top folder itself is `.`."""
        return path == "." or path in self.folders

    @cached_property
    def _file_set(self) -> frozenset[str]:
        return frozenset(self.files)

    def text(self, path: str) -> str:
        """Return the content of a file, without a byte-order mark and with a line feed alone at the
        ends of lines.
        """
        return decoded(self._content(path), path).replace("\r\n", "\n").replace("\r", "\n")

    def python(self, path: str) -> str:
        """Return the code in a file, in the encoding that it names itself, as Python reads it (PEP
        263).
        """
        content = self._content(path)
        try:
            encoding, _ = tokenize.detect_encoding(BytesIO(content).readline)
            return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        except (SyntaxError, UnicodeError, LookupError):
            return self.text(path)  # says what is wrong

    def toml(self, path: str) -> dict[str, Any]:
        """Return a TOML file's content; `UserError` names the line where it is not TOML. Nothing if
        there is no such file.
        """
        if not self.has(path):
            return {}
        try:
            content = self._content(path)
            if is_marked(
                content
            ):  # TOML is UTF-8, and so installers in the image take nothing else
                raise UserError(f"{path}:1: this is not UTF-8", "save the file as UTF-8")
            text = self.text(path)
            if _DEEP.search(text):
                raise UserError(f"{path} has keys of more than 60 parts", "shorten them")
            return tomllib.loads(text)
        except RecursionError:
            raise UserError(f"{path} is nested too deeply", "correct the file") from None
        except ValueError as error:  # TOMLDecodeError, or a number that is too long to read
            place = re.search(r"(.*) \(at line (\d+)", str(error))
            where, what = (f"{path}:{place[2]}", place[1]) if place else (path, str(error))
            raise UserError(f"{where}: this is not TOML: {what}", "correct the file") from None

    def yaml(self, path: str) -> object:
        """Return a YAML file's content; `UserError` names the line where it is not YAML."""
        try:
            return yaml.load(self.text(path), _LOADER)
        except RecursionError:
            raise UserError(f"{path} is nested too deeply", "correct the file") from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that is none
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            where = f"{path}:{mark.line + 1}" if mark else path
            what = (
                getattr(error, "problem", None) or "a character, a date or a number in it is none"
            )
            raise UserError(f"{where}: this is not YAML: {what}", "correct the file") from None

    def within(self, path: str, where: str, base: str = "") -> str:
        """Return the normal form of a path that a file in the folder `base` names at `where`.

        `UserError` if it leads out of the project, or if the build could not see it there.
        """
        normal = posixpath.normpath(posixpath.join(base, path))
        if normal.startswith(("/", "../")) or normal == "..":
            raise UserError(
                f"{where}: {path!r} leads out of the source",
                "build from the folder that holds both, or copy it in",
            )
        if not self.has(normal) and not self.has_folder(normal):
            raise UserError(
                f"{where}: the build sees no {normal!r}",
                "correct the path; or does .dockerignore hide it?",
            )
        return normal

    def local(self, path: str, where: str, base: str = "") -> str:
        """Like `within`; a folder has a slash at its end."""
        inside = self.within(path, where, base)
        return f"{inside}/" if self.has_folder(inside) else inside

    def _ignore(self) -> DockerIgnore:
        for name in _IGNORE_FILES:
            try:
                return DockerIgnore.parse(self._read(name), name)
            except FileNotFoundError:
                continue
        return DockerIgnore.parse(IGNORE, ".dockerignore")

    def _content(self, path: str) -> bytes:
        """Return the content of a file that something names; `UserError` if it is none."""
        try:
            return self._read(path)
        except FileNotFoundError:
            raise UserError(
                f"{path!r} is no file, or a link to none", "name a file of the source"
            ) from None

    def _read(self, path: str) -> bytes:
        """Return the content of a file, through links that stay in the project; `FileNotFoundError`
        if there is none.
        """
        real = os.path.realpath(posixpath.join(self._root, os.fsencode(path)))
        inside = os.path.relpath(real, self._root)
        if inside.split(b"/")[0] == b"..":
            raise leaves(path)
        top = self._open_top()
        name = posixpath.basename(path)
        most = next((size for names, size in _MAX_SIZES if names.search(name)), _MAX_SIZE)
        try:
            with open_below(top, inside) as file:
                content = file.read(most + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            reading_failed(os.fsencode(path), error)
        finally:
            os.close(top)
        if len(content) > most:
            raise UserError(
                f"{path!r} is larger than {most >> 10:,} KiB", "is it the file that is meant?"
            )
        return content

    def _open_top(self) -> int:
        try:
            return open_top(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            shown = self._root.decode(errors="backslashreplace")
            raise UserError(f"There is no folder {shown}", "give a folder that exists") from None
        except OSError as error:
            reading_failed(b"", error)


def line_of(text: str, words: str) -> int:
    """Return the number of the first line that has `words` in it; 1 if none has."""
    return next(
        (number for number, line in enumerate(text.split("\n"), start=1) if words in line), 1
    )


def table(document: dict[str, Any], path: str, *keys: str) -> dict[str, Any]:
    """Return the table at `keys` in a TOML document, empty if there is none; `UserError` if it is
    no table.
    """
    for depth, key in enumerate(keys, start=1):
        document = document.get(key, {})
        if not isinstance(document, dict):
            raise UserError(
                f"{path}: {'.'.join(keys[:depth])} is not a table",
                f"write [{'.'.join(keys[:depth])}]",
            )
    return document


def strings(value: object, where: str) -> tuple[str, ...]:
    """Return a list of texts; `UserError` if it is something else."""
    if isinstance(value, Iterable) and not isinstance(value, str | dict):
        items = tuple(value)
        if all(isinstance(item, str) for item in items):
            return items
    raise UserError(f"{where} is not a list of texts", 'write ["one", "two"]')


def _is_plain(path: str) -> bool:
    """Whether a Dockerfile can name the path: UTF-8, and no control characters, which could begin a
    new line.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return not _CONTROL.search(path)

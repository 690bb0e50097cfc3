"""Finds what a project runs: a console script, a package with `__main__.py`, or a script with a
telling name.

The first of these that finds anything decides. If it finds several, nobody but the requester can
tell which is meant.
"""

import ast
import posixpath
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass

from imagemill.dockerfile.generate import static_metadata
from imagemill.dockerfile.generate.install import PROJECT_FILES, Install
from imagemill.dockerfile.generate.project import Project
from imagemill.dockerfile.generate.requirements import LONGEST
from imagemill.errors import UserError

_TELLING = (
    "main.py",
    "__main__.py",
    "app.py",
    "run.py",
    "train.py",
    "serve.py",
    "server.py",
    "predict.py",
)
_NEVER = re.compile(r"(?:setup|conftest|noxfile|fabfile|_?version|test_.*|.*_test|__init__)\.py")
_TESTS = frozenset({"test", "tests", "docs", "examples", "benchmarks"})
_MAX_SHOWN = 10
_MOST_PARSED = 256 << 10
"""Characters of code that are looked through for what is run."""
_FOR_A_SHELL = re.compile(r"[$`|&;<>*?~(){}\\]|^\w+=|\s#")
_SEVERAL = re.compile(r"[|&;(){}]|^\w+=")


@dataclass(frozen=True)
class EntryPoint:
    """The command, word by word, and where it was found."""

    command: tuple[str, ...]
    why: str


def find(project: Project, install: Install, wish: tuple[str, ...] | None) -> EntryPoint:
    """Return the entry point; `UserError` if there is none, or more than one that could be meant."""
    if wish is not None:
        return _wished(project, wish)
    for candidates in (
        ([EntryPoint(install.entry, "main of MLproject")] if install.entry else []),
        _procfile(project),
        _console_scripts(install),
        _packages(project, install),
        _scripts(project),
    ):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise _ambiguous(candidates)
    raise _nothing(project)


def _wished(project: Project, wish: tuple[str, ...]) -> EntryPoint:
    if not wish or not wish[0]:
        raise UserError("The entry point is empty", 'give a command, such as "python train.py"')
    if wish[0].endswith(".py") and project.has(wish[0]):
        # A script alone need not be executable, nor say what runs it.
        return EntryPoint(("python", *wish), "as requested")
    return EntryPoint(wish, "as requested")


def _procfile(project: Project) -> list[EntryPoint]:
    """Return what a Procfile runs, its `web` before others:
    https://devcenter.heroku.com/articles/procfile.
    """
    if not project.has("Procfile"):
        return []
    lines = re.findall(r"(?m)^([A-Za-z0-9_-]+):[ \t]*(\S.*)$", project.text("Procfile"))
    kinds = {kind: command.strip() for kind, command in lines if kind not in ("release", "console")}
    if "web" in kinds:
        kinds = {"web": kinds["web"]}
    return [
        EntryPoint(_shell(command), f"{kind} of the Procfile") for kind, command in kinds.items()
    ]


def _shell(command: str) -> tuple[str, ...]:
    """Return the words of a command; where it takes a shell to know them, the shell with it."""
    if len(command) > LONGEST:
        raise UserError(
            f"The Procfile has a command of more than {LONGEST} characters", "put it into a script"
        )
    if not _FOR_A_SHELL.search(command):
        try:
            return tuple(shlex.split(command))
        except ValueError:
            pass
    return ("/bin/sh", "-c", command if _SEVERAL.search(command) else f"exec {command}")


def _console_scripts(install: Install) -> list[EntryPoint]:
    found = [EntryPoint((name,), "a console script of the project") for name in install.scripts]
    own = [each for each in found if _normal(each.command[0]) == _normal(install.name)]
    return own if len(own) == 1 else found


def _packages(project: Project, install: Install) -> list[EntryPoint]:
    """Find packages that `python -m` runs: at the top, which is where Python is started, and in
    `src` if it is installed.
    """
    found = []
    for path in project.files:
        folder, name = posixpath.split(path)
        package = folder.removeprefix("src/") if install.project else folder
        if name == "__main__.py" and package.isidentifier() and package not in _TESTS:
            found.append(EntryPoint(("python", "-m", package), path))
    return found


def _scripts(project: Project) -> list[EntryPoint]:
    top = [
        path
        for path in project.files
        if path.endswith(".py") and "/" not in path and not _NEVER.fullmatch(path)
    ]
    found = [path for path in _TELLING if path in top]
    found = found or (top if len(top) == 1 else _run(project, top) or top)
    return [EntryPoint(("python", path), path) for path in found]


def _run(project: Project, paths: list[str]) -> list[str]:
    """Return the scripts that have the usual `if __name__ == "__main__"`, as far as that can be seen
    in a second or so. What is not Python as we know it (that of Python 2, say) is no entry.
    """
    found, left = [], _MOST_PARSED
    for path in paths:
        with suppress(UserError):
            code = project.python(path)
            if "__main__" not in code:
                continue
            left -= len(code)
            if left < 0:
                break
            if _is_run(static_metadata.syntax(code, path)):
                found.append(path)
    return found


def _is_run(script: ast.Module) -> bool:
    tests = [node.test for node in script.body if isinstance(node, ast.If)]
    return any(isinstance(test, ast.Compare) and "__main__" in ast.unparse(test) for test in tests)


def _ambiguous(candidates: list[EntryPoint]) -> UserError:
    commands = sorted(shlex.join(each.command) for each in candidates)
    more = f" and {len(commands) - _MAX_SHOWN} more" if len(commands) > _MAX_SHOWN else ""
    return UserError(
        f"It is not clear what the image is to run: {', '.join(commands[:_MAX_SHOWN])}{more}",
        f"say what the image runs, such as {commands[0]}",
    ).about("entrypoint")


def _nothing(project: Project) -> UserError:
    elsewhere = sorted(
        {
            posixpath.dirname(path)
            for path in project.files
            if posixpath.basename(path) in PROJECT_FILES
        }
    )
    below = [folder for folder in elsewhere if folder][:_MAX_SHOWN]
    notebooks = [path for path in project.files if path.endswith(".ipynb")][:_MAX_SHOWN]
    if notebooks and not below:
        run = f"jupyter nbconvert --to notebook --execute {notebooks[0]}"
        return UserError(
            f"There is nothing to run but notebooks: {', '.join(notebooks)}",
            f"say what the image runs, such as {run}, with jupyter among its requirements",
        ).about("entrypoint")
    return UserError(
        "There is nothing at the top of the source to run: neither a console script, nor a package with __main__.py, "
        f"nor a script such as {', '.join(_TELLING)}",
        f"build from the folder that is meant: {', '.join(below)}"
        if below
        else "say what the image runs, such as python path/to/script.py",
    ).about("" if below else "entrypoint")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

"""Imagemill as its users get it: the wheel in an environment of its own, with the packages that it
names and no others.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from service import ROOT

_VARIABLES = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}


def build(folder: Path) -> Path:
    """Build the wheel of this tree into a folder, and return its path."""
    command = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    _pip(*command)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path, *extras: str) -> Path:
    """Install the wheel with these extras into a new environment, and return the folder of its
    programs.

    What it needs is linked from the environment of the tests: an index is not asked.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    programs = folder / "bin"
    _pip("--python", str(programs / "python"), "install", "--no-deps", "--no-index", str(wheel))
    for each in _needed(next(iter(site(folder).glob("imagemill-*.dist-info"))), set(extras)):
        _link(each, site(folder))
    return programs


def site(folder: Path) -> Path:
    """Return the folder of the packages in an environment."""
    (found,) = folder.glob("lib/python*/site-packages")
    return found


def _pip(*arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *arguments], check=True, capture_output=True)


def _needed(metadata: Path, extras: set[str]) -> Iterator[Distribution]:
    """Yield what a distribution requires, and what that requires, each once."""
    seen: set[tuple[str, str]] = set()
    open_: list[tuple[Distribution, str]] = [
        (Distribution.at(metadata), extra) for extra in ("", *extras)
    ]
    while open_:
        found, extra = open_.pop()
        for requirement in map(Requirement, found.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            for wanted in ("", *requirement.extras):
                if (requirement.name, wanted) in seen:
                    continue
                seen.add((requirement.name, wanted))
                own = requirement.name == found.name
                next_ = found if own else distribution(requirement.name)
                open_.append((next_, wanted))
                if not own and not wanted:
                    yield next_


def _link(found: Distribution, folder: Path) -> None:
    """Link a distribution's files; those outside of its packages are programs, which none needs."""
    for path in found.files or ():
        if ".." in path.parts or "__pycache__" in path.parts:
            continue
        link = folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(str(path.locate())).resolve())

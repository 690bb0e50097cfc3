"""What a package's build backend looks at to install it in place, so that it can be done before its
code is there: a change of code then leaves that installation as it is.

An editable installation is metadata, scripts and the folder that the code is to be found in. Where
a project says more than its `pyproject.toml` can tell, or has a backend that we do not know, it is
installed after its code, as before.
"""

import posixpath
from dataclasses import dataclass
from typing import Any

from imagemill.dockerfile.generate.project import Project, strings, table

_PYPROJECT = "pyproject.toml"

_BACKENDS = frozenset(
    {
        "flit_core.buildapi",
        "hatchling.build",
        "pdm.backend",
        "poetry.core.masonry.api",
        "setuptools.build_meta",
        "uv_build",
    }
)
"""What these do for a pure package is known: https://peps.python.org/pep-0660/."""

_OWN_STEPS = (
    ("tool", "hatch", "build"),
    ("tool", "hatch", "metadata"),
    ("tool", "pdm", "build"),
    ("tool", "poetry", "build"),
    ("tool", "setuptools", "cmdclass"),
    ("tool", "setuptools", "dynamic"),
    ("tool", "setuptools", "package-dir"),
)
"""Tables that may let a backend look at anything."""

_MOST_NAMES = 50


@dataclass(frozen=True)
class Skeleton:
    """A package without its code."""

    copied: tuple[str, ...]
    """Files that the metadata are made of, besides those that the dependencies are."""
    folders: tuple[str, ...]
    empty: tuple[str, ...]
    """Modules, which have to be there and may be empty."""


def find(project: Project) -> Skeleton | None:
    """Return the skeleton of the project; None if only all of its code will do."""
    document = project.toml(_PYPROJECT)
    backend = table(document, _PYPROJECT, "build-system")
    if backend.get("build-backend") not in _BACKENDS or "backend-path" in backend:
        return None
    if project.has("setup.py") or project.has("setup.cfg") or project.has("MANIFEST.in"):
        return None
    if not _is_versioned(document) or any(_is_there(document, *keys) for keys in _OWN_STEPS):
        return None
    if table(document, _PYPROJECT, "tool", "setuptools").get("ext-modules"):
        return None
    top = "src" if project.has_folder("src") else ""
    folders = [folder for folder in project.folders if posixpath.dirname(folder) == top]
    modules = [
        path
        for path in project.files
        if path.endswith(".py")
        and (
            posixpath.dirname(path) == top
            or (posixpath.basename(path) == "__init__.py" and posixpath.dirname(path) in folders)
        )
    ]
    named = _named(document)
    if len(folders) + len(modules) > _MOST_NAMES or not all(map(project.has, named)):
        return None
    return Skeleton(named, tuple(folders or [top] if top else folders), tuple(modules))


def _is_versioned(document: dict[str, Any]) -> bool:
    """Whether all is said there but, maybe, a version that git or one file has."""
    dynamic = table(document, _PYPROJECT, "project").get("dynamic") or []
    if not dynamic:
        return True
    requires = str(table(document, _PYPROJECT, "build-system").get("requires")).replace("_", "-")
    by_git = any(name in requires for name in ("setuptools-scm", "hatch-vcs"))
    return dynamic == ["version"] and (by_git or _version_file(document) is not None)


def _version_file(document: dict[str, Any]) -> str | None:
    path = table(document, _PYPROJECT, "tool", "hatch", "version").get("path")
    return path if isinstance(path, str) else None


def _is_there(document: dict[str, Any], *keys: str) -> bool:
    *above, last = keys
    return last in table(document, _PYPROJECT, *above)


def _named(document: dict[str, Any]) -> tuple[str, ...]:
    """Return the files that the metadata name."""
    settings = table(document, _PYPROJECT, "project")
    poetry = table(document, _PYPROJECT, "tool", "poetry").get("readme")
    texts = [settings.get("readme"), settings.get("license")]
    texts += [*(poetry if isinstance(poetry, list) else [poetry]), _version_file(document)]
    found = [
        text.get("file") if isinstance(text, dict) else text
        for number, text in enumerate(texts)
        if number != 1 or isinstance(text, dict)  # a license is a name, unless it is a file
    ]
    return tuple(dict.fromkeys(strings([name for name in found if name], _PYPROJECT)))

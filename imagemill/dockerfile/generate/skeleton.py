"""What a package's build backend looks at to install it in place, so that it can be done before its
code is there: a change of code then leaves that installation as it is.

An editable installation is metadata, scripts and the folder that the code is to be found in
(https://peps.python.org/pep-0660/). What a package says of those in its settings and in files that
these name is copied before it is installed; where a backend would look at more, it is installed
after its code, and whoever builds is told why.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from imagemill.dockerfile.generate import setup_files
from imagemill.dockerfile.generate.project import Project, strings, table
from imagemill.dockerfile.generate.setup_files import NeedsCode
from imagemill.dockerfile.generate.static_metadata import (
    HATCH_HOOKS,
    HATCH_REQUIREMENTS,
    dynamic_files,
)

_PYPROJECT = "pyproject.toml"
_BY_GIT = ("setuptools-scm", "hatch-vcs")
_MOST_NAMES = 50


@dataclass(frozen=True)
class Skeleton:
    """A package without its code."""

    copied: tuple[str, ...]
    """Files that the metadata are made of, besides those that the dependencies are."""
    folders: tuple[str, ...]
    empty: tuple[str, ...]
    """Modules, which have to be there and may be empty."""

    def __add__(self, other: "Skeleton") -> "Skeleton":
        return Skeleton(
            tuple(dict.fromkeys((*self.copied, *other.copied))),
            self.folders + other.folders,
            self.empty + other.empty,
        )


@dataclass
class _Package:
    """A package in a folder of the project, and what of it its backend needs."""

    project: Project
    folder: str
    top: str = ""
    """The folder that its modules are in, relative to its own."""
    files: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    """Folders that the settings name."""
    told: set[str] = field(default_factory=set)
    """Metadata that are said to be dynamic, and are in these files."""

    def __post_init__(self) -> None:
        self.path = self.within(_PYPROJECT)
        self.document = self.project.toml(self.path)
        self.top = "src" if self.project.has_folder(self.within("src")) else ""

    def within(self, path: str) -> str:
        """Return the path within the project of one within the package."""
        inside = posixpath.normpath(posixpath.join(self.folder, path))
        return "" if inside == "." else inside

    def table(self, *keys: str) -> dict[str, Any]:
        return table(self.document, self.path, *keys)

    def only(self, known: Iterable[str], *keys: str) -> dict[str, Any]:
        """Return a table that has these keys alone; with others a backend may look at anything."""
        found = self.table(*keys)
        if others := sorted(set(found) - set(known)):
            raise NeedsCode(f"{self.path} has {'.'.join((*keys, others[0]))}")
        return found

    def add_package(self, path: str) -> None:
        """Note a folder whose modules are installed."""
        if not self.project.has(self.within(posixpath.join(path, "__init__.py"))):
            raise NeedsCode(f"{self.path} names the package {path}, which has no __init__.py")
        self.packages.append(path)

    def add_file(self, path: object) -> None:
        """Note a file that the settings name."""
        if not (isinstance(path, str) and self.project.has(self.within(path))):
            raise NeedsCode(f"{self.path} names {path!s:.60}, which is no file of it")
        self.files.append(path)

    def add_attribute(self, name: object) -> None:
        """Note the module that has an attribute, such as `shop.__version__`, in plain sight."""
        self.files.append(
            setup_files.module_of(self.project, self.folder, self.top, str(name), self.path)
        )


def find(project: Project, folder: str = "") -> Skeleton:
    """Return the skeleton of the package in a folder; `NeedsCode` if only all of its code will do."""
    package = _Package(project, folder)
    build = package.table("build-system")
    if "backend-path" in build:
        raise NeedsCode(f"the build backend of {package.path} is a part of its code")
    backend = str(build.get("build-backend", "setuptools.build_meta")).partition(":")[0]
    read = _BACKENDS.get(backend)
    if read is None:
        raise NeedsCode(f"{package.path} is built by {backend:.60}, which may look at any of it")
    read(package)
    _add_metadata(package)
    return _skeleton(package)


def workspace(project: Project) -> Skeleton:
    """Return the skeletons of all members of uv's workspace, without the one at the top."""
    document = project.toml(_PYPROJECT)
    settings = table(document, _PYPROJECT, "tool", "uv", "workspace")
    wanted = strings(settings.get("members", []), f"{_PYPROJECT}: members")
    left_out = strings(settings.get("exclude", []), f"{_PYPROJECT}: exclude")
    found = Skeleton((), (), ())
    for folder in project.folders:
        path = posixpath.join(folder, _PYPROJECT)
        if not project.has(path) or not _matches(folder, wanted) or _matches(folder, left_out):
            continue
        found += Skeleton((path,), (), ())
        member = project.toml(path)
        said = table(member, path, "tool", "uv").get("package")
        if said if said is not None else "build-system" in member:
            found += find(project, folder)
    return found


def _matches(folder: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(folder, posixpath.normpath(pattern)) for pattern in patterns)


def _skeleton(package: _Package) -> Skeleton:
    project, top = package.project, package.within(package.top)
    above = {posixpath.dirname(package.within(path)) for path in package.packages}
    folders = [
        *(folder for folder in project.folders if posixpath.dirname(folder) in {top, *above}),
        *(package.within(path) for path in package.packages),
    ]
    folders = list(dict.fromkeys(folders))
    copied = tuple(dict.fromkeys(map(package.within, package.files)))
    modules = [
        path
        for path in project.files
        if path.endswith(".py")
        and path not in copied
        and (
            posixpath.dirname(path) == top
            or (posixpath.basename(path) == "__init__.py" and posixpath.dirname(path) in folders)
        )
    ]
    if len(folders) + len(modules) > _MOST_NAMES:
        raise NeedsCode(f"{package.path} stands beside more than {_MOST_NAMES} modules")
    return Skeleton(copied, tuple(folders or ([top] if top else [])), tuple(modules))


def _add_metadata(package: _Package) -> None:
    settings = package.table("project")
    poetry = package.table("tool", "poetry").get("readme")
    said = settings.get("license")
    texts = [settings.get("readme"), *(poetry if isinstance(poetry, list) else [poetry])]
    texts += [said] if isinstance(said, dict) else []  # else it is a license's name
    for text in texts:
        path = text.get("file") if isinstance(text, dict) else text
        if path:
            package.add_file(path)
    requires = str(package.table("build-system").get("requires")).replace("_", "-")
    if any(name in requires for name in _BY_GIT):
        package.told.add("version")
    dynamic = strings(settings.get("dynamic") or [], f"{package.path}: project.dynamic")
    if left := [name for name in dynamic if name not in package.told]:
        raise NeedsCode(f"{package.path} leaves {left[0]} to the build backend")


_HATCH = frozenset((
    "artifacts", "dev-mode-dirs", "directory", "exclude", "ignore-vcs", "include",
    "only-include", "packages", "reproducible", "skip-excluded-dirs", "sources",
))  # fmt: skip


def _hatch(package: _Package) -> None:
    known = {"allow-direct-references", "allow-ambiguous-features", "hooks"}
    package.only(known, *_of("hatch.metadata"))
    _add_hooks(package)
    package.only({"vcs"}, *_of("hatch.build.hooks"))
    build = package.only({*_HATCH, "targets", "hooks"}, *_of("hatch.build"))
    wheel = package.only(_HATCH, *_of("hatch.build.targets.wheel"))
    for settings in (build, wheel):
        for name in ("packages", "only-include"):
            for path in strings(settings.get(name, []), f"{package.path}: {name}"):
                package.add_package(path)
    version = package.table(*_of("hatch.version"))
    if "path" in version and version.get("source", "regex") == "regex":
        package.add_file(version["path"])
        package.told.add("version")


def _add_hooks(package: _Package) -> None:
    """Note what hooks of Hatch's metadata read: https://hatch.pypa.io/latest/plugins/metadata-hook/."""
    hooks = package.only({HATCH_REQUIREMENTS, "fancy-pypi-readme"}, *HATCH_HOOKS)
    if HATCH_REQUIREMENTS in hooks:
        optional = package.table(*HATCH_HOOKS, HATCH_REQUIREMENTS, "optional-dependencies")
        is_told = "dependencies" in package.table("project").get("dynamic", [])
        for paths in (dynamic_files(package.document) if is_told else (), *optional.values()):
            for path in strings(paths, package.path):
                package.add_file(path)
        package.told |= {"dependencies", "optional-dependencies"}
    if "fancy-pypi-readme" in hooks:
        fragments = package.table(*HATCH_HOOKS, "fancy-pypi-readme").get("fragments")
        for each in fragments if isinstance(fragments, list) else []:
            if isinstance(each, dict) and "path" in each:
                package.add_file(each["path"])
        package.told.add("readme")


def _pdm(package: _Package) -> None:
    known = {"excludes", "includes", "is-purelib", "package-dir", "source-includes"}
    build = package.only(known, *_of("pdm.build"))
    package.top = str(build.get("package-dir", package.top))
    version = package.table(*_of("pdm.version"))
    if version.get("source") == "file":
        package.add_file(version.get("path"))
        package.told.add("version")


def _poetry(package: _Package) -> None:
    if "build" in package.table("tool", "poetry"):
        raise NeedsCode(f"{package.path} has tool.poetry.build")
    packages = package.table("tool", "poetry").get("packages")
    for each in packages if isinstance(packages, list) else []:
        if isinstance(each, dict):
            package.add_package(posixpath.join(each.get("from", ""), str(each.get("include"))))


def _flit(package: _Package) -> None:
    package.only((), *_of("flit.external-data"))
    name = package.table(*_of("flit.module")).get("name") or package.table("project").get("name")
    module = re.sub(r"[-.]", "_", str(name))
    for told in ("version", "description"):
        if told in package.table("project").get("dynamic", []):
            package.add_attribute(f"{module}.{'__version__' if told == 'version' else '__doc__'}")
            package.told.add(told)


def _uv(package: _Package) -> None:
    known = "default-excludes module-name module-root namespace source-exclude source-include"
    settings = package.only({*known.split(), "wheel-exclude"}, *_of("uv.build-backend"))
    package.top = str(settings.get("module-root", package.top))
    names = settings.get("module-name", [])
    for name in [names] if isinstance(names, str) else strings(names, package.path):
        package.add_package(posixpath.join(package.top, name.replace(".", "/")))


_SETUPTOOLS = frozenset((
    "dynamic", "exclude-package-data", "include-package-data", "license-files",
    "namespace-packages", "package-data", "package-dir", "packages", "platforms",
    "py-modules", "zip-safe",
))  # fmt: skip


def _setuptools(package: _Package) -> None:
    settings = package.only(_SETUPTOOLS, *_of("setuptools"))
    places = package.table(*_of("setuptools.package-dir"))
    packages = settings.get("packages", [])
    where: tuple[str, ...] = ()
    if isinstance(packages, dict):
        said = package.table(*_of("setuptools.packages.find")).get("where", [])
        where = strings(said, f"{package.path}: where")
    package.top = str(places.get("", where[0] if where else package.top))
    for name in [] if isinstance(packages, dict) else strings(packages, package.path):
        package.add_package(posixpath.join(package.top, name.replace(".", "/")))
    for name, how in package.table(*_of("setuptools.dynamic")).items():
        _add_dynamic(package, name, how)
    if package.project.has(package.within("MANIFEST.in")):
        package.files.append("MANIFEST.in")
    for read in (setup_files.setup_py, setup_files.setup_cfg):
        found = read(package.project, package.folder)
        if found is not None:
            package.top = package.top if found.top is None else found.top
            package.files += found.files
            package.packages += found.packages
            package.told |= {"version", "dependencies", "description", "readme", "scripts"}
            package.told |= {"entry-points", "optional-dependencies", "classifiers", "license"}


def _add_dynamic(package: _Package, name: str, how: object) -> None:
    if isinstance(how, dict) and name == "optional-dependencies":
        for each in how.values():
            _add_dynamic(package, name, each)
        return
    said = how if isinstance(how, dict) else {}
    if "attr" in said:
        package.add_attribute(said["attr"])
    paths = said.get("file", [])
    for path in [paths] if isinstance(paths, str) else strings(paths, package.path):
        package.add_file(path)
    package.told.add(name)


def _of(name: str) -> tuple[str, ...]:
    return ("tool", *name.split("."))


_BACKENDS: Mapping[str, Callable[[_Package], None]] = {
    "flit_core.buildapi": _flit,
    "hatchling.build": _hatch,
    "pdm.backend": _pdm,
    "poetry.core.masonry.api": _poetry,
    "setuptools.build_meta": _setuptools,
    "uv_build": _uv,
}
"""Backend → what notes all that it may look at."""

"""How a project's dependencies get into an image: one function for each way in which projects say
what they need.

The first that finds its file decides. A lock comes before what it was made from, and
`environment.yml` before `requirements.txt`, which it often includes (the order of repo2docker:
https://repo2docker.readthedocs.io/en/latest/configuration/).
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from imagemill.dockerfile.generate import named_files, skeleton, static_metadata
from imagemill.dockerfile.generate.indexes import PackageOrigin
from imagemill.dockerfile.generate.project import Project, line_of, strings, table
from imagemill.dockerfile.generate.python import Constraint, constraint, poetry_constraint
from imagemill.dockerfile.generate.requirements import (
    LONGEST,
    Requirements,
    arguments,
    check,
)
from imagemill.dockerfile.generate.setup_files import NeedsCode
from imagemill.dockerfile.generate.skeleton import Skeleton
from imagemill.dockerfile.generate.static_metadata import Declared
from imagemill.errors import UserError

PYPROJECT = "pyproject.toml"

PROJECT_FILES = (
    "uv.lock",
    "poetry.lock",
    "pylock.toml",
    PYPROJECT,
    "environment.yml",
    "requirements.txt",
    "Pipfile.lock",
    "setup.py",
    "setup.cfg",
)
"""What makes a folder a project, if it is not a script."""

_POETRY = (((3, 10), "2.5.1"), ((3, 9), "2.2.1"), ((3, 8), "1.8.5"))
"""The oldest Python that a version of Poetry runs on, and the version."""

_PIPFILE_LOCK = "Pipfile.lock"
_PYTHON_ENVS = ("python_env.yaml", "python_env.yml")
_EMPTY = Skeleton((), (), ())
_PYPI = "https://pypi.org/simple"
_SYSTEM_PACKAGE = re.compile(
    r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?(?:=[A-Za-z0-9.+:~-]+)?", re.ASCII
)

_VERSIONED_BY_GIT = ("setuptools-scm", "hatch-vcs")
_VERSION = "SETUPTOOLS_SCM_PRETEND_VERSION=0.0.0"
"""Both read it; the build does not see `.git`, which they would ask."""


@dataclass(frozen=True)
class Install:
    """How to install what a project needs, and the project itself."""

    found: tuple[str, ...]
    """The files that say it; none if nothing does."""
    copied: tuple[str, ...] = ()
    """Files, and folders with a slash at their end, that have to be there before the dependencies
    can be installed.
    """
    commands: tuple[tuple[str, ...], ...] = ()
    """Install the dependencies."""
    project: tuple[str, ...] = ()
    """Installs the project itself, once all of it is there; nothing if it is no package."""
    notes: tuple[str, ...] = ()
    """What whoever reads the Dockerfile ought to know."""
    python: Constraint | None = None
    places: tuple[PackageOrigin, ...] = ()
    git: bool = False
    scripts: tuple[str, ...] = ()
    """The console scripts that are there once the project is installed."""
    name: str = ""
    conda: "Conda | None" = None
    uv_project: bool = False
    own_index: bool = False
    """Whether the project says where packages come from in place of PyPI."""
    index: str | None = None
    """The package index that is asked in place of PyPI."""
    entry: tuple[str, ...] = ()
    """What an `MLproject` runs."""
    system: tuple[str, ...] = ()
    """Packages of the system, by apt's names."""
    last: str = ""
    """A script that is run when all is there."""
    warnings: tuple[str, ...] = ()
    """What the project declares and the image is without."""
    skeleton: Skeleton | None = None
    """What the project itself can be installed by before its code is there."""
    local: tuple[str, ...] = ()
    """Files and folders of the project that are there whole when it is installed, besides."""
    needs_code: str = ""
    """Why all of its code has to be there, if that is known."""


@dataclass(frozen=True)
class Conda:
    """That the dependencies are conda's, and whether they name a Python."""

    has_python: bool


def find(project: Project) -> Install:
    """How this project is to be installed; `UserError` if what it says about it cannot be read or
    used.
    """
    found = _first(project, _KINDS)
    system, last = _apt(project), _in_binder(project, "postBuild") or ""
    unused = named_files.not_used(project, found.found, found.copied)
    if not found.found:
        unused += named_files.below(project)
        found = replace(found, warnings=named_files.for_work(project))
    if unused and not found.found:
        raise UserError(
            f"The project declares dependencies that nothing here reads: {'; '.join(unused)}",
            "do what is said there, or add a requirements.txt or a Dockerfile",
        )
    return _before_the_code(
        project, replace(found, system=system[0], last=last, warnings=(*found.warnings, *unused))
    )


def _before_the_code(project: Project, found: Install) -> Install:
    """With what installs the project itself before its code is there; or with why that needs it."""
    reason = f"{found.last} runs once all is there" if found.last else ""
    if found.project:
        try:
            return replace(found, skeleton=_skeleton(project, found), warnings=_told(found, reason))
        except NeedsCode as error:
            reason = error.reason
    return replace(found, warnings=_told(found, reason))


def _told(found: Install, reason: str) -> tuple[str, ...]:
    """Return the warnings, and that the builder is needed each time, with the reason."""
    if not reason:
        return found.warnings
    return (*found.warnings, f"Each change of code is built by the builder, since {reason}")


def _skeleton(project: Project, found: Install) -> Skeleton:
    if found.needs_code:
        raise NeedsCode(found.needs_code)
    first = Skeleton((*found.local,), (), ())
    if not found.uv_project:
        return first + skeleton.find(project)
    document = project.toml(PYPROJECT)
    members = skeleton.workspace(project)
    return first + members + (skeleton.find(project) if _is_package(project, document) else _EMPTY)


def for_script(project: Project, install: Install, path: str) -> Install:
    """Return what a script alone needs, by the block of metadata that it may have (PEP 723)."""
    if install.found or not project.has(path):
        return install
    block = static_metadata.script(project, path)
    python = block.python and constraint(block.python, f"requires-python in {path}")
    if block.dependencies is None:
        return install
    return _listed(project, block, python or None)


def poetry_version(python: str) -> str:
    """Return the version of Poetry to install with, which has to run on the project's own Python."""
    have = tuple(map(int, python.split(".")[:2]))
    return next(version for oldest, version in _POETRY if have >= oldest)


# --- The kinds ---


def _uv(project: Project) -> Install | None:
    if not (project.has("uv.lock") and project.has(PYPROJECT)):
        return None
    document = project.toml(PYPROJECT)
    workspace = "workspace" in table(document, PYPROJECT, "tool", "uv")
    places, local = _uv_sources(project, document, workspace)
    package = _is_package(project, document)
    sync = ("uv", "sync", "--no-dev")
    several = workspace or bool(local)
    # A workspace's lock cannot be compared with its members before they are there; the second sync
    # does it.
    first = (*sync, "--frozen" if several else "--locked", "--no-install-local")
    fetched = tuple(PackageOrigin(url, "uv.lock").check() for url in _locked_git(project))
    return Install(
        (PYPROJECT, "uv.lock"),
        (PYPROJECT, "uv.lock"),
        (first,),
        _versioned(document, (*sync, "--locked")) if several or package else (),
        python=_requires_python(project, document),
        places=(*places, *fetched),
        git=bool(fetched),
        scripts=_scripts(document) if package else (),
        name=_name(document),
        uv_project=True,
        local=local,
    )


def _poetry(project: Project) -> Install | None:
    document = project.toml(PYPROJECT)
    settings = table(document, PYPROJECT, "tool", "poetry")
    locked = project.has("poetry.lock")
    if not (settings and (locked or "dependencies" in settings)) and not (locked and document):
        return None
    dependencies = table(document, PYPROJECT, "tool", "poetry", "dependencies")
    places, paths = _poetry_places(project, document, dependencies)
    package = settings.get("package-mode") is not False
    copied = (PYPROJECT, *(("poetry.lock",) if locked else ()), *paths)
    notes = (
        () if locked else ("There is no poetry.lock: Poetry takes the newest versions that fit.",)
    )
    install = ("poetry", "install", "--no-interaction")
    return Install(
        (PYPROJECT, *(("poetry.lock",) if locked else ())),
        copied,
        ((*install, "--only", "main", "--no-root"),),
        (*install, "--only-root") if package else (),
        notes,
        python=_requires_python(project, document) or _poetry_python(project, dependencies),
        places=places,
        git=any(place.is_git for place in places),
        scripts=(*_scripts(document), *table(document, PYPROJECT, "tool", "poetry", "scripts"))
        if package
        else (),
        name=_name(document) or str(settings.get("name", "")),
    )


def _mlproject(project: Project) -> Install | None:
    """Return what MLflow runs: https://mlflow.org/docs/latest/ml/projects/."""
    if not project.has("MLproject"):
        return None
    document = project.yaml("MLproject")
    settings = document if isinstance(document, dict) else {}
    entry = _mlflow_entry(settings)
    if settings.get("docker_env"):
        raise UserError(
            f"MLproject:{line_of(project.text('MLproject'), 'docker_env')}: docker_env is not used:"
            " the dependencies are in its image",
            "write a Dockerfile that begins with FROM and that image",
        )
    if isinstance(path := settings.get("conda_env"), str):
        found = _from_environment(project, project.within(path, "MLproject: conda_env"))
    elif isinstance(path := settings.get("python_env"), str):
        found = _from_python_env(project, project.within(path, "MLproject: python_env"))
    else:
        found = _first(project, _KINDS[1:])
    return replace(found, found=found.found and (*found.found, "MLproject"), entry=entry)


def _first(project: Project, kinds: Iterable["Kind"]) -> Install:
    return next((each for kind in kinds if (each := kind(project)) is not None), Install(()))


def _mlflow_entry(settings: dict[str, Any]) -> tuple[str, ...]:
    """Return the command of the entry point `main`, with the defaults of its parameters; none if
    they have no defaults.
    """
    points = settings.get("entry_points")
    main = points.get("main") if isinstance(points, dict) else None
    command = main.get("command") if isinstance(main, dict) else None
    if not isinstance(main, dict) or not isinstance(command, str) or len(command) > LONGEST:
        return ()
    parameters = main.get("parameters")
    for name, said in parameters.items() if isinstance(parameters, dict) else ():
        default = said.get("default") if isinstance(said, dict) else None
        if default is not None:
            command = command.replace(f"{{{name}}}", str(default))
    try:
        return () if "{" in command else tuple(shlex.split(command))
    except ValueError:
        return ()


def _python_env(project: Project) -> Install | None:
    path = next((name for name in _PYTHON_ENVS if project.has(name)), None)
    return _from_python_env(project, path) if path else None


def _from_python_env(project: Project, path: str) -> Install:
    """MLflow's `python_env.yaml`: lines of a requirements file, and a version of Python."""
    document = project.yaml(path)
    settings = document if isinstance(document, dict) else {}
    lines = strings(settings.get("dependencies") or [], f"{path}: dependencies")
    found = Requirements()
    for line in lines:
        found.line(project, line, f"{path}:{line_of(project.text(path), line)}")
    words = [word for line in lines for word in arguments(line, path)]
    command = ("uv", "pip", "install", *words, *found.flags) if lines else ()
    python = settings.get("python")
    return Install(
        (path, *found.files),
        (*found.files, *found.paths) if not found.whole else (),
        (command,) if command and not found.whole else (),
        command if found.whole else (),
        python=constraint(f"=={python}", path) if python else None,
        places=tuple(found.places),
        git=any(place.is_git for place in found.places),
        own_index=found.own_index,
        warnings=tuple(found.warnings),
        needs_code=f"{found.whole} installs it",
    )


def _pylock(project: Project) -> Install | None:
    """Return a lock of any installer: https://packaging.python.org/en/latest/specifications/pylock-
    toml/.
    """
    lock = named_files.pylock(project)
    if lock is None:
        return None
    document = project.toml(lock)
    packages = [each for each in document.get("packages", []) if isinstance(each, dict)]
    local, places, copied = [], [], False
    for package in packages:
        for kind in ("directory", "archive", "vcs"):
            said = package.get(kind)
            where = f"{lock}:{line_of(project.text(lock), str(package.get('name')))}"
            if not isinstance(said, dict):
                continue
            if isinstance(path := said.get("path"), str):
                local.append(project.local(path, where))
                copied |= local[-1] == "./" and said.get("editable") is not True
            elif isinstance(url := said.get("url"), str):
                places.append(PackageOrigin(f"git+{url}" if kind == "vcs" else url, where).check())
    whole = _whole_project(project)
    python = document.get("requires-python")
    early = "./" not in local
    command = ("uv", "pip", "install", "--requirement", lock)
    return Install(
        (lock, *(whole.found if whole.project else ())),
        (lock, *local) if early else (),
        (command,) if early else (),
        whole.project if early else command,
        python=constraint(python, lock) if isinstance(python, str) else whole.python,
        places=(*places, *whole.places),
        git=whole.git or any(place.is_git for place in places),
        scripts=whole.scripts,
        name=whole.name,
        own_index=True,
        local=tuple(path for path in local if path != "./"),
        needs_code=f"{lock} installs a copy of it" if copied else "",
    )


def _pipenv(project: Project) -> Install | None:
    """Pipenv's lock: https://pipenv.pypa.io/en/latest/pipfile.html."""
    if not project.has(_PIPFILE_LOCK):
        return None
    try:
        document = json.loads(project.text(_PIPFILE_LOCK))
        packages = document["default"]
        listed = tuple(_locked(name, said) for name, said in sorted(packages.items()))
        meta = document.get("_meta", {})
        urls = [str(each["url"]) for each in meta.get("sources", [])]
        version = meta.get("requires", {}).get("python_version")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{_PIPFILE_LOCK}: this is no lock of Pipenv", "run `pipenv lock`"
        ) from None
    if other := next((name for name, said in packages.items() if "version" not in said), None):
        raise UserError(
            f"{_PIPFILE_LOCK}:{line_of(project.text(_PIPFILE_LOCK), other)}: {other} is from"
            " elsewhere than an index",
            "run `pipenv requirements > requirements.txt` and add that",
        )
    places = [PackageOrigin(url, _PIPFILE_LOCK).check() for url in urls if url != _PYPI]
    indexes = [word for place in places for word in ("--index", place.url)]
    return Install(
        (_PIPFILE_LOCK,),
        (),
        (("uv", "pip", "install", *listed, *indexes),) if listed else (),
        python=constraint(f"=={version}.*", _PIPFILE_LOCK) if version else None,
        places=tuple(places),
        own_index=bool(places),
    )


def _locked(name: str, said: dict[str, Any]) -> str:
    """One package of Pipenv's lock as a requirement."""
    extras = f"[{','.join(said['extras'])}]" if said.get("extras") else ""
    markers = f" ; {said['markers']}" if said.get("markers") else ""
    return check(f"{name}{extras}{said.get('version', '')}{markers}", _PIPFILE_LOCK)


def _conda(project: Project) -> Install | None:
    names = ("environment.yml", "environment.yaml", "conda.yaml", "conda.yml")
    path = next((found for name in names if (found := _in_binder(project, name))), None)
    return _from_environment(project, path) if path else None


def _named_environment(project: Project) -> Install | None:
    path = named_files.environment(project)
    return _from_environment(project, path) if path else None


def _from_environment(project: Project, path: str) -> Install:
    document = project.yaml(path)
    listed = document.get("dependencies") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise UserError(
            f"{path}: it has no list of dependencies", "write `dependencies:` and a list below it"
        )
    requirements = Requirements(pip=True)
    names = [
        re.split(r"[\s=<>!~\[]", each.rpartition("::")[2], maxsplit=1)[0]
        for each in listed
        if isinstance(each, str)
    ]
    for line in _pip_lines(listed, path):
        requirements.line(project, line, f"{path}:{line_of(project.text(path), line)}")
    if requirements.whole:
        raise UserError(
            f"{requirements.whole}: conda's environment installs the project itself, which is not there yet",
            "leave that line out: the code is copied, and runs from its folder",
        )
    return Install(
        (path,),
        (path, *requirements.files, *requirements.paths),
        (("micromamba", "install", "--yes", "--name", "base", "--file", path),),
        places=tuple(requirements.places),
        git=any(place.is_git for place in requirements.places),
        conda=Conda("python" in names),
        own_index=requirements.own_index,
    )


def _requirements(project: Project) -> Install | None:
    path = _in_binder(project, "requirements.txt")
    return _from_requirements(project, (path,)) if path else None


def _named_requirements(project: Project) -> Install | None:
    path = named_files.requirements(project)
    return _from_requirements(project, (path,)) if path else None


def _pyproject(project: Project) -> Install | None:
    document = project.toml(PYPROJECT)
    settings = table(document, PYPROJECT, "project")
    if not settings:
        return None
    places, local = _uv_sources(project, document, False)
    package = _is_package(project, document)
    dynamic = "dependencies" in strings(
        settings.get("dynamic", []), f"{PYPROJECT}: project.dynamic"
    )
    if dynamic and (files := static_metadata.dynamic_files(document)):
        return _from_requirements(project, tuple(project.within(file, PYPROJECT) for file in files))
    listed = _dependencies(project, settings)
    early = bool(listed) and not dynamic
    found = Requirements()
    for text, where in listed:
        found.requirement(project, text, where)
    return Install(
        (PYPROJECT,),
        (PYPROJECT, *local, *found.paths) if early else (),
        (("uv", "pip", "install", "--requirement", PYPROJECT),) if early else (),
        _versioned(document, ("uv", "pip", "install", "--editable", ".")) if package else (),
        (f"{PYPROJECT} leaves its dependencies to the build backend, which needs all the code.",)
        if dynamic
        else (),
        python=_requires_python(project, document),
        places=(*places, *found.places),
        git=any(place.is_git for place in (*places, *found.places)),
        scripts=_scripts(document) if package else (),
        name=_name(document),
    )


def _setup(project: Project) -> Install | None:
    found = [read(project) for name, read in _SETUP_FILES if project.has(name)]
    if not found or not (project.has("setup.py") or found[0].dependencies is not None):
        return None
    read = next((each for each in found if each.dependencies), found[0])
    python = next(
        (
            constraint(each.python, f"python_requires in {each.path}")
            for each in found
            if each.python
        ),
        None,
    )
    install = _listed(project, read, python)
    # Where both are there, setup() may be called without arguments, since setup.cfg has them.
    known = any(each.dependencies is not None for each in found)
    package = project.has("setup.py")
    notes = (
        ()
        if known
        else (
            f"What {read.path} requires cannot be read without running it, which needs all the code.",
        )
    )
    return Install(
        tuple(each.path for each in found),
        install.copied,
        install.commands,
        ("uv", "pip", "install", "--editable", ".") if package else (),
        notes,
        python=python,
        places=install.places,
        git=install.git,
        scripts=tuple(dict.fromkeys(script for each in found for script in each.scripts))
        if package
        else (),
        name=next((each.name for each in found if each.name), ""),
    )


Kind = Callable[[Project], Install | None]
_KINDS: tuple[Kind, ...] = (
    _mlproject,
    _uv,
    _poetry,
    _pylock,
    _conda,
    _requirements,
    _pyproject,
    _setup,
    _pipenv,
    _named_requirements,
    _named_environment,
    _python_env,
)
_SETUP_FILES: tuple[tuple[str, Callable[[Project], Declared]], ...] = (
    ("setup.cfg", static_metadata.setup_cfg),
    ("setup.py", static_metadata.setup_py),
)


# --- What they share ---


def _in_binder(project: Project, name: str) -> str | None:
    """Return the path of a file, in Binder's folder if there is one, else at the top; None if there
    is none.
    """
    paths = (*(f"{folder}/{name}" for folder in named_files.BINDER), name)
    return next((path for path in paths if project.has(path)), None)


def _apt(project: Project) -> tuple[tuple[str, ...], str]:
    """Return the packages that Binder's `apt.txt` lists, and its path; empty if there is none."""
    path = _in_binder(project, "apt.txt")
    if path is None:
        return (), ""
    names = []
    for number, line in enumerate(project.text(path).split("\n"), start=1):
        names += [
            system_package(word, f"{path}:{number}") for word in line.partition("#")[0].split()
        ]
    return tuple(dict.fromkeys(names)), path


def system_package(name: str, where: str) -> str:
    """Return the name itself; `UserError` if apt knows no such names (Debian Policy, 5.6.7)."""
    if not _SYSTEM_PACKAGE.fullmatch(name):
        raise UserError(
            f"{where}: {name!r} is not the name of a system package", "write it like libgl1"
        )
    return name


def _from_requirements(project: Project, files: tuple[str, ...]) -> Install:
    """Install from requirements files first, then the project itself, if it is a package."""
    found = Requirements()
    for path in files:
        found.read(project, path)
    whole = _whole_project(project)
    command = (
        "uv",
        "pip",
        "install",
        *(word for path in files for word in ("--requirement", path)),
    )
    command = (*command, *found.flags)
    notes: tuple[str, ...] = ()
    if found.several_indexes:
        # uv would take a package from the first index that has it, in whatever version: not what
        # pip does.
        command = (*command, "--index-strategy", "unsafe-best-match")
        notes = ("As with pip, the best version of a package counts, whichever index has it.",)
    return Install(
        (*files, *(whole.found if whole.project else ())),
        () if found.whole else (*found.files, *found.paths),
        () if found.whole else (command,),
        command if found.whole else whole.project,
        notes,
        python=whole.python,
        places=(*found.places, *whole.places),
        git=whole.git or any(place.is_git for place in found.places),
        scripts=whole.scripts,
        name=whole.name,
        own_index=found.own_index,
        local=(*found.files, *found.paths) if found.whole else (),
        needs_code=f"{found.whole} installs a copy of it" if found.whole_copied else "",
        warnings=tuple(found.warnings),
    )


def _whole_project(project: Project) -> Install:
    """Return what `pyproject.toml` or `setup.py` say of a project whose dependencies are in
    requirements files.
    """
    document = project.toml(PYPROJECT)
    settings = table(document, PYPROJECT, "project")
    if settings:
        package = _is_package(project, document)
        return Install(
            (PYPROJECT,),
            project=_versioned(document, ("uv", "pip", "install", "--editable", "."))
            if package
            else (),
            python=_requires_python(project, document),
            scripts=_scripts(document) if package else (),
            name=_name(document),
        )
    return _setup(project) or Install(())


def _listed(project: Project, source: Declared, python: Constraint | None) -> Install:
    """Dependencies that stand in the Dockerfile itself, since the file that has them is not made
    for installers.
    """
    found = Requirements()
    for text in source.dependencies or ():
        found.requirement(
            project, text, f"{source.path}:{line_of(project.text(source.path), text)}"
        )
    command = ("uv", "pip", "install", *(source.dependencies or ()))
    return Install(
        (source.path,),
        tuple(found.paths),
        (command,) if source.dependencies else (),
        python=python,
        places=tuple(found.places),
        git=any(place.is_git for place in found.places),
    )


def _dependencies(project: Project, settings: dict[str, Any]) -> list[tuple[str, str]]:
    """`project.dependencies`, each with its place."""
    listed = strings(settings.get("dependencies", []), f"{PYPROJECT}: project.dependencies")
    text = project.text(PYPROJECT)
    return [
        (check(each, where), where)
        for each in listed
        for where in (f"{PYPROJECT}:{line_of(text, each)}",)
    ]


def _is_package(project: Project, document: dict[str, Any]) -> bool:
    """Whether the project itself can be installed, as uv decides it
    (https://docs.astral.sh/uv/concepts/projects/config/).
    """
    said = table(document, PYPROJECT, "tool", "uv").get("package")
    return bool(said) if said is not None else "build-system" in document or project.has("setup.py")


def _scripts(document: dict[str, Any]) -> tuple[str, ...]:
    return tuple(table(document, PYPROJECT, "project", "scripts"))


def _name(document: dict[str, Any]) -> str:
    return str(table(document, PYPROJECT, "project").get("name", ""))


def _requires_python(project: Project, document: dict[str, Any]) -> Constraint | None:
    said = table(document, PYPROJECT, "project").get("requires-python")
    if said is None:
        return None
    where = f"{PYPROJECT}:{line_of(project.text(PYPROJECT), 'requires-python')}"
    if not isinstance(said, str):
        raise UserError(f"{where}: requires-python is not text", 'write it like ">=3.10"')
    constraint(said, where)
    return constraint(said, f"requires-python in {PYPROJECT}")


def _poetry_python(project: Project, dependencies: dict[str, Any]) -> Constraint | None:
    said = dependencies.get("python")
    if not isinstance(said, str):
        return None
    poetry_constraint(said, f"{PYPROJECT}:{line_of(project.text(PYPROJECT), said)}")
    return poetry_constraint(said, f"python in {PYPROJECT}")


def _versioned(document: dict[str, Any], command: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command, told a version if the build backend would otherwise ask git for it."""
    wanted = table(document, PYPROJECT, "build-system").get("requires", [])
    names = {
        re.split(r"[\s=<>!~\[;]", each, maxsplit=1)[0].lower().replace("_", "-")
        for each in strings(wanted, PYPROJECT)
    }
    return ("env", _VERSION, *command) if names.intersection(_VERSIONED_BY_GIT) else command


def _uv_sources(
    project: Project, document: dict[str, Any], workspace: bool
) -> tuple[tuple[PackageOrigin, ...], tuple[str, ...]]:
    """Return the indexes and repositories in `[tool.uv]`, and the folders of this project that it
    names.
    """
    text = project.text(PYPROJECT)
    settings = table(document, PYPROJECT, "tool", "uv")
    indexes = settings.get("index", [])
    urls = (
        [index.get("url") for index in indexes if isinstance(index, dict)]
        if isinstance(indexes, list)
        else []
    )
    more = settings.get("extra-index-url")
    urls += [settings.get("index-url"), *(more if isinstance(more, list) else [])]
    local: list[str] = []
    for name, source in table(document, PYPROJECT, "tool", "uv", "sources").items():
        for each in source if isinstance(source, list) else [source]:
            if not isinstance(each, dict):
                continue
            where = f"{PYPROJECT}:{line_of(text, name)}"
            if each.get("workspace") and not workspace:
                raise UserError(
                    f"{where}: {name} is in the workspace that this project is a part of, and out of the source",
                    "build from the workspace's top folder, and give the entry point of this part",
                )
            urls.append(
                f"git+{each['git']}" if isinstance(each.get("git"), str) else each.get("url")
            )
            local += (
                [project.local(each["path"], where)] if isinstance(each.get("path"), str) else []
            )
    places = [
        PackageOrigin(url, f"{PYPROJECT}:{line_of(text, url.removeprefix('git+'))}")
        for url in urls
        if isinstance(url, str)
    ]
    return tuple(place.check() for place in places), tuple(dict.fromkeys(local))


def _locked_git(project: Project) -> tuple[str, ...]:
    """Return the repositories that `uv.lock` has packages from."""
    found = re.findall(r'source = \{ git = "([^"?#]+)', project.text("uv.lock"))
    return tuple(sorted({f"git+{url}" for url in found}))


def _poetry_places(
    project: Project, document: dict[str, Any], dependencies: dict[str, Any]
) -> tuple[tuple[PackageOrigin, ...], tuple[str, ...]]:
    """Return the indexes and repositories that Poetry is to use, and the folders and files of this
    project that it names.
    """
    text = project.text(PYPROJECT)
    sources = table(document, PYPROJECT, "tool", "poetry").get("source", [])
    urls = (
        [source.get("url") for source in sources if isinstance(source, dict)]
        if isinstance(sources, list)
        else []
    )
    paths: list[str] = []
    for name, wanted in dependencies.items():
        for each in wanted if isinstance(wanted, list) else [wanted]:
            if isinstance(each, dict):
                urls.append(
                    f"git+{each['git']}" if isinstance(each.get("git"), str) else each.get("url")
                )
                where = f"{PYPROJECT}:{line_of(text, name)}"
                paths += (
                    [project.local(each["path"], where)]
                    if isinstance(each.get("path"), str)
                    else []
                )
    if project.has("poetry.lock"):
        locked = re.findall(r'type = "git"\nurl = "([^"]+)"', project.text("poetry.lock"))
        urls += [f"git+{url}" for url in locked if f"git+{url}" not in urls]
    places = [
        PackageOrigin(url, f"{PYPROJECT}:{line_of(text, url.removeprefix('git+'))}")
        for url in urls
        if isinstance(url, str)
    ]
    return tuple(place.check() for place in places), tuple(dict.fromkeys(paths))


def _pip_lines(listed: list[Any], path: str) -> tuple[str, ...]:
    """Return the lines of a requirements file that `environment.yml` has below `pip:`."""
    lines = [each["pip"] for each in listed if isinstance(each, dict) and "pip" in each]
    return tuple(line for block in lines for line in strings(block, f"{path}: pip"))


def quoted(command: tuple[str, ...]) -> str:
    """Return the command for a shell."""
    return shlex.join(command)

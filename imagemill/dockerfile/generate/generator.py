"""The generator: what is found in a project and what is asked for, put together."""

import re
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from imagemill.dockerfile.generate import ACCELERATORS, Wishes, entrypoint, install, python, render
from imagemill.dockerfile.generate.indexes import PackageOrigin
from imagemill.dockerfile.generate.install import Install
from imagemill.dockerfile.generate.project import Project
from imagemill.errors import UserError
from imagemill.reference import ImageReference


def told(root: Path, wishes: Wishes) -> tuple[str, tuple[str, ...]]:
    """Return the Dockerfile, and what the project declares and the image is without; `UserError` as
    `generate`.
    """
    try:
        return _generated(Project(root), wishes)
    except RecursionError:
        raise UserError(
            "A file of the project is nested too deeply to be read",
            "add a Dockerfile, or simplify the file",
        ) from None


def _generated(project: Project, wishes: Wishes) -> tuple[str, tuple[str, ...]]:
    found = _wished(install.find(project), wishes)
    _check_known(project, found, wishes)
    entry = entrypoint.find(project, found, wishes.entrypoint)
    script = next((word for word in entry.command if project.has(word)), "")
    found = install.for_script(project, found, script)
    chosen = python.choose(project, wishes.python, found.python)
    if found.conda and found.conda.has_python and wishes.python is None:
        return render.render(_image(wishes, found, chosen), None, found, entry), found.warnings
    return render.render(_image(wishes, found, chosen), chosen, found, entry), found.warnings


def _wished(found: Install, wishes: Wishes) -> Install:
    """With what the request and the config add to what the project says."""
    given = [install.system_package(name, "the request") for name in wishes.system_packages]
    found = replace(found, system=tuple(dict.fromkeys((*found.system, *given))))
    if wishes.index is None or found.own_index or not (found.commands or found.project):
        return found
    if found.uv_project or "poetry.lock" in found.found:
        lock = found.found[-1]
        return replace(
            found,
            warnings=(
                *found.warnings,
                f"builder.package-index is not asked: {lock} says where packages come from",
            ),
        )
    place = PackageOrigin(wishes.index, "builder.package-index").check()
    return replace(found, places=(*found.places, place), index=wishes.index)


def _check_known(project: Project, found: Install, wishes: Wishes) -> None:
    if found.found or wishes.entrypoint or any(path.endswith(".py") for path in project.files):
        return
    raise UserError(
        "The source has no Dockerfile, and nothing to generate one from: neither "
        f"{', '.join(install.PROJECT_FILES)} nor a Python script",
        "add a Dockerfile or one of these, or say where in the source the project is",
    )


def _image(wishes: Wishes, found: Install, chosen: python.Python) -> render.GeneratedImage:
    if wishes.base and wishes.accelerator:
        raise UserError(
            "Both a base image and an accelerator are given",
            "an accelerator is a base image: give one",
        )
    given = wishes.base or (wishes.accelerator and _accelerator(wishes.accelerator))
    default = render.MICROMAMBA if found.conda else f"python:{chosen.version}-slim"
    base = given or default
    uv = wishes.uv if wishes.uv in ("pip", "base") else _checked(wishes.uv)
    known = given is None or wishes.accelerator in ACCELERATORS
    if known and given and uv == "pip":
        raise UserError(f"{given} has no pip to install uv with", "give an image that has uv")
    return render.GeneratedImage(
        _checked(base), given is None, uv, _wanted(chosen, found, known), wishes.cache_mounts
    )


def _accelerator(name: str) -> str:
    """Return the base image for it; `UserError` for a word that is neither known nor could be an
    image.
    """
    if name in ACCELERATORS or "/" in name or ":" in name:
        return ACCELERATORS.get(name, name)
    near = get_close_matches(name, ACCELERATORS, n=1)
    known = f"the accelerators are {', '.join(ACCELERATORS)}; or give a base image"
    raise UserError(
        f"There is no accelerator {name!r}", f"did you mean {near[0]}?" if near else known
    )


def _wanted(chosen: python.Python, found: Install, known: bool) -> str:
    """Return what to ask uv for: in an image that we know the chosen version, in others whatever of
    theirs will do.
    """
    if known or chosen.named:
        return chosen.version
    if found.python is None:
        return python.ANY
    return found.python.specifier or chosen.version


def _checked(image: str) -> str:
    if re.search(r"\s|\$", image):
        raise UserError(
            f"{image!r} is not an image reference", "a reference has neither spaces nor variables"
        )
    ImageReference.parse(image)
    return image

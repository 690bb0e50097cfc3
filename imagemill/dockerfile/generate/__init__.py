"""Generates a Dockerfile for a project that has none, from what projects have anyway: locks,
requirements, scripts.

The Dockerfile is a function of the files that the build can see and of the request, and of nothing
else: not of times, of the order in which a folder is listed, or of the machine. So the same project
has the same source hash everywhere.
"""

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from imagemill.config.model import Builder
from imagemill.context import Generated, Given
from imagemill.dockerfile.generate import entrypoint, install, python, render
from imagemill.dockerfile.generate.indexes import PackageOrigin
from imagemill.dockerfile.generate.install import Install
from imagemill.dockerfile.generate.project import IGNORE, Project
from imagemill.errors import UserError
from imagemill.messages import BuildRequest
from imagemill.reference import ImageReference

__all__ = ["ACCELERATORS", "UV", "Wishes", "chosen"]

UV = f"ghcr.io/astral-sh/uv:{render.UV_VERSION}"
"""Where uv is copied from, unless a request says otherwise."""

ACCELERATORS = {
    "cuda": "nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04",
    "cuda12.9": "nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04",
    "cuda12.8": "nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04",
    "cuda12.6": "nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04",
    "cuda12.4": "nvidia/cuda:12.4.1-cudnn-runtime-ubuntu22.04",
    "cuda11.8": "nvidia/cuda:11.8.0-cudnn8-runtime-ubuntu22.04",
}
"""What an accelerator is called → the base image for it; they have no Python, which uv brings."""


@dataclass(frozen=True)
class Wishes:
    """What a request says about the image, beside what the project says itself."""

    python: str | None = None
    """A version: `3.12` or `3.12.4`."""
    base: str | None = None
    """The base image. Where nothing asks for a certain Python, its own is used, with the packages
    that it brings.
    """
    accelerator: str | None = None
    """One of `ACCELERATORS`, or a base image that has what the accelerator needs."""
    entrypoint: tuple[str, ...] | None = None
    """The command, word by word."""
    cache_mounts: bool = True
    """Whether the builder has BuildKit's cache mounts; otherwise nothing is kept in caches."""
    system_packages: tuple[str, ...] = ()
    """Packages that apt installs."""
    index: str | None = None
    """The package index that is asked in place of PyPI, where the project names none."""
    uv: str = UV
    """An image that has uv, `pip` to install it by the base image's own pip, or `base` if that has
    it already.
    """

    @property
    def named(self) -> tuple[str, ...]:
        """See `Generator.named`."""
        asked = {
            "the Python version": self.python,
            "the base image": self.base,
            "the accelerator": self.accelerator,
            "the entrypoint": self.entrypoint,
            "the system packages": self.system_packages,
        }
        return tuple(name for name, value in asked.items() if value)

    def generated(self, root: Path) -> Generated:
        """See `Generator.generated`."""
        made, warnings = _told(root, self)
        return Generated(made.encode(), IGNORE, warnings)


def chosen(request: BuildRequest, builder: Builder) -> str | Given | Wishes:
    """The Dockerfile of a request: the path of one, or how it is to be generated if the source has
    none.
    """
    wishes = Wishes(
        request.python,
        request.base_image,
        request.accelerator,
        request.entrypoint,
        system_packages=request.system_packages,
        index=builder.package_index,
        cache_mounts=builder.cache_mounts is not False and builder.type != "kaniko",
        uv=builder.uv_image or UV,
    )
    if request.dockerfile is None and request.dockerfile_text is None:
        return wishes
    if request.dockerfile is not None and request.dockerfile_text is not None:
        raise UserError("Both the Dockerfile's path and its text are given", "give one of them")
    if wishes.named:
        raise UserError(
            f"Both a Dockerfile and {' and '.join(wishes.named)} are given: a Dockerfile knows nothing of them",
            "give the one or the other",
        )
    if request.dockerfile_text is not None:
        return Given(request.dockerfile_text)
    return request.dockerfile or wishes


def generate(root: Path, wishes: Wishes) -> str:
    """The Dockerfile for the project in the folder `root`.

    `UserError` if none can be generated, and says what was looked for; or if what the project or
    the request says cannot be read or contradicts itself, with file and line.
    """
    return _told(root, wishes)[0]


def _told(root: Path, wishes: Wishes) -> tuple[str, tuple[str, ...]]:
    """The Dockerfile, and what the project declares and the image is without."""
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
    """The base image for it; `UserError` for a word that is neither known nor could be an image."""
    if name in ACCELERATORS or "/" in name or ":" in name:
        return ACCELERATORS.get(name, name)
    near = get_close_matches(name, ACCELERATORS, n=1)
    known = f"the accelerators are {', '.join(ACCELERATORS)}; or give a base image"
    raise UserError(
        f"There is no accelerator {name!r}", f"did you mean {near[0]}?" if near else known
    )


def _wanted(chosen: python.Python, found: Install, known: bool) -> str:
    """What to ask uv for: in an image that we know the chosen version, in others whatever of theirs
    will do.
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

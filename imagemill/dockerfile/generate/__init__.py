"""Generates a Dockerfile for a project that has none, from what projects have anyway: locks,
requirements, scripts.

The Dockerfile is a function of the files that the build can see and of the request, and of nothing
else: not of times, of the order in which a folder is listed, or of the machine. So the same project
has the same source hash everywhere.

Here is what is asked of the generator, which every build says; the generator itself is imported
where there is a project to read.
"""

from dataclasses import dataclass
from pathlib import Path

from imagemill.config.model import Builder
from imagemill.context import Generated, Given
from imagemill.errors import UserError
from imagemill.messages import BuildRequest

__all__ = ["ACCELERATORS", "UV", "Wishes", "chosen"]

UV_VERSION = "0.13.9"

UV = f"ghcr.io/astral-sh/uv:{UV_VERSION}"
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

SHARED = "id=imagemill-shared-"
"""How the ids of cache mounts begin. A builder puts another word for `shared`, since what one build
leaves in a cache, those of the same id run.
"""


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
        from imagemill.dockerfile.generate.generator import told
        from imagemill.dockerfile.generate.project import IGNORE

        made, warnings = told(root, self)
        return Generated(made.encode(), IGNORE, warnings)


def chosen(request: BuildRequest, builder: Builder) -> str | Given | Wishes:
    """Return the Dockerfile of a request: the path of one, or how it is to be generated if the
    source has none.
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
    """Return the Dockerfile for the project in the folder `root`.

    `UserError` if none can be generated, and says what was looked for; or if what the project or
    the request says cannot be read or contradicts itself, with file and line.
    """
    from imagemill.dockerfile.generate.generator import told

    return told(root, wishes)[0]

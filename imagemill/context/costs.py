"""What a source holds that is seldom meant: it is part of the hash, and costs time in each build."""

from collections.abc import Mapping
from types import MappingProxyType

from imagemill.context.dockerfile import OTHER_NAMES
from imagemill.context.manifest import Manifest
from imagemill.text import amount

_ANYWHERE = (
    ".venv",
    "venv",
    "__pycache__",
    "node_modules",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".tox",
    ".nox",
    ".ipynb_checkpoints",
    ".DS_Store",
    ".env",
    ".git",
    ".hg",
    ".svn",
)
_AT_THE_TOP = ("wandb", "mlruns", "lightning_logs")
"""What trackers of experiments write: below other folders these may be packages."""

_DATA = ("data", "dataset", "datasets", "outputs", "checkpoints")
_LARGE = 100_000_000
"""Bytes from which a folder that is called like data is told of."""

_LINES: Mapping[bytes, str] = MappingProxyType(
    {name.encode(): f"**/{name}" for name in _ANYWHERE}
    | {name.encode(): name for name in (*_AT_THE_TOP, *_DATA)}
)
"""Name → the line of `.dockerignore` that leaves it out."""

_TOP = frozenset(name.encode() for name in (*_AT_THE_TOP, *_DATA))
_LARGE_ONLY = frozenset(name.encode() for name in _DATA)


def costs(manifest: Manifest) -> tuple[str, ...]:
    """Return the warnings that a source gives cause for: what its generated Dockerfile leaves out,
    and what counts in the hash and is seldom meant, how much of it there is, and what to write into
    `.dockerignore`.
    """
    # Most sources have none, and are many files.
    paths = b"/%b/" % b"/\n/".join(manifest.paths)
    if not any(b"/%b/" % name in paths for name in _LINES):
        return manifest.warnings
    files: dict[bytes, int] = {}
    sizes: dict[bytes, int] = {}
    packages = {entry.path for entry in manifest.entries if entry.path.endswith(b"/__init__.py")}
    for entry in manifest.entries:
        if entry.kind != "dir" and (name := _named(entry.path)):
            files[name] = files.get(name, 0) + 1
            sizes[name] = sizes.get(name, 0) + entry.size
    told = [
        name
        for name in sorted(files)
        if not (name in _LARGE_ONLY and sizes[name] < _LARGE)
        and not (name in _TOP and name + b"/__init__.py" in packages)
    ]
    if not told:
        return manifest.warnings
    what = ", ".join(
        f"{name.decode()} ({files[name]:,} {'file' if files[name] == 1 else 'files'},"
        f" {amount(sizes[name])})"
        for name in told
    )
    lines = " ".join(_LINES[name] for name in told)
    return (
        *manifest.warnings,
        f"The source has {what} in it: that is part of its hash, and goes to the builder each time;"
        f" to leave it out, write into .dockerignore, a line each: {lines}",
    )


def notes(manifest: Manifest) -> tuple[str, ...]:
    """Return what is not as in a `docker build` of the same folder, for whoever wonders."""
    left_out = (
        "The folder .git is no part of the source, since the Dockerfile does not read it;"
        " the line !.git in .dockerignore brings it along"
    )
    generated = (
        "The source has no Dockerfile: it is built by a generated one (`imagemill dockerfile SRC`"
        " shows it)"
    )
    by_another = f"The source has no Dockerfile: it is built by its {manifest.dockerfile.path}"
    other = manifest.dockerfile.path in OTHER_NAMES
    return (
        (left_out,) * manifest.without_git
        + (generated,) * manifest.dockerfile.generated
        + (by_another,) * other
    )


def _named(path: bytes) -> bytes | None:
    """Return the first name on the path that is told of."""
    first, *others = path.split(b"/")
    if first in _LINES:
        return first
    return next((name for name in others if name in _LINES and name not in _TOP), None)

"""What we pack is what `docker build` would have let the build see: put to a real engine.

The cases are those of `tests/unit/context/dockerignore_cases.json`: every second, since each takes a build
of its own. Some came out differently before Docker 23.0, which tracks what matches in each folder
above a file; with an older CLI they are left to the unit test.
"""

import io
import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trees
from imagemill import context
from imagemill.ports import Quiet

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "unit/context/dockerignore_cases.json").read_text()
)

Docker = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def docker(engine: str, docker_cli: str) -> Docker:
    """Runs a docker command; its output and its errors are kept, its status is not looked at."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "DOCKER_HOST": engine, "DOCKER_BUILDKIT": "1"}
        return subprocess.run(
            [docker_cli, *arguments], env=environment, capture_output=True, check=False
        )

    return run


def built(docker: Docker, dockerfile: Path, folder: Path) -> bytes | None:
    """The files of the image, which are the whole context, as a tar; `None` if BuildKit refuses the
    ignore file.
    """
    result = docker(
        "build", "--no-cache", "--file", dockerfile, "--output", "type=tar,dest=-", folder
    )
    if result.returncode == 0:
        return result.stdout
    assert b"pattern" in result.stderr, result.stderr.decode()
    return None


def names_in(tar: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8") as archive:
        return {name.removeprefix("context/") for name in archive.getnames()} - {"context"}


def entries_in(tar: bytes) -> dict[str, tuple[bytes, bool, str, bytes]]:
    """Type, whether it is executable, target and content by name."""
    entries = {}
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            executable = member.isreg() and bool(member.mode & stat.S_IXUSR)
            entries[member.name] = (
                member.type,
                executable,
                member.linkname,
                file.read() if file else b"",
            )
    return entries


def unpacked(source: Path, folder: Path, dockerfile: str | None = None) -> Path:
    """The source, packed and unpacked again, as builders have it."""
    packed = io.BytesIO()
    context.pack(source, dockerfile, packed, Quiet())
    packed.seek(0)
    context.unpack(packed, folder, Quiet())
    return folder


def test_docker_sees_what_the_recorded_cases_say(docker: Docker, tmp_path: Path) -> None:
    """And so what `context.pack` packs, by `tests/unit/context/test_dockerignore.py`."""
    version = docker("version", "--format", "{{.Client.Version}}").stdout.decode()
    old = int(version.split(".")[0]) < 23
    everything = {path.rstrip("/") for path in RECORDED["tree"]}
    folder = trees.make(tmp_path, {os.fsencode(path): b"" for path in RECORDED["tree"]})
    (folder / "Dockerfile").write_text(trees.DOCKERFILE)
    wrong = []
    for case in [case for case in RECORDED["cases"] if not (old and "docker" in case)][::2]:
        (folder / ".dockerignore").write_text(case["dockerignore"], errors="surrogateescape")
        tar = built(docker, folder / "Dockerfile", folder)
        ignored = None if tar is None else everything - names_in(tar)
        expected = {path.rstrip("/") for path in case["ignored"]} if "ignored" in case else None
        if ignored != expected:
            wrong.append(
                f"{case['dockerignore']!r}: docker ignores {ignored}, we ignore {expected}"
            )
    assert wrong == []


ENTRIES: dict[str | bytes, str | bytes | None] = {
    "a/b": "content",
    "a/deep/er/c": "",
    "run*": "#!/bin/sh\n",
    "empty/": None,
    "empty/too/": None,
    "link@": "a/b",
    "a/up@": "../run",
    "folder-link@": "a",
    "absolute@": "/bin/sh",
    "dangling@": "nothing",
    b"\xff": "not UTF-8",
    "n" * 150: "long name",
    "ignored/x": "",
    "ignored/y": "",
    "é": "",
}


@pytest.mark.parametrize(
    ("dockerfile", "ignore"),
    [
        ("Dockerfile", {}),
        ("Dockerfile", {".dockerignore": "ignored\nempty/too\n!ignored/y"}),
        ("Dockerfile", {".dockerignore": "Dockerfile\n.dockerignore\nignored"}),
        ("dockerfile", {".dockerignore": "*file*\n**/c"}),
        ("docker/app", {"docker/app.dockerignore": "ignored/x\ndocker", ".dockerignore": "*"}),
        ("docker/app", {"docker/app.dockerignore": "# nothing", ".dockerignore": "*"}),
        ("docker/app", {".dockerignore": "a\n!a/deep\ndocker"}),
        (
            "docker/link",
            {
                "docker/link.dockerignore@": "ignore",
                "docker/ignore": "a",
                "docker/app": trees.DOCKERFILE,
            },
        ),
    ],
)
def test_build_of_the_packed_context_is_the_build_of_the_source(
    docker: Docker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dockerfile: str,
    ignore: dict[str, str],
) -> None:
    recipe = (
        {f"{dockerfile}@": "app"} if dockerfile.endswith("link") else {dockerfile: trees.DOCKERFILE}
    )
    source = trees.make(tmp_path / "source", {**ENTRIES, **recipe, **ignore})
    monkeypatch.chdir(source)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    asked = None if dockerfile == "dockerfile" else dockerfile
    folder = unpacked(source, tmp_path / "out", asked)
    ours = built(docker, folder / context.DOCKERFILE, folder / context.CONTEXT)
    theirs = built(docker, source / (asked or "Dockerfile"), source)
    assert ours is not None
    assert theirs is not None
    assert entries_in(ours) == entries_in(theirs)


def test_files_of_an_image_are_the_same_wherever_it_is_built(
    docker: Docker, tmp_path: Path
) -> None:
    """Their times too. Folders are left out: before Docker 23.0 they have the time of the build."""
    source = trees.make(tmp_path / "source", {**ENTRIES, "Dockerfile": trees.DOCKERFILE})
    copy = shutil.copytree(source, tmp_path / "copy", symlinks=True)
    headers: list[list[object]] = []
    for top in (source, copy):
        os.utime(top / "run", (len(headers), len(headers)))
        folder = unpacked(top, tmp_path / f"out-of-{top.name}")
        tar = built(docker, folder / context.DOCKERFILE, folder / context.CONTEXT)
        assert tar is not None
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            headers.append([member.get_info() for member in archive if not member.isdir()])
    assert headers[0] == headers[1]

"""A source that is packed as one is, once unpacked elsewhere, the same source."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import trees
from imagemill import context
from imagemill.dockerfile.generate import Wishes
from imagemill.ports import Quiet
from imagemill.sources import archive

Shape = dict[Any, Any]
PLAIN: Shape = {"Dockerfile": "FROM scratch\n", "a.py": "1", "empty": None}

SHAPES: dict[str, tuple[Shape, context.Choice]] = {
    "plain": (PLAIN, None),
    "ignored": ({**PLAIN, ".dockerignore": "*\n!a.py\n"}, None),
    "elsewhere": (
        {"a.py": "1", "build/x.Dockerfile": "FROM scratch\n", ".dockerignore": "build\n"},
        "build/x.Dockerfile",
    ),
    "own ignore file": (
        {**PLAIN, ".dockerignore": "a.py\n", "Dockerfile.dockerignore": "Dockerfile*\n"},
        None,
    ),
    "lower case": ({"dockerfile": "FROM scratch\n", "a.py": "1"}, None),
    "lower case, ignored": (
        {"dockerfile": "FROM scratch\n", "a.py": "1", ".dockerignore": "dockerfile\n"},
        None,
    ),
    "exception below an ignored folder": (
        {**PLAIN, "x/y/z": "1", "x/w": "", ".dockerignore": "x\n!x/y\n"},
        None,
    ),
    "generated": ({"train.py": "", "x/__pycache__/a.pyc": "", ".env": ""}, Wishes()),
    "generated, with an ignore file": (
        {"train.py": "", "b.py": "", ".dockerignore": "b.py\n.docker*\n"},
        Wishes(),
    ),
    "names that are not text": ({**PLAIN, b"caf\xe9": "1", b"\xff/x": ""}, None),
}


def moved(source: Path, dockerfile: context.Choice, tmp_path: Path) -> Path:
    packed = BytesIO()
    assert context.bundle(source, dockerfile, packed, Quiet()) == context.manifest(
        source, dockerfile, Quiet()
    )
    (tmp_path / "packed").write_bytes(packed.getvalue())
    (tmp_path / "there").mkdir()
    archive.unpack(tmp_path / "packed", tmp_path / "there", Quiet())
    return tmp_path / "there"


@pytest.mark.parametrize("shape", SHAPES)
def test_it_has_the_same_manifest_elsewhere(shape: str, tmp_path: Path) -> None:
    files, dockerfile = SHAPES[shape]
    source = trees.make(tmp_path / "source", files)
    there = moved(source, dockerfile, tmp_path)
    assert bytes(context.manifest(there, dockerfile, Quiet())) == bytes(
        context.manifest(source, dockerfile, Quiet())
    )


@pytest.mark.parametrize(
    "change",
    [lambda path: path.chmod(0o755), lambda path: (path.unlink(), path.symlink_to("Dockerfile"))],
)
def test_what_is_executable_or_a_link_stays_so(
    change: Callable[[Path], object], tmp_path: Path
) -> None:
    source = trees.make(tmp_path / "source", PLAIN)
    change(source / "a.py")
    there = moved(source, None, tmp_path)
    assert bytes(context.manifest(there, None, Quiet())) == bytes(
        context.manifest(source, None, Quiet())
    )


def test_a_dockerfile_that_is_a_link_to_a_hidden_file_is_found_elsewhere(tmp_path: Path) -> None:
    source = trees.make(
        tmp_path / "source", {"build/x": "FROM scratch\n", "a.py": "", ".dockerignore": "build\n"}
    )
    (source / "Dockerfile").symlink_to("build/x")
    there = moved(source, None, tmp_path)
    assert bytes(context.manifest(there, None, Quiet())) == bytes(
        context.manifest(source, None, Quiet())
    )


def test_the_same_source_is_packed_the_same(tmp_path: Path) -> None:
    packed: list[bytes] = []
    for name in ("one", "two"):
        source, out = trees.make(tmp_path / name, PLAIN), BytesIO()
        os.utime(source / "a.py", (len(packed), len(packed)))
        context.bundle(source, None, out, Quiet())
        packed.append(out.getvalue())
    assert packed[0] == packed[1]

"""Which file of a source is its Dockerfile."""

from pathlib import Path

import pytest

import trees
from imagemill import context
from imagemill.errors import UserError
from imagemill.ports import Quiet


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["Dockerfile", "Dockerfile.wandb", "Containerfile"], "Dockerfile"),
        (["Dockerfile.wandb", "Containerfile"], "Dockerfile.wandb"),
        (["Containerfile", "requirements.txt"], "Containerfile"),
    ],
)
def test_what_other_tools_take_is_taken_where_there_is_no_dockerfile(
    tmp_path: Path, files: list[str], taken: str
) -> None:
    source = trees.make(tmp_path, {name: f"FROM scratch\n# {name}\n" for name in files})
    manifest = context.manifest(source, None, Quiet())
    assert manifest.dockerfile.path == taken
    assert f"# {taken}\n".encode() in manifest.dockerfile.content
    noted = any(taken in note for note in context.notes(manifest))
    assert noted == (taken != "Dockerfile")


def test_another_dockerfile_is_named_and_not_guessed(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"Dockerfile.gpu": "FROM scratch\n"})
    with pytest.raises(UserError, match=r"has Dockerfile\.gpu"):
        context.manifest(source, None, Quiet())


def test_dockerfile_in_utf16_goes_to_the_builder_in_utf8(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "FROM scratch\r\n".encode("utf-16")})
    assert context.manifest(source, None, Quiet()).dockerfile.content == b"FROM scratch\r\n"
    (source / "Dockerfile").write_bytes("FROM scratch\n".encode("utf-16-le"))
    with pytest.raises(UserError, match="Dockerfile:1: there is a NUL"):
        context.manifest(source, None, Quiet())

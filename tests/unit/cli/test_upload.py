"""Which sources are brought to a service elsewhere."""

from pathlib import Path
from typing import Any, cast

import pytest

from imagemill.cli.sources import Saying
from imagemill.cli.upload import uploaded
from imagemill.messages import BuildRequest


class AskedError(Exception):
    """The workers were asked where a source is to be put."""


class Workers:
    """What is asked of a client."""

    def plan_upload(self, request: BuildRequest) -> None:
        raise AskedError


def brought(source: str) -> bool:
    """Whether a source is to be brought to the workers."""
    request = BuildRequest(source=source)
    try:
        assert uploaded(cast(Any, Workers()), request, lambda _: None) is request
    except AskedError:
        return True
    return False


@pytest.mark.parametrize(
    "source",
    [
        "git+https://host.example/a@main",
        "https://host.example/a.tar.gz",
        "s3://bucket/a.zip",
        "docker-image://alpine:3",
        "git@host.example:a/b.git",
        "/nowhere/at/all",
        "file:///nowhere/at/all",
    ],
)
def test_what_is_elsewhere_stays_there(source: str) -> None:
    assert not brought(source)


def test_what_is_here_is_brought(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "file").touch()
    assert brought(str(folder))
    assert brought(str(folder / "file"))
    assert brought(f"file://{tmp_path}/a%20b")


def test_bytes_on_their_way_are_said_every_few_seconds() -> None:
    said: list[str] = []
    seconds = iter([0.0, 1.0, 5.0, 5.0, 9.0, 10.0, 10.0])
    saying = Saying(said.append, lambda: next(seconds))
    for number in range(4):
        saying.amount(f"{number} MB packed")
    assert said == ["1 MB packed", "3 MB packed"]

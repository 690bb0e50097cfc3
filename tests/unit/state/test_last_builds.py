"""What was built last of a source is known to the next command."""

from dataclasses import replace
from pathlib import Path

import pytest

from imagemill.errors import UserError
from imagemill.messages import BuildReport
from imagemill.state.grafts import FolderShelf
from imagemill.state.last_builds import MOST_TIMES, EarlierTime, LastBuild, LastBuilds
from imagemill.why.record import VERSION, DockerfileInput, InputRecord

RECORD = InputRecord(DockerfileInput("Dockerfile", "d" * 16), keys=("1" * 16,))
BUILT = BuildReport(id="1", status="succeeded", built=True, seconds=2.5)


def test_the_last_build_is_known_with_the_times_of_those_before(tmp_path: Path) -> None:
    builds = LastBuilds(FolderShelf(tmp_path / "builds"))
    assert builds.find("/src") is None
    builds.note("/src", "r/a", BUILT, RECORD.dump())
    builds.note("/src", "r/b", BUILT.model_copy(update={"built": False}), RECORD.dump())
    newest = replace(RECORD, target="t")
    for _ in range(MOST_TIMES - 1):
        builds.note("/src", "r/c", BUILT.model_copy(update={"grafted": True}), newest.dump())
    times = (*[EarlierTime("code", 2.5)] * (MOST_TIMES - 1), EarlierTime("builder", 2.5))
    assert builds.find("/src") == LastBuild("r/c", times, newest)


def test_what_a_newer_version_has_kept_or_nobody_can_keep_fails_no_build(tmp_path: Path) -> None:
    builds = LastBuilds(FolderShelf(tmp_path / "builds"))
    builds.note("/src", "r/a", BUILT, bytes([VERSION + 1]))
    with pytest.raises(UserError, match="this Imagemill reads"):
        builds.find("/src")
    builds.note("/src", "r/a", BUILT, RECORD.dump())
    assert builds.find("/src") is not None
    (tmp_path / "file").write_text("")
    LastBuilds(FolderShelf(tmp_path / "other")).note("/src", "r/a", BUILT, RECORD.dump())
    LastBuilds(FolderShelf(tmp_path / "file/builds")).note("/src", "r/a", BUILT, RECORD.dump())


@pytest.mark.parametrize("left", [b"", b"\0" * 80, b'["r/a", [1]]\n', b"[1]\n"])
def test_what_has_not_come_to_the_disk_is_not_there_and_is_written_anew(
    tmp_path: Path, left: bytes
) -> None:
    builds = LastBuilds(FolderShelf(tmp_path / "builds"))
    builds.note("/src", "r/a", BUILT, RECORD.dump())
    [file] = (tmp_path / "builds").iterdir()
    file.write_bytes(left)
    assert builds.find("/src") is None
    builds.note("/src", "r/a", BUILT, RECORD.dump())
    assert builds.find("/src") is not None

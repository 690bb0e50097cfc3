"""Zip files whose directories list more than a worker should keep in memory."""

import io
import zipfile

import pytest

from imagemill.sources import zip_directory
from imagemill.sources.zip_directory import oversteps


def packed(members: int, comment: bytes = b"", before: bytes = b"") -> io.BytesIO:
    out = io.BytesIO()
    out.write(before)
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(members):
            info = zipfile.ZipInfo(f"folder/{number}")
            info.comment = comment
            archive.writestr(info, b"")
        archive.comment = b"of the whole"
    return out


@pytest.mark.parametrize("members", [0, 1, 20])
@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n"])
def test_members_are_counted_exactly(members: int, before: bytes) -> None:
    file = packed(members, b"comment", before)
    assert not oversteps(file, members)
    assert members == 0 or oversteps(file, members - 1)


def test_large_files_have_a_directory_of_another_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 5)
    file = packed(20)
    assert b"PK\6\6" in file.getvalue()
    assert not oversteps(file, 20)
    assert oversteps(file, 19)


def test_directory_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_directory, "MOST_BYTES", 100)
    assert oversteps(packed(3, b"a long comment, so that it is"), 1000)


def test_what_has_no_directory_is_no_zip_file() -> None:
    with pytest.raises(zipfile.BadZipFile, match="no directory"):
        oversteps(io.BytesIO(b"hello" * 100), 1)


def test_count_in_the_end_of_the_file_is_not_believed() -> None:
    data = bytearray(packed(20).getvalue())
    end = data.rindex(b"PK\5\6")
    data[end + 8 : end + 12] = b"\1\0\1\0"
    assert oversteps(io.BytesIO(bytes(data)), 19)

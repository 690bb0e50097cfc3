"""Counts what a zip file's directory lists, before `zipfile` makes an object of each entry.

A file of 150 MB can list three million: 1.5 GB of them. The format: APPNOTE.TXT, sections 4.3.12 to
4.3.16.
"""

import struct
import zipfile
from typing import IO

MOST_BYTES = 256 << 20
"""Bytes of a directory that are read at most: names of 200 letters for a million files."""

_HEADER = struct.Struct("<4s24x3H")  # the lengths of name, extra field and comment
_HEADER_SIZE = 46
_SIGNATURE = b"PK\1\2"
_ZIP64_END = 56 + 20  # of the two records between directory and end, where there are these


def oversteps(file: IO[bytes], most: int) -> bool:
    """Return whether the directory lists more than `most` members, or is larger than `MOST_BYTES`.

    `BadZipFile` if the file has no directory. The file's position changes.
    """
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if not end:
        raise zipfile.BadZipFile("it has no directory")
    size, location = end[5], end[9]
    if size > MOST_BYTES:
        return True
    start = location - size - (_ZIP64_END if end[0] == b"PK\6\6" else 0)
    if start < 0:
        raise zipfile.BadZipFile("its directory is cut off")
    file.seek(start)
    directory = file.read(size)
    at = count = 0
    while at + _HEADER_SIZE <= len(directory):
        signature, *lengths = _HEADER.unpack_from(directory, at)
        if signature != _SIGNATURE:  # `zipfile` says what is wrong with it
            return False
        at += _HEADER_SIZE + sum(lengths)
        count += 1
        if count > most:
            return True
    return False

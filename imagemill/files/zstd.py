"""Reads what Zstandard has packed, as Python itself does from 3.14 on."""

import re
import sys
from typing import BinaryIO, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")
"""A frame, or one that is to be skipped, which pzstd begins with (RFC 8878, sections 3.1.1 and
3.1.2).
"""

DamagedError = zstd.ZstdError

_WINDOW = 27
"""What a frame may make us keep in memory is 2 to this power: 128 MiB, which is zstd's own limit.
What is made with `zstd --long=28` or more asks for more."""


def unpacked(file: BinaryIO) -> BinaryIO:
    """Return what is packed in a file, which is read as it is read; `DamagedError` where it cannot be."""
    options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW}
    return cast(BinaryIO, zstd.open(file, "rb", options=options))

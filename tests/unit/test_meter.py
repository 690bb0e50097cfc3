"""Bytes are told once a second, with the rate."""

import io
from collections.abc import Iterator

from builds import Watched
from imagemill.meter import Meter


def test_what_was_done_is_told_once_a_second_with_its_rate() -> None:
    times: Iterator[float] = iter([0.0, 0.5, 1.0, 1.9, 3.0])
    watched = Watched()
    meter = Meter("copied", watched, lambda: next(times))
    for _ in range(4):
        meter.add(3_000_000)
    assert watched.amounts == ["6.0 MB copied, 6.0 MB/s", "12 MB copied, 4.0 MB/s"]


def test_what_is_read_to_be_sent_counts() -> None:
    times: Iterator[float] = iter([0.0, 1.0, 2.0])
    watched = Watched()
    file = Meter("pushed", watched, lambda: next(times)).reading(io.BytesIO(b"12345"))
    file.seek(1)
    assert file.read(3) + file.read(3) == b"2345"
    assert watched.amounts == ["3 bytes pushed, 3 bytes/s", "4 bytes pushed, 2 bytes/s"]

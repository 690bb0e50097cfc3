"""Digests made in another thread: as they would be here, and in order."""

import hashlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagemill.context import digests
from imagemill.context.digests import Digests

MIB = 1 << 20


def made(contents: list[bytes]) -> list[str]:
    with Digests() as some:
        for content in contents:
            some.add(content)
        return list(some.sha256s())


def expected(contents: list[bytes]) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]


@pytest.mark.parametrize(
    "contents",
    [
        [],
        [b""],
        [str(number).encode() for number in range(10_000)],
        [bytes([number]) * MIB for number in range(40)],
        [bytes([number]) * (number % 7 * MIB) for number in range(30)],
    ],
    ids=["nothing", "one", "many", "large", "mixed"],
)
def test_digests_are_those_of_the_contents_in_order(contents: list[bytes]) -> None:
    assert made(contents) == expected(contents)


def test_large_content_comes_in_chunks_between_others_of_any_size() -> None:
    whole = [b"small", bytes(3 * MIB), b"", b"x" * (5 * MIB), b"last"]
    with Digests() as some:
        for content in whole:
            if len(content) < MIB:
                some.add(content)
                continue
            with some.large() as update:
                for start in range(0, len(content), MIB):
                    update(content[start : start + MIB])
        assert list(some.sha256s()) == expected(whole)


def test_large_content_that_cannot_be_read_to_its_end_has_no_digest() -> None:
    def fail(some: Digests) -> None:
        with some.large() as update:
            update(b"first")
            raise KeyError

    with Digests() as some:
        with pytest.raises(KeyError):
            fail(some)
        assert list(some.sha256s()) == []


@settings(deadline=None)
@given(st.lists(st.binary(max_size=5), max_size=30))
def test_size_of_the_batches_does_not_matter(contents: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "_BATCH_SIZE", 4)
        patch.setattr(digests, "_BATCH_LENGTH", 3)
        assert made(contents) == expected(contents)


def test_thread_ends_with_the_block_also_after_an_error() -> None:
    def fail() -> None:
        with Digests() as some:
            some.add(bytes(10 * MIB))
            raise KeyError

    before = threading.active_count()
    with pytest.raises(KeyError):
        fail()
    assert threading.active_count() == before

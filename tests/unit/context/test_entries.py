"""Entries in columns are what they are one by one."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagemill.context import Entry
from imagemill.context.entries import CUT, Entries

DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
TEXTS = st.binary(min_size=1, max_size=6).filter(lambda text: b"\0" not in text)
ENTRIES = st.lists(
    st.one_of(
        st.builds(
            lambda kind, path, size, sha256: Entry(kind, path, size, sha256),
            st.sampled_from(("file", "exec")),
            TEXTS,
            st.integers(0, 1 << 62),
            DIGESTS,
        ),
        st.builds(lambda path, target: Entry("link", path, target=target), TEXTS, TEXTS),
        st.builds(lambda path: Entry("dir", path), TEXTS),
    ),
    unique_by=lambda entry: entry.path,
).map(tuple)

TREE = Entries.of(
    (
        Entry("dir", b"a"),
        Entry("dir", b"a/b"),
        Entry("file", b"a/b/c", 1, "12" * 32),
        Entry("link", b"a/l", target=b"b"),
        Entry("file", b"a.py", 2, "34" * 32),
        Entry("dir", b"ab"),
        Entry("exec", b"ab/x", 3, "56" * 32),
    )
)


@settings(max_examples=40)
@given(ENTRIES)
def test_columns_hold_the_entries(entries: tuple[Entry, ...]) -> None:
    columns = Entries.of(entries)
    assert tuple(columns) == entries
    assert columns == entries
    assert [columns[number] for number in range(len(columns))] == list(entries)
    assert all(columns.find(entry.path) == entry for entry in entries)
    assert columns[1:3] == entries[1:3]


@settings(max_examples=40)
@given(ENTRIES)
def test_lines_say_what_an_entry_is(entries: tuple[Entry, ...]) -> None:
    def text(value: bytes) -> str:
        return json.dumps(value.decode(errors="surrogateescape"))

    for entry, line in zip(entries, Entries.of(entries).lines(), strict=True):
        what = text(entry.target) if entry.kind == "link" else entry.sha256
        assert line == " ".join(filter(None, (entry.kind, text(entry.path), what)))


@settings(max_examples=40)
@given(ENTRIES)
def test_what_is_packed_is_unpacked(entries: tuple[Entry, ...]) -> None:
    columns = Entries.of(entries)
    assert Entries.unpack(columns.kinds, columns.paths, *columns.pack()) == columns


@settings(max_examples=40)
@given(ENTRIES, ENTRIES)
def test_two_are_equal_if_their_entries_are(
    one: tuple[Entry, ...], other: tuple[Entry, ...]
) -> None:
    assert (Entries.of(one) == Entries.of(other)) == (one == other)


@settings(max_examples=40)
@given(ENTRIES)
def test_of_a_digest_that_is_cut_the_beginning_stays(entries: tuple[Entry, ...]) -> None:
    cut = tuple(entry._replace(sha256=entry.sha256[: 2 * CUT]) for entry in entries)
    assert Entries.of(entries).cut() == cut


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"", [b"a", b"a/b", b"a/b/c", b"a/l", b"a.py", b"ab", b"ab/x"]),
        (b"a", [b"a/b", b"a/b/c", b"a/l"]),
        (b"a/b", [b"a/b/c"]),
        (b"a.py", []),
        (b"ab", [b"ab/x"]),
    ],
)
def test_what_is_below_a_folder(path: bytes, found: list[bytes]) -> None:
    assert TREE.below(path).paths == found
    if path:
        assert TREE.within(path).paths == [path, *found]


@pytest.mark.parametrize(
    ("kinds", "sizes", "digests", "links"),
    [
        (b"dfl?", [1], bytes(CUT), [b"b"]),
        (b"dfl", [], bytes(CUT), [b"b"]),
        (b"dfl", [1, 2], bytes(2 * CUT), [b"b"]),
        (b"dfl", [1], bytes(CUT), []),
        (b"dfll", [1], bytes(CUT), [b"b", b"c"]),
    ],
)
def test_columns_that_do_not_belong_together_are_refused(
    kinds: bytes, sizes: list[int], digests: bytes, links: list[bytes]
) -> None:
    with pytest.raises(ValueError, match=r"belong together|argument"):
        Entries.unpack(kinds, [b"a", b"b", b"c"], sizes, digests, links)

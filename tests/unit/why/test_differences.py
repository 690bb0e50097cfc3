"""What differs between two records, and how it is told."""

import json
from collections.abc import Mapping
from dataclasses import replace
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagemill.cli.render_differences import Side, tell
from imagemill.context import Entry
from imagemill.context.entries import Kind
from imagemill.dockerfile.base_images import FromLine
from imagemill.why.differences import BaseImage, Change, Differences, find
from imagemill.why.record import DockerfileInput, InputRecord

RECIPE = DockerfileInput("Dockerfile", "d" * 16)
PLAIN = InputRecord(RECIPE)


def entry(text: str, content: str = "") -> Entry:
    """`path/` is a folder, `path@` a link to the content, `path*` an executable file."""
    path = text.rstrip("/@*").encode(errors="surrogateescape")
    if text.endswith("/"):
        return Entry("dir", path)
    if text.endswith("@"):
        return Entry("link", path, target=content.encode())
    kind: Kind = "exec" if text.endswith("*") else "file"
    return Entry(kind, path, len(content), content.encode().hex().zfill(16)[-16:])


def record(files: Mapping[str, str], **inputs: Any) -> InputRecord:
    entries = sorted(
        (entry(path, content) for path, content in files.items()), key=lambda e: e.path.split(b"/")
    )
    return replace(PLAIN, entries=tuple(entries), **inputs)


def between(before: Mapping[str, str], after: Mapping[str, str]) -> Differences:
    return find(record(before), record(after))


# --- Any two records ---

NAMES = st.text("ab", min_size=1, max_size=2)
FILES = st.dictionaries(
    st.tuples(
        st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.sampled_from(["", "/", "@", "*"])
    ),
    st.sampled_from(["", "1", "2", "3"]),
    max_size=12,
).map(lambda files: {path: (path + sign, content) for (path, sign), content in files.items()})
VALUES = st.dictionaries(NAMES, NAMES, max_size=3)
RECORDS = st.builds(
    lambda files, stages, **inputs: record(
        dict(files.values()), stages=tuple(FromLine(*stage) for stage in stages), **inputs
    ),
    FILES,
    st.lists(st.tuples(NAMES | st.just(""), NAMES), min_size=1, max_size=3),
    recipe=st.builds(DockerfileInput, NAMES, NAMES, st.booleans()),
    target=st.none() | NAMES,
    platform=st.none() | NAMES,
    build_args=VALUES,
    labels=VALUES,
    secrets=st.sets(NAMES).map(sorted).map(tuple),
    format=st.integers(1, 2),
)


@given(RECORDS)
def test_nothing_differs_from_itself(one: InputRecord) -> None:
    assert not find(one, one)


@given(RECORDS, RECORDS)
def test_differences_make_the_one_listing_the_other(one: InputRecord, other: InputRecord) -> None:
    assert find(one, other).apply(one.entries) == other.entries


@given(RECORDS, RECORDS)
def test_whatever_differs_is_found(one: InputRecord, other: InputRecord) -> None:
    # The names of stages alone change the Dockerfile, whose digest is an input of its own.
    assert bool(find(one, other)) == (
        replace(one, stages=other.stages) != other or bool(find(one, other).base_images)
    )


@given(RECORDS, RECORDS)
def test_no_path_is_told_twice(one: InputRecord, other: InputRecord) -> None:
    found = find(one, other)
    gone = [e.path for e in found.removed] + [
        pair.before.path for pair in (*found.renamed, *found.changed)
    ]
    come = [e.path for e in found.added] + [
        pair.after.path for pair in (*found.renamed, *found.changed)
    ]
    assert len(set(gone)) == len(gone)
    assert len(set(come)) == len(come)


# --- Paths ---


@pytest.mark.parametrize(
    ("before", "after", "aspects"),
    [
        ({"a": "1"}, {"a": "2"}, ("content",)),
        ({"a": "1"}, {"a*": "1"}, ("executable",)),
        ({"a*": "1"}, {"a": "2"}, ("content", "executable")),
        ({"a@": "1"}, {"a@": "2"}, ("target",)),
        ({"a@": "1"}, {"a": "1"}, ("kind",)),
        ({"a/": ""}, {"a*": "1"}, ("kind",)),
    ],
)
def test_it_is_said_what_of_an_entry_has_changed(
    before: dict[str, str], after: dict[str, str], aspects: tuple[str, ...]
) -> None:
    (pair,) = between(before, after).changed
    assert pair.aspects == aspects


def test_a_file_that_comes_back_under_another_name_is_renamed() -> None:
    found = between({"a": "1", "b": "2", "empty": ""}, {"c*": "1", "b": "2", "blank": ""})
    assert [(pair.before.path, pair.after.path) for pair in found.renamed] == [(b"a", b"c")]
    assert found.renamed[0].aspects == ("executable",)
    assert [e.path for e in found.added] == [b"blank"]
    assert [e.path for e in found.removed] == [b"empty"]


def test_of_copies_those_with_the_same_name_are_the_renamed() -> None:
    found = between({"x/a": "1", "x/b": "1", "x/c": "1"}, {"y/b": "1", "y/d": "1"})
    assert [(pair.before.path, pair.after.path) for pair in found.renamed] == [
        (b"x/a", b"y/d"),
        (b"x/b", b"y/b"),
    ]
    assert [e.path for e in found.removed] == [b"x/c"]


def test_a_file_that_is_still_there_was_not_renamed() -> None:
    found = between({"a": "1"}, {"a": "1", "copy": "1"})
    assert not found.renamed
    assert [e.path for e in found.added] == [b"copy"]


# --- Base images ---


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([("", "a:1")], [("", "a:2")], [BaseImage("", "a:1", "a:2")]),
        ([("x", "a"), ("", "b")], [("x", "a"), ("", "c")], [BaseImage("1", "b", "c")]),
        (
            [("x", "a"), ("y", "b")],
            [("new", "n"), ("x", "a"), ("Y", "c")],
            [BaseImage("y", "b", "c"), BaseImage("new", None, "n")],
        ),
        ([("x", "a"), ("y", "b")], [("x", "a")], [BaseImage("y", "b", None)]),
        ([("", "a")], [], []),
        ([("", "a@sha256:1")], [("", "a@sha256:2")], [BaseImage("", "a@sha256:1", "a@sha256:2")]),
        ([("", "a@sha256:1")], [("", "a")], []),
        ([("", "a@sha256:1")], [("", "b")], [BaseImage("", "a@sha256:1", "b")]),
    ],
)
def test_base_images_are_compared_stage_by_stage(
    before: list[tuple[str, str]], after: list[tuple[str, str]], expected: list[BaseImage]
) -> None:
    one, other = (
        replace(PLAIN, stages=tuple(FromLine(*stage) for stage in stages))
        for stages in (before, after)
    )
    assert list(find(one, other).base_images) == expected


# --- What is told ---


def told(capsys: pytest.CaptureFixture[str], one: InputRecord, other: InputRecord) -> str:
    tell(
        (Side("a", "1" * 64), Side("b", "2" * 64)),
        find(one, other),
        as_json=False,
        everything=False,
    )
    return capsys.readouterr().out


def test_everything_that_can_differ_is_told_what_matters_most_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = record(
        {
            "Dockerfile": "1",
            ".dockerignore": "1",
            "src/": "",
            "src/m.py": "m",
            "src/n.py": "n",
            "old": "o",
            "gone/": "",
        },
        format=1,
        stages=(FromLine("build", "gcc:13"), FromLine("", "python:3.11-slim")),
        build_args={"A": "1", "GONE": "1"},
        labels={"team": "vision", "gone": "x"},
        secrets=("npm",),
    )
    other = record(
        {
            "Dockerfile": "2",
            ".dockerignore": "22",
            "lib/": "",
            "lib/m.py": "m",
            "lib/n.py": "n",
            "old@": "lib",
            "run*": "#!",
        },
        format=2,
        recipe=DockerfileInput("Dockerfile", "e" * 16),
        stages=(FromLine("build", "gcc:14"), FromLine("", "python:3.12-slim")),
        target="build",
        platform="linux/arm64",
        build_args={"A": "2", "NEW": "1"},
        labels={"team": "speech", "new": "y"},
        secrets=("pip",),
    )
    answer, lists = told(capsys, one, other).split("\n", 1)
    assert answer == (
        "Different: the version of Imagemill, 2 base images, the Dockerfile, the target, the platform, "
        "3 build arguments, 2 build secrets, 3 labels, the ignore file, 1 path changed, 2 paths renamed, 1 path added, "
        "1 path removed"
    )
    assert lists == dedent(
        """
        imagemill
          ~ 1 → 2  how it makes source hashes

        base image
          ~ gcc:13 → gcc:14  stage build
          ~ python:3.11-slim → python:3.12-slim  stage 1

        Dockerfile
          ~ Dockerfile  content

        target
          ~ the last stage → build

        platform
          ~ the builder's own → linux/arm64

        build arguments
          ~ A  another value
          - GONE
          + NEW

        build secrets
          - npm
          + pip

        labels
          - gone  x
          + new  y
          ~ team  vision → speech

        ignore file
          ~ .dockerignore  content, 1 byte → 2 bytes

        changed
          ~ old  file → link

        renamed
          > src/ → lib/  2 files

        added
          + run  2 bytes, executable

        removed
          - gone/
        """
    )


def test_a_dockerfile_that_was_generated_and_is_now_the_sources_own_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = record({"train.py": "1"}, recipe=DockerfileInput("Dockerfile", "a" * 16, generated=True))
    other = record(
        {"train.py": "1", "Dockerfile": "FROM x"}, recipe=DockerfileInput("Dockerfile", "b" * 16)
    )
    assert told(capsys, one, other) == dedent(
        """\
        Different: the Dockerfile, 1 path added

        Dockerfile
          ~ Dockerfile (generated) → Dockerfile  content

        added
          + Dockerfile  6 bytes
        """
    )


def test_files_that_moved_without_company_are_told_by_their_whole_paths(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = record({"a/x.py": "1", "a/y.py": "22", "top": "333"})
    other = record({"a/z.py": "1", "b/y.py*": "22", "new/": "", "new/top": "333"})
    assert told(capsys, one, other) == dedent(
        """\
        Different: 3 paths renamed

        renamed
          > a/x.py → a/z.py
          > a/y.py → b/y.py  executable
          > top → new/top
        """
    )


def test_what_others_have_written_is_told_in_one_harmless_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = record({"a\n+ b": "", "\x1b[31mred": "", "\udcff": ""}, labels={"l\n": "\x1b]0;x\x07"})
    out = told(capsys, one, record({}))
    assert [line for line in out.splitlines() if line.startswith("  ")] == [
        '  - "l\\n"  "\\u001b]0;x\\u0007"',
        '  - "\\u001b[31mred"  0 bytes',
        '  - "a\\n+ b"  0 bytes',
        "  - \\xff  0 bytes",
    ]


def test_hashes_that_differ_for_no_known_reason_are_not_called_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told(capsys, PLAIN, PLAIN).startswith(
        "Different: the source hashes, though nothing in the records does"
    )


def test_json_has_everything_but_values_of_build_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = record({"a": "1", "d/": ""}, build_args={"A": "digest-1"}, target="x")
    other = record(
        {"a*": "22", "l@": "a", "\udcff": "3"}, build_args={"A": "digest-2"}, labels={"k": "v"}
    )
    tell((Side("a", "1"), Side("b", "2")), find(one, other), as_json=True, everything=False)
    out = capsys.readouterr().out
    assert "digest-" not in out
    data = json.loads(out)
    assert data["same"] is False
    assert data["before"] == {"given": "a", "source_hash": "1"}
    assert data["build_args"] == {"added": [], "removed": [], "changed": ["A"]}
    assert data["labels"] == {"k": {"before": None, "after": "v"}}
    assert data["target"] == {"before": "x", "after": None}
    assert data["platform"] is None
    assert data["changed"] == [
        {
            "before": {"path": "a", "kind": "file", "size": 1},
            "after": {"path": "a", "kind": "exec", "size": 2},
            "aspects": ["content", "executable"],
        }
    ]
    assert data["added"] == [
        {"path": "l", "kind": "link", "target": "a"},
        {"path": "\udcff", "kind": "file", "size": 1},
    ]
    assert data["removed"] == [{"path": "d", "kind": "dir"}]


def test_a_change_of_one_input_is_no_other() -> None:
    assert find(PLAIN, replace(PLAIN, target="x")) == Differences(target=Change(None, "x"))

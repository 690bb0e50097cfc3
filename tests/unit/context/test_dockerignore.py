"""`.dockerignore`, read as BuildKit reads it.

`dockerignore_cases.json` says, for one tree and many ignore files, what a build does not see. It
was recorded with the Go packages that BuildKit uses: github.com/moby/patternmatcher v0.5.0, and the
walk of fsutil's filter.go around it. `tests/integration/test_dockerignore_parity.py` puts the same
cases to a real engine.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trees
from imagemill import context
from imagemill.context.dockerignore import DockerIgnore
from imagemill.errors import UserError
from imagemill.files.tree import MAX_DEPTH
from imagemill.ports import Quiet

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "dockerignore_cases.json").read_text()
)
TEXT = [case for case in RECORDED["cases"] if "\udcff" not in case["dockerignore"]]
"""BuildKit also takes bytes that are not UTF-8, each for any such byte: we refuse them."""
VALID = [case for case in TEXT if "ignored" in case]
INVALID = [case for case in RECORDED["cases"] if "invalid" in case]


def encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def seen(source: Path, dockerfile: str | None = None) -> set[bytes]:
    """The paths that a build of the source can see."""
    return {entry.path for entry in context.manifest(source, dockerfile, Quiet()).entries}


@pytest.fixture(scope="module")
def recorded_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a Dockerfile that reads `.git`, which a source is without otherwise."""
    files = {encoded(path): b"" for path in RECORDED["tree"]}
    return trees.make(
        tmp_path_factory.mktemp("tree"), {**files, b"Dockerfile": b"FROM scratch\nCOPY .git /\n"}
    )


@pytest.mark.parametrize("case", VALID, ids=lambda case: ascii(case["dockerignore"]))
def test_build_sees_what_buildkit_would_show_it(recorded_tree: Path, case: dict[str, Any]) -> None:
    (recorded_tree / ".dockerignore").write_bytes(encoded(case["dockerignore"]))
    ignored = {encoded(path).rstrip(b"/") for path in RECORDED["tree"]} - seen(recorded_tree)
    assert ignored == {encoded(path).rstrip(b"/") for path in case["ignored"]}


@pytest.mark.parametrize("case", INVALID, ids=lambda case: ascii(case["dockerignore"]))
def test_pattern_that_buildkit_refuses_is_the_users_error(
    recorded_tree: Path, case: dict[str, Any]
) -> None:
    (recorded_tree / ".dockerignore").write_text(case["dockerignore"])
    with pytest.raises(UserError, match=r"^\.dockerignore:[12]: .* is not a"):
        context.manifest(recorded_tree, None, Quiet())


def test_error_names_file_line_and_pattern() -> None:
    with pytest.raises(UserError) as raised:
        DockerIgnore.parse(b"# comment\n\ndocs\nlog[0-9\n", "app.dockerignore")
    assert raised.value.message == "app.dockerignore:4: 'log[0-9' is not a valid pattern"
    assert "close every '['" in raised.value.hint
    with pytest.raises(UserError) as raised:
        DockerIgnore.parse(b"docs\n!\n", ".dockerignore")
    assert raised.value.message == ".dockerignore:2: a '!' alone is not a pattern"


def test_ignore_file_of_the_dockerfile_wins(tmp_path: Path) -> None:
    source = trees.make(
        tmp_path,
        {
            "docker/app.Dockerfile": trees.DOCKERFILE,
            "docker/app.Dockerfile.dockerignore": "a\n",
            "Dockerfile": trees.DOCKERFILE,
            ".dockerignore": "b\n",
            "a": "",
            "b": "",
        },
    )
    assert seen(source) & {b"a", b"b"} == {b"a"}
    assert seen(source, "docker/app.Dockerfile") & {b"a", b"b"} == {b"b"}


def test_empty_ignore_file_of_the_dockerfile_ignores_nothing(tmp_path: Path) -> None:
    source = trees.make(
        tmp_path, {"Dockerfile": "", "Dockerfile.dockerignore": "", ".dockerignore": "b\n", "b": ""}
    )
    assert b"b" in seen(source)


def test_folder_of_the_name_is_no_ignore_file(tmp_path: Path) -> None:
    assert seen(trees.make(tmp_path, {"Dockerfile": "", ".dockerignore/": None})) == {
        b"Dockerfile",
        b".dockerignore",
    }


def too_deep(source: Path, patterns: str) -> Path:
    """A source with a folder that cannot be entered without an error."""
    return trees.make(
        source, {"Dockerfile": "", ".dockerignore": patterns, "deep/" + "a/" * MAX_DEPTH: None}
    )


@pytest.mark.parametrize(
    "patterns", ["deep", "deep\n!other/a", "deep\n!deeper/**/a", "deep\n!d/e*p/a\n!deep2/*"]
)
def test_ignored_folder_is_not_entered_where_no_exception_can_match(
    tmp_path: Path, patterns: str
) -> None:
    assert seen(too_deep(tmp_path, patterns)) == {b"Dockerfile", b".dockerignore"}


@pytest.mark.parametrize(
    "patterns", ["deep\n!deep/a", "deep\n!**/b", "deep\n!de?p/a", "deep\n!dee[p]\n!other"]
)
def test_ignored_folder_is_entered_where_an_exception_could_match(
    tmp_path: Path, patterns: str
) -> None:
    with pytest.raises(UserError, match="nested deeper"):
        seen(too_deep(tmp_path, patterns))


def test_hostile_pattern_is_matched_in_linear_time(tmp_path: Path) -> None:
    """A backtracking matcher would take longer than the universe has."""
    path = "a/" * 40
    trees.make(
        tmp_path,
        {"Dockerfile": "", ".dockerignore": "**/a*" * 60 + "b\n" + "*a" * 100 + "b\n", path: None},
    )
    assert path.rstrip("/").encode() in seen(tmp_path)


def test_patterns_that_are_too_many_for_one_expression_are_matched_all_the_same(
    tmp_path: Path,
) -> None:
    patterns = "\n".join(f"*{number}*{'[a-z]?' * 20}*.x" for number in range(1_000))
    ignored = f"-999-{'ab' * 20}-.x"
    source = trees.make(
        tmp_path, {"Dockerfile": "", ".dockerignore": patterns, ignored: "", "kept": ""}
    )
    assert seen(source) == {b"Dockerfile", b".dockerignore", b"kept"}


def test_pattern_that_would_take_too_much_memory_is_refused(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "", ".dockerignore": "*" + "a{1000}" * 100})
    with pytest.raises(UserError, match="is not a valid pattern"):
        seen(source)


NAMES = st.sampled_from(["a", "b", "ab", ".a", "a.b", "[a]", "\ufffd", "é", "a|b", "a b", "!a"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(
    st.one_of(NAMES, st.sampled_from(["*", "**", "?", "a*", "[a-b]", "*b", "\\a", "[^a]"])),
    min_size=1,
    max_size=4,
).map("/".join)


class EntersEverything(DockerIgnore):
    """What BuildKit does where an exception has a wildcard."""

    def may_keep_below(self, folder: bytes) -> bool:
        return True


def kept(ignore: DockerIgnore, paths: set[str]) -> set[bytes]:
    """The paths, of files, that a walk would find."""
    found = set()
    for path in paths:
        names = encoded(path).split(b"/")
        inherited = ignore.at_top
        for depth in range(1, len(names) + 1):
            folder = b"/".join(names[:depth])
            ignored, inherited = ignore.match(folder, inherited)
            if ignored and depth < len(names) and not ignore.may_keep_below(folder):
                break
        else:
            found |= set() if ignored else {encoded(path)}
    return found


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["", "", "!"]), PATTERNS), max_size=4),
    st.sets(PATHS, max_size=8),
)
def test_folders_that_are_not_entered_hold_nothing_that_is_kept(
    patterns: list[tuple[str, str]], paths: set[str]
) -> None:
    content = encoded(
        "\n".join(f"{mark}{pattern}" for mark, pattern in patterns) + "\n!**/with-wildcard"
    )
    assert kept(DockerIgnore.parse(content, "x"), paths) == kept(
        EntersEverything.parse(content, "x"), paths
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_patterns_hold_in_every_encoding_that_says_what_it_is(
    tmp_path: Path, encoding: str
) -> None:
    mark = "\ufeff" if encoding.endswith("-be") else ""
    content = f"{mark}.env\r\ndonnées/\r\n".encode(encoding)
    source = trees.make(
        tmp_path,
        {"Dockerfile": "", ".env": "", "données/a": "", "a": "", ".dockerignore": content},
    )
    assert seen(source) == {b"Dockerfile", b".dockerignore", b"a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (".env\ndata\n".encode("utf-16-le"), ".dockerignore:1: there is a NUL character in it"),
        ("a\ndonnées\n".encode("latin-1"), ".dockerignore:2: this is not UTF-8"),
        (b"\xff\xfe.\x00e", ".dockerignore:1: this is not UTF-16"),
    ],
)
def test_ignore_file_that_is_no_text_never_ignores_nothing(
    tmp_path: Path, content: bytes, message: str
) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "", ".env": "", ".dockerignore": content})
    with pytest.raises(UserError) as raised:
        seen(source)
    assert raised.value.message.startswith(message)
    assert raised.value.hint == "save the file as UTF-8"


def test_comment_may_be_in_any_encoding() -> None:
    content = "# données\n.env\n".encode("latin-1")
    assert DockerIgnore.parse(content, ".dockerignore").texts == (".env",)

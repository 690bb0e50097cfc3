"""The source hash: what changes it and what does not, and that no two inputs share an encoding."""

import os
import string
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import trees
from imagemill import context
from imagemill.context import Entry, Manifest, source_hash
from imagemill.context.manifest import Dockerfile
from imagemill.ports import Quiet

Entries = dict[bytes, bytes]

NAMES = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"a-b", b"\xff", b"\xc3\xa9", b'"', b"\n", b" ", b"\\", b"dir", b".x"]
    ),
    st.binary(min_size=1, max_size=4).filter(
        lambda name: (
            not set(name) & set(b"\0/")
            and name not in (b".", b"..", b".dockerignore")
            and name[-1] not in b"@*"
        )
    ),
)
FILES = st.dictionaries(NAMES, st.binary(max_size=8), max_size=5)
INPUTS = st.fixed_dictionaries(
    {
        "target": st.none() | st.text(max_size=3),
        "build_args": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
        "platform": st.none() | st.text(max_size=3),
        "labels": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
        "secrets": st.frozensets(st.text(max_size=3), max_size=3),
    }
)


def hashed(source: Path, **inputs: Any) -> str:
    return source_hash(context.manifest(source, None, Quiet()), **inputs)


def hash_of(files: Mapping[bytes, bytes]) -> str:
    with TemporaryDirectory() as folder:
        return hashed(
            trees.make(
                Path(folder), {"Dockerfile": "", **{b"top/" + name: files[name] for name in files}}
            )
        )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return trees.make(
        tmp_path / "source",
        {
            "Dockerfile": trees.DOCKERFILE,
            "a/b": "content",
            "run*": "content",
            "link@": "a/b",
            "empty/": None,
        },
    )


def test_hash_is_the_same_everywhere(source: Path) -> None:
    """Golden: a change here is a change of the format, and gives every image another tag."""
    assert hashed(source) == "2ee5d87096d8858b14e6440c909a0cac07a49129da82520e92f99be5d5c01d90"
    assert (
        hashed(
            source,
            target="final",
            build_args={"B": "2", "A": "1"},
            platform="linux/amd64",
            labels={"team": "é"},
            secrets=("token", "netrc"),
        )
        == "00d8a0536542d96bb18a9fd60cc0174b19cbc3df1cd663b29189a0a3a07b3139"
    )


def test_hash_is_64_hex_digits(source: Path) -> None:
    assert len(hashed(source)) == 64
    assert set(hashed(source)) <= set(string.hexdigits.lower())


def test_times_owners_and_modes_do_not_count(source: Path) -> None:
    before = hashed(source)
    for path in source.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700 | 0o4000 * path.is_file())
        os.utime(path, (1, 1), follow_symlinks=False)
        if os.geteuid() == 0:
            os.chown(path, 12345, 54321, follow_symlinks=False)
    assert hashed(source) == before


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_umask_does_not_count(tmp_path: Path, source: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        copy = trees.make(
            tmp_path / "copy",
            {
                "empty/": None,
                "link@": "a/b",
                "run": "content",
                "a/b": "content",
                "Dockerfile": trees.DOCKERFILE,
            },
        )
    finally:
        os.umask(before)
    (copy / "run").chmod((copy / "run").stat().st_mode | 0o100)
    assert hashed(copy) == hashed(source)


def test_place_and_order_of_creation_do_not_count(tmp_path: Path) -> None:
    names = [f"{number:03}" for number in range(200)]
    forwards = trees.make(tmp_path / "forwards", {"Dockerfile": "", **dict.fromkeys(names, "x")})
    backwards = trees.make(
        tmp_path / "elsewhere/backwards", {**dict.fromkeys(reversed(names), "x"), "Dockerfile": ""}
    )
    assert hashed(forwards) == hashed(backwards)


def test_what_is_ignored_does_not_count(tmp_path: Path) -> None:
    source = trees.make(
        tmp_path, {"Dockerfile": "", ".dockerignore": "logs\n.dockerignore\n", "a": ""}
    )
    before = hashed(source)
    trees.make(source, {"logs/today": "lines"})
    (source / ".dockerignore").write_text("# another way to say it\nlogs/**\nlogs\n.docker*")
    assert hashed(source) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "a/b").write_text("contend"),
        lambda source: (source / "a/b").rename(source / "a/c"),
        lambda source: (source / "a/b").rename(source / "b"),
        lambda source: (source / "a/b").chmod(0o744),
        lambda source: (source / "run").chmod(0o644),
        lambda source: (source / "a/c").touch(),
        lambda source: (source / "empty").rmdir(),
        lambda source: (source / "empty").rename(source / "full"),
        lambda source: [(source / "empty").rmdir(), (source / "empty").touch()],
        lambda source: [(source / "link").unlink(), (source / "link").symlink_to("a/c")],
        lambda source: [(source / "link").unlink(), (source / "link").write_text("a/b")],
        lambda source: (source / "Dockerfile").write_text("FROM scratch\n"),
    ],
)
def test_each_change_of_the_source_counts(source: Path, change: Any) -> None:
    before = hashed(source)
    change(source)
    assert hashed(source) != before


@pytest.mark.parametrize(
    "inputs",
    [
        {"target": "a"},
        {"target": ""},
        {"platform": "a"},
        {"build_args": {"a": "b"}},
        {"build_args": {"a": ""}},
        {"labels": {"a": "b"}},
        {"secrets": ("a",)},
    ],
    ids=str,
)
def test_each_other_input_counts(source: Path, inputs: dict[str, Any]) -> None:
    assert hashed(source, **inputs) != hashed(source)


def test_path_of_the_dockerfile_counts(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"a.Dockerfile": "", "b.Dockerfile": ""})
    first, second = (
        source_hash(context.manifest(source, f"{name}.Dockerfile", Quiet())) for name in "ab"
    )
    assert first != second


@settings(deadline=None)
@given(FILES, FILES)
def test_two_sources_share_a_hash_only_if_they_are_the_same(
    first: Entries, second: Entries
) -> None:
    assert (hash_of(first) == hash_of(second)) == (first == second)


@settings(deadline=None)
@given(INPUTS, INPUTS)
def test_two_sets_of_inputs_share_a_hash_only_if_they_are_the_same(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    manifest = Manifest(Dockerfile("Dockerfile", "0" * 64), ())
    assert (source_hash(manifest, **first) == source_hash(manifest, **second)) == (first == second)


SHA256 = st.sampled_from(["0" * 64, "1" * 64])
ENTRIES = st.one_of(
    st.builds(Entry, st.sampled_from(["file", "exec"]), NAMES, st.just(0), SHA256, st.just(b"")),
    st.builds(Entry, st.just("link"), NAMES, st.just(0), st.just(""), NAMES),
    st.builds(Entry, st.just("dir"), NAMES, st.just(0), st.just(""), st.just(b"")),
)
MANIFESTS = st.builds(
    Manifest,
    st.builds(
        Dockerfile,
        NAMES.map(lambda name: name.decode(errors="surrogateescape")),
        SHA256,
        st.just(b""),  # stands for itself by its digest
        st.just(False),
    ),
    st.lists(ENTRIES, max_size=3).map(tuple),
)


@settings(deadline=None)
@given(MANIFESTS, MANIFESTS)
def test_two_manifests_share_an_encoding_only_if_they_are_the_same(
    first: Manifest, second: Manifest
) -> None:
    assert (bytes(first) == bytes(second)) == (first == second)


@settings(deadline=None)
@given(MANIFESTS, st.data())
def test_manifest_with_one_entry_changed_has_another_encoding(
    manifest: Manifest, data: st.DataObject
) -> None:
    assume(manifest.entries)
    index = data.draw(st.integers(0, len(manifest.entries) - 1))
    other = data.draw(ENTRIES)
    assume(other != manifest.entries[index])
    changed = (*manifest.entries[:index], other, *manifest.entries[index + 1 :])
    assert bytes(Manifest(manifest.dockerfile, changed)) != bytes(manifest)


@settings(deadline=None)
@given(MANIFESTS)
def test_manifest_is_one_line_of_ascii_for_each_entry(manifest: Manifest) -> None:
    assert bytes(manifest).isascii()
    assert len(bytes(manifest).splitlines()) == len(manifest.entries) + 1


def test_options_of_the_builder_that_change_the_image_count(source: Path) -> None:
    one, two = (hashed(source, options={"--compression": value}) for value in "12")
    assert len({hashed(source), one, two}) == 3
    assert hashed(source, options={}) == hashed(source)

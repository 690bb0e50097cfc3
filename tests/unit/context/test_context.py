"""The manifest of a build context: what it covers, and what is said about a source that is not fit
for a build.
"""

import io
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hardship
import trees
from imagemill import context
from imagemill.errors import PermissionDenied, UserError
from imagemill.files.tree import MAX_DEPTH
from imagemill.ports import Quiet


def lines(source: Path, dockerfile: str | None = None) -> list[str]:
    return list(context.manifest(source, dockerfile, Quiet()).lines())


def refused(source: Path) -> UserError:
    with pytest.raises(UserError) as raised:
        context.manifest(source, None, Quiet())
    return raised.value


@pytest.fixture
def public_folder() -> Iterator[Path]:
    with hardship.public_folder() as folder:
        yield folder


def test_manifest_has_a_line_for_each_entry(tmp_path: Path) -> None:
    source = trees.make(
        tmp_path,
        {
            "Dockerfile": "FROM scratch\n",
            "a/b": "content",
            "a-b": "",
            "a/é": "",
            b'a/\xff\n"': "",
            "run*": "#!/bin/sh\n",
            "empty/": None,
            "link@": "a/b",
            "absolute@": "/etc/passwd",
            "dangling@": "nothing",
        },
    )
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    dockerfile = "bb57c7da220a8753d7bdabac0d3afdb6efa742e4c736c5bc93ab40dfd5e23b9b"
    assert lines(source) == [
        f'dockerfile "Dockerfile" {dockerfile}',
        f'file "Dockerfile" {dockerfile}',
        'dir "a"',
        'file "a/b" ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73',
        f'file "a/\\u00e9" {empty}',
        f'file "a/\\udcff\\n\\"" {empty}',
        f'file "a-b" {empty}',
        'link "absolute" "/etc/passwd"',
        'link "dangling" "nothing"',
        'dir "empty"',
        'link "link" "a/b"',
        'exec "run" a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf',
    ]


def test_manifest_counts_files_and_bytes(tmp_path: Path) -> None:
    manifest = context.manifest(
        trees.make(tmp_path, {"Dockerfile": "12345", "a/b*": "123", "c@": "a/b", "d/": None}),
        None,
        Quiet(),
    )
    assert (manifest.files, manifest.size) == (2, 8)
    assert bytes(manifest).decode().splitlines() == list(manifest.lines())


def test_dockerfile_that_is_ignored_is_covered_all_the_same(tmp_path: Path) -> None:
    source = trees.make(
        tmp_path, {"Dockerfile": "FROM scratch\n", ".dockerignore": "*\n!a", "a": ""}
    )
    assert [line.split()[0:2] for line in lines(source)] == [
        ["dockerfile", '"Dockerfile"'],
        ["file", '"a"'],
    ]
    before = lines(source)
    (source / "Dockerfile").write_text("FROM scratch AS other\n")
    assert lines(source) != before


def test_socket_is_an_empty_file_as_it_is_to_buildkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.make(tmp_path, {"Dockerfile": ""})
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    (tmp_path / "socket").chmod(0o644)
    (tmp_path / "empty").touch(0o644)
    assert [line.replace("socket", "empty") for line in lines(tmp_path)][-1] == lines(tmp_path)[-2]


def test_hard_linked_files_are_files(tmp_path: Path) -> None:
    trees.make(tmp_path, {"Dockerfile": "", "a": "content"})
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert lines(tmp_path)[-1] == lines(tmp_path)[-2].replace('"a"', '"b"')


@pytest.mark.parametrize("target", ["..", "../outside", "a/../../outside", "/etc/passwd"])
def test_link_that_leads_out_of_the_source_goes_along_as_it_is(tmp_path: Path, target: str) -> None:
    """As docker has it; what it leads to is never read."""
    source = trees.make(tmp_path / "source", {"Dockerfile": "", "a/": None, "link@": target})
    before = lines(source)
    assert before[-1] == f'link "link" "{target}"'
    (tmp_path / "outside").write_text("changed")
    assert lines(source) == before
    packed = io.BytesIO()
    context.pack(source, None, packed, Quiet())
    packed.seek(0)
    context.unpack(packed, tmp_path / "unpacked", Quiet())
    assert (tmp_path / "unpacked" / context.CONTEXT / "link").readlink() == Path(target)


GIT = {".git/HEAD": "ref: refs/heads/main\n", ".git/index": "1", "part/.git": "gitdir: ../.git\n"}
CHECKOUT = {"a": "1", "part/b": "2", **GIT}


@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM scratch\nCOPY . /app\n",
        "FROM scratch\nCOPY .gitignore .gitattributes* /app/\n",
        "FROM scratch\nADD https://example.com/repository.git /app\n",
        "FROM scratch\nCOPY --from=other .git /app\n",
        "FROM scratch\nCOPY . .\nRUN rm -rf .git && pip install git+https://example.com/a.git@v1\n",
        "FROM scratch\nRUN git clone https://example.com/a && cd a && git describe\n",
    ],
)
def test_git_is_no_part_of_a_checkout(tmp_path: Path, dockerfile: str) -> None:
    source = trees.make(tmp_path, {"Dockerfile": dockerfile, **CHECKOUT})
    with_it = lines(source)
    for path in GIT:
        (source / path).unlink()
    (source / ".git").rmdir()
    assert lines(source) == with_it


@pytest.mark.parametrize(
    "files",
    [
        {"Dockerfile": "FROM scratch\nCOPY .git /git\n"},
        {"Dockerfile": 'FROM scratch\nCOPY ["./.git/HEAD", "/x"]\n'},
        {"Dockerfile": "FROM scratch\nADD .gi* /x/\n"},
        {"Dockerfile": "FROM scratch\nRUN --mount=type=bind,source=.git,target=/g cat /g/HEAD\n"},
        {"Dockerfile": "FROM scratch\nCOPY . .\nRUN test -d /app/.git\n"},
        {"Dockerfile": "FROM scratch\nCOPY . .\nRUN git -C /app rev-parse HEAD > /revision\n"},
        {
            "Dockerfile": "FROM scratch\nCOPY . .\nRUN pip install .\n",
            "pyproject.toml": '[build-system]\nrequires = ["setuptools-scm"]\n',
        },
        {"Dockerfile": "FROM scratch\nCOPY . .\n", ".dockerignore": "!.git\n"},
    ],
)
def test_git_counts_where_the_build_reads_it(tmp_path: Path, files: dict[str, str]) -> None:
    source = trees.make(tmp_path, {**files, **CHECKOUT})
    before = lines(source)
    assert any('".git/index"' in line for line in before)
    (source / ".git" / "index").write_text("2")
    assert lines(source) != before


@pytest.mark.parametrize("target", ["b", "../c", "../a/../c", "../../x", "/"])
def test_link_that_stays_in_the_source_or_names_a_path_in_the_image_is_kept(
    tmp_path: Path, target: str
) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "", "x/a/link@": target})
    assert lines(source)[-1] == f'link "x/a/link" "{target}"'


def test_link_is_not_followed(tmp_path: Path) -> None:
    outside = trees.make(tmp_path / "outside", {"secret": "secret"})
    source = trees.make(
        tmp_path / "source", {"Dockerfile": "", "link@": str(outside), "file@": f"{outside}/secret"}
    )
    before = lines(source)
    (outside / "secret").write_text("another secret")
    (outside / "new").touch()
    assert lines(source) == before
    assert {line.split()[0] for line in before} == {"dockerfile", "file", "link"}


@pytest.mark.parametrize(("kind", "name"), [(stat.S_IFIFO, "a FIFO"), (stat.S_IFCHR, "a device")])
def test_special_file_is_refused(tmp_path: Path, kind: int, name: str) -> None:
    trees.make(tmp_path, {"Dockerfile": "", "a/": None})
    if kind == stat.S_IFCHR and os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(tmp_path / "a/special", kind | 0o644, os.makedev(1, 3))
    error = refused(tmp_path)
    assert error.message == f"The source has {name} in it: a/special"
    assert error.hint == "list it in .dockerignore, or remove it"
    (tmp_path / ".dockerignore").write_text("a/special")
    assert lines(tmp_path)


@pytest.mark.parametrize("path", ["private", "folder/private", "folder"])
def test_what_the_worker_may_not_read_is_told(public_folder: Path, path: str) -> None:
    trees.make(public_folder, {"Dockerfile": "", "private": "", "folder/private": ""})
    (public_folder / path).chmod(0)
    with hardship.as_nobody(), pytest.raises(PermissionDenied) as raised:
        lines(public_folder)
    assert raised.value.message == f"The worker may not read {path} of the source"
    assert ".dockerignore" in raised.value.hint


def test_ignored_folder_that_the_worker_may_not_read_does_not_matter(public_folder: Path) -> None:
    trees.make(
        public_folder, {"Dockerfile": "", ".dockerignore": "folder\n!**/x", "folder/private": ""}
    )
    (public_folder / "folder").chmod(0)
    with hardship.as_nobody():
        assert len(lines(public_folder)) == 3


def test_folders_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "", "a/" * MAX_DEPTH: None})
    error = refused(source)
    assert error.message.startswith(
        f"The source has folders nested deeper than {MAX_DEPTH}, below a/a/a/"
    )
    assert ".dockerignore" in error.hint
    (tmp_path / ".dockerignore").write_text("a/" * MAX_DEPTH)
    assert len(lines(source)) == MAX_DEPTH + 2


def test_source_that_is_not_there_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "nothing", tmp_path / "file"):
        assert refused(path).message == f"There is no folder {path}"


def test_source_may_be_reached_through_a_link(tmp_path: Path) -> None:
    source = trees.make(tmp_path / "source", {"Dockerfile": "", "a": ""})
    (tmp_path / "link").symlink_to(source)
    assert lines(tmp_path / "link") == lines(source)


@pytest.mark.parametrize(
    "name", ["Dockerfile", "docker/../Dockerfile", "./Dockerfile", "docker/app", "docker/link"]
)
def test_dockerfile_may_be_anywhere_in_the_source(tmp_path: Path, name: str) -> None:
    source = trees.make(
        tmp_path,
        {"Dockerfile": "1", "docker/app": "1", "docker/link@": "../docker/app", "other": "1"},
    )
    dockerfile, entry = lines(source, name)[0].split(), lines(source, "other")[-1].split()
    assert dockerfile[0] == "dockerfile"
    assert dockerfile[2] == entry[2]


def test_dockerfile_in_lower_case_will_do_as_it_does_for_buildkit(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"dockerfile": "1", "docker/dockerfile": "2"})
    assert lines(source)[0].split()[2] == lines(source)[-1].split()[2]
    assert lines(source, "docker/Dockerfile")[0].split()[2] == lines(source)[2].split()[2]


@pytest.mark.parametrize(
    ("wanted", "candidates"),
    [
        (None, ["DockerFile", "docker/Dockerfile", "docker/Dockerfile.gpu", "build/Containerfile"]),
        (
            "docker/Dockerfil",
            ["docker/Dockerfile", "docker/Dockerfile.gpu", "DockerFile", "build/Containerfile"],
        ),
        ("recipes/aap.txt", ["recipes/app.txt"]),
    ],
)
def test_missing_dockerfile_is_told_with_those_that_may_be_meant(
    tmp_path: Path, wanted: str | None, candidates: list[str]
) -> None:
    source = trees.make(
        tmp_path,
        {
            "DockerFile": "",
            "docker/Dockerfile": "",
            "docker/Dockerfile.gpu": "",
            "docker/Dockerfile.gpu.dockerignore": "",
            "build/Containerfile": "",
            "recipes/app.txt": "",
            "main.py": "",
        },
    )
    with pytest.raises(UserError) as raised:
        lines(source, wanted)
    told, listed = raised.value.message.split(", but it has ")
    assert told == f"The source has no {wanted or 'Dockerfile'!r}"
    assert listed.split(", ")[: len(candidates)] == candidates
    assert raised.value.hint == "say which Dockerfile is meant, by its path"


def test_missing_dockerfile_in_a_source_without_any(tmp_path: Path) -> None:
    error = refused(trees.make(tmp_path, {"main.py": "", "Dockerfile/": None}))
    assert error.message == "The source has no 'Dockerfile'"
    assert error.hint == "add a Dockerfile at the source's top, or say where it is"


@pytest.mark.parametrize("name", ["../Dockerfile", "a/../../Dockerfile", "/etc/passwd", ".."])
def test_dockerfile_outside_the_source_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "Dockerfile").touch()
    with pytest.raises(UserError) as raised:
        lines(trees.make(tmp_path / "source", {"Dockerfile": ""}), name)
    assert raised.value.message == f"The Dockerfile {name!r} lies outside the source"
    assert raised.value.hint == "give its path relative to the source's top folder"


@pytest.mark.parametrize(
    "entries",
    [
        {"Dockerfile@": "/etc/passwd"},
        {"Dockerfile@": ".."},
        {"Dockerfile@": "../outside"},
        {"Dockerfile@": "d/outside", "d@": ".."},
    ],
)
def test_dockerfile_that_is_a_link_out_of_the_source_is_refused(
    tmp_path: Path, entries: dict[str | bytes, str | bytes | None]
) -> None:
    (tmp_path / "outside").write_text("FROM scratch\n")
    error = refused(trees.make(tmp_path / "source", entries))
    assert error.message == "'Dockerfile' is a link that leaves the source"


def test_ignore_file_that_is_a_link_out_of_the_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("*")
    error = refused(
        trees.make(tmp_path / "source", {"Dockerfile": "", ".dockerignore@": "../outside"})
    )
    assert error.message == "'.dockerignore' is a link that leaves the source"


class Meddler(Quiet):
    """Does something to the source when it is checked for the `at`th time, so in the midst of
    reading it.
    """

    def __init__(self, at: int, meddle: Callable[[], object]) -> None:
        super().__init__()
        self._left = at
        self._meddle = meddle

    def check(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._meddle()


MIB = 1 << 20


IN_THE_MIDST = 6
"""Checks until two chunks of `large` are read: one of the folder, one of each of three files, one
of each chunk.
"""


def large(tmp_path: Path) -> Path:
    """A source with a file that takes several reads."""
    trees.make(tmp_path, {"Dockerfile": "", ".dockerignore": "x"})
    with (tmp_path / "large").open("wb") as file:
        file.truncate(4 * MIB)
    return tmp_path


@pytest.mark.parametrize("size", [0, MIB, 3 * MIB, 4 * MIB - 1, 4 * MIB + 1, 9 * MIB])
def test_file_that_changes_its_size_while_it_is_read_is_told(tmp_path: Path, size: int) -> None:
    source = large(tmp_path)
    meddler = Meddler(IN_THE_MIDST, lambda: os.truncate(source / "large", size))
    with pytest.raises(UserError) as raised:
        context.manifest(source, None, meddler)
    assert raised.value.message == "The source changes while it is read: large"
    assert (
        raised.value.hint
        == "build when nothing writes to it any more, or list what changes in .dockerignore"
    )


def test_file_that_has_more_in_it_than_its_size_says_is_told() -> None:
    """As one that has grown since its size was looked up; in /proc all files are like that."""
    with pytest.raises(UserError) as raised:
        context.manifest(Path("/proc/sysvipc"), "sem", Quiet())
    assert raised.value.message.startswith("The source changes while it is read: msg")


def test_file_that_changes_within_its_size_has_another_hash(tmp_path: Path) -> None:
    source = large(tmp_path)

    def meddle() -> None:
        with (source / "large").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")

    before = context.manifest(source, None, Quiet())
    assert context.manifest(source, None, Meddler(IN_THE_MIDST, meddle)) != before


@pytest.mark.parametrize("entry", ["m-file", "m-folder", "m-link"])
def test_entry_that_vanishes_while_the_source_is_read_is_told(tmp_path: Path, entry: str) -> None:
    source = trees.make(large(tmp_path), {"m-file": "", "m-folder/": None, "m-link@": "x"})
    meddler = Meddler(IN_THE_MIDST, lambda: (source / entry).rename(source / "x"))
    with pytest.raises(UserError, match=f"The source changes while it is read: {entry} "):
        context.manifest(source, None, meddler)


@pytest.mark.parametrize("entry", ["m-file", "m-folder"])
@pytest.mark.parametrize("path", ["/etc/passwd", "/etc"])
def test_entry_that_becomes_a_link_while_the_source_is_read_is_not_followed(
    tmp_path: Path, entry: str, path: str
) -> None:
    source = trees.make(large(tmp_path), {"m-file": "", "m-folder/": None})

    def meddle() -> None:
        (source / entry).rename(source / "x")
        (source / entry).symlink_to(path)

    with pytest.raises(UserError, match=f"The source changes while it is read: {entry} "):
        context.manifest(source, None, Meddler(IN_THE_MIDST, meddle))

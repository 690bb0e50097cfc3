"""Changes to a source as people and tools make them, drawn at random."""

import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

NAMES = ("a", "b", "c", "d/a", "d/b", "d/e/a", "f", "secret")
CONTENTS = ("", "one", "two", "three", "one\n")

Change = Callable[[Path], None]


def write(name: str, content: str) -> Change:
    """Write in place, as `echo > FILE` does."""

    def change(root: Path) -> None:
        path = _room(root, name)
        path.write_text(content)

    return change


def replace(name: str, content: str) -> Change:
    """Write beside it and rename, as editors do."""

    def change(root: Path) -> None:
        path = _room(root, name)
        (root / ".new").write_text(content)
        (root / ".new").replace(path)

    return change


def swap(name: str, content: str) -> Change:
    """Another content of the same size, under the same time."""

    def change(root: Path) -> None:
        path = root / name
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            path.write_text((content * 9)[: status.st_size].ljust(status.st_size, "x"))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    return change


def exchange(one: str, other: str) -> Change:
    """Two files get each other's names."""

    def change(root: Path) -> None:
        if one != other and all((root / name).is_file() for name in (one, other)):
            (root / one).replace(root / ".moved")
            (root / other).replace(root / one)
            (root / ".moved").replace(root / other)

    return change


def touch(name: str, _: str) -> Change:
    def change(root: Path) -> None:
        if (root / name).exists():
            os.utime(root / name)

    return change


def flip(name: str, _: str) -> Change:
    """Let it be executed, or not."""

    def change(root: Path) -> None:
        path = root / name
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode ^ 0o111)

    return change


def remove(name: str, _: str) -> Change:
    def change(root: Path) -> None:
        _clear(root / name)

    return change


def link(name: str, target: str) -> Change:
    def change(root: Path) -> None:
        path = _room(root, name)
        path.unlink(missing_ok=True)
        path.symlink_to(target or "nowhere")

    return change


def folder(name: str, content: str) -> Change:
    """A folder, with a file in it unless there is nothing to write."""

    def change(root: Path) -> None:
        path = _room(root, name)
        path.unlink(missing_ok=True)
        path.mkdir()
        if content:
            (path / "in").write_text(content)

    return change


def sock(name: str, _: str) -> Change:
    """What a server that listens leaves behind."""

    def change(root: Path) -> None:
        path = _room(root, name)
        path.unlink(missing_ok=True)
        os.mknod(path, stat.S_IFSOCK | 0o644)

    return change


def ignore(name: str, content: str) -> Change:
    """Other ignore rules."""

    def change(root: Path) -> None:
        (root / ".dockerignore").write_text(f"{name}\n!{name}/in\n" if content else "secret\n")

    return change


def dockerfile(_: str, content: str) -> Change:
    def change(root: Path) -> None:
        (root / "Dockerfile").write_text(f"FROM scratch\n# {content}\nCOPY . /\n")

    return change


_ALL = (write, replace, swap, touch, flip, remove, link, folder, sock, ignore, dockerfile)

CHANGES = st.one_of(
    st.builds(
        lambda make, name, content: make(name, content),
        st.sampled_from(_ALL),
        st.sampled_from(NAMES),
        st.sampled_from(CONTENTS),
    ),
    st.builds(exchange, st.sampled_from(NAMES), st.sampled_from(NAMES)),
)
"""One change."""

ROUNDS = st.lists(st.tuples(st.lists(CHANGES, max_size=3), st.booleans()), min_size=1, max_size=7)
"""Some changes, and whether time passes before they are looked at; again and again."""


def start(root: Path) -> None:
    """A source to begin with."""
    root.mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    for name in NAMES[:6]:
        write(name, "one")(root)


def read(path: Path) -> bytes:
    """The content that a build has of a file; a socket is an empty file to it."""
    return b"" if path.is_socket() else path.read_bytes()


def pass_time(root: Path, grain_ns: int) -> None:
    """Return when the file system's clock is beyond the grain of all that was changed so far."""
    probe = root.parent / "probe"
    probe.touch()
    begun = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns <= begun + grain_ns or time.time_ns() <= begun + 2 * grain_ns:
        os.utime(probe)


def _room(root: Path, name: str) -> Path:
    """The path, with nothing but a file at it and folders above it."""
    for parent in list(Path(name).parents)[-2::-1]:
        if not (root / parent).is_dir() or (root / parent).is_symlink():
            _clear(root / parent)
            (root / parent).mkdir()
    path = root / name
    if path.is_symlink() or not path.is_file():
        _clear(path)
    return path


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

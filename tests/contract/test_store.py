"""What every context store does, and what the one in a folder does besides."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import hardship
from imagemill.errors import OperatorError, PermissionDenied, UserError
from imagemill.objects import check, store_for
from imagemill.ports import ContextStore
from imagemill.testing import MemoryStore

NAME = f"{'0' * 64}.tar.gz"


def file_store(folder: Path) -> ContextStore:
    return store_for((folder / "contexts").as_uri())


@pytest.fixture(params=["memory", "file", "s3", "gcs", "azure_blob", "azure_blob_key"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ContextStore:
    """Each kind of store there is, empty."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "file":
        return file_store(tmp_path)
    made: ContextStore = request.getfixturevalue(f"{request.param}_store")
    return made


def put(store: ContextStore, name: str, content: bytes) -> None:
    with store.create(name) as stream:
        stream.write(content)


def get(store: ContextStore, name: str) -> bytes:
    with store.open(name) as stream:
        return stream.read()


def test_what_was_stored_is_there(store: ContextStore) -> None:
    content = bytes(range(256)) * 20_000
    with store.create(NAME) as stream:
        for start in range(0, len(content), 65_537):
            stream.write(content[start : start + 65_537])
    assert store.exists(NAME)
    assert get(store, NAME) == content


def test_what_was_not_stored_is_not_there(store: ContextStore) -> None:
    assert not store.exists(NAME)
    with pytest.raises(FileNotFoundError), store.open(NAME):
        pass
    put(store, NAME, b"")
    assert not store.exists(NAME.replace("0", "1"))


def test_object_is_not_there_before_its_block_has_ended(store: ContextStore) -> None:
    with store.create(NAME) as stream:
        stream.write(b"content")
        assert not store.exists(NAME)
    assert store.exists(NAME)


def test_object_whose_block_raises_is_dropped(store: ContextStore) -> None:
    def fail() -> None:
        with store.create(NAME) as stream:
            stream.write(b"content")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not store.exists(NAME)


def test_object_whose_block_raises_does_not_replace_an_earlier_one(store: ContextStore) -> None:
    def fail() -> None:
        with store.create(NAME) as stream:
            stream.write(b"later")
            raise KeyError

    put(store, NAME, b"earlier")
    with pytest.raises(KeyError):
        fail()
    assert get(store, NAME) == b"earlier"


def test_object_is_replaced(store: ContextStore) -> None:
    put(store, NAME, b"earlier, and longer")
    put(store, NAME, b"later")
    assert get(store, NAME) == b"later"


def test_object_is_deleted(store: ContextStore) -> None:
    put(store, NAME, b"content")
    put(store, "another", b"another")
    store.delete(NAME)
    assert not store.exists(NAME)
    assert store.exists("another")


def test_deleting_what_is_not_there_is_fine(store: ContextStore) -> None:
    store.delete(NAME)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", "../a", ".hidden", "a\0b", "é", "a" * 201, "a\n"]
)
def test_name_that_is_none_is_a_bug(store: ContextStore, name: str) -> None:
    for attempt in (store.exists, store.delete, store.uri, lambda name: put(store, name, b"")):
        with pytest.raises(ValueError, match="is not a name of an object"):
            attempt(name)


def test_many_may_store_the_same_object_at_once(store: ContextStore) -> None:
    """Whoever looks meanwhile sees one of the objects, whole."""
    contents = [bytes([number]) * 300_000 for number in range(8)]
    put(store, NAME, contents[0])
    started = threading.Barrier(len(contents) + 1)

    def store_one(content: bytes) -> None:
        started.wait()
        for _ in range(5):
            put(store, NAME, content)

    with ThreadPoolExecutor(len(contents)) as pool:
        writers = [pool.submit(store_one, content) for content in contents]
        started.wait()
        while not all(writer.done() for writer in writers):
            assert get(store, NAME) in contents
        for writer in writers:
            writer.result()


def test_check_leaves_nothing(store: ContextStore) -> None:
    check(store)
    put(store, NAME, b"content")
    check(store)
    assert get(store, NAME) == b"content"


def test_uri_says_where_the_object_is(store: ContextStore) -> None:
    assert re.fullmatch(rf"[a-z0-9]+://.*/{NAME}", store.uri(NAME))


@pytest.mark.parametrize("uri", ["ftp://host/path", "/path", "", "nonsense"])
def test_unknown_kind_of_store_is_told_with_the_known_ones(uri: str) -> None:
    with pytest.raises(UserError, match="There is no context store") as raised:
        store_for(uri)
    assert "file" in raised.value.hint


# The store in a folder


@pytest.mark.parametrize("uri", ["file://host/path", "file:path", "file:", "file://"])
def test_uri_that_names_no_folder_is_refused(uri: str) -> None:
    with pytest.raises(UserError) as raised:
        store_for(uri)
    assert raised.value.message == f"{uri!r} is not the URI of a folder"
    assert raised.value.hint == "write file:///PATH, with an absolute path"


@pytest.mark.parametrize("host", ["", "localhost"])
def test_uri_may_have_a_name_with_spaces(tmp_path: Path, host: str) -> None:
    store = store_for(f"file://{host}{tmp_path}/with%20space")
    put(store, NAME, b"content")
    assert (tmp_path / "with space" / NAME).read_bytes() == b"content"
    assert store.uri(NAME) == f"file://{tmp_path}/with%20space/{NAME}"


def test_objects_are_for_the_worker_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        put(file_store(tmp_path), NAME, b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "contexts" / NAME).stat().st_mode & 0o777 == 0o600


CRASH = """
import os, signal, sys
from imagemill.objects import check, store_for
with store_for(sys.argv[1]).create(sys.argv[2]) as stream:
    stream.write(b"content")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_crash_leaves_behind_is_no_object_and_is_removed_when_it_is_old(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "contexts"
    store = file_store(tmp_path)
    crashed = subprocess.run(
        [sys.executable, "-c", CRASH, folder.as_uri(), NAME], cwd=Path(__file__).parents[2]
    )
    assert crashed.returncode == -signal.SIGKILL
    [leftover] = folder.iterdir()
    assert not store.exists(NAME)

    put(store, "another", b"")
    assert leftover.exists()

    yesterday = time.time() - 25 * 60 * 60
    os.utime(leftover, (yesterday, yesterday))
    put(store, NAME, b"")
    assert sorted(path.name for path in folder.iterdir()) == [NAME, "another"]


def test_old_object_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    store = file_store(tmp_path)
    put(store, NAME, b"content")
    os.utime(tmp_path / "contexts" / NAME, (0, 0))
    put(store, "another", b"")
    assert store.exists(NAME)


def test_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with hardship.small_disk(tmp_path / "disk") as disk:
        store = store_for(disk.as_uri())
        put(store, "small", b"content")
        with pytest.raises(OperatorError) as raised:
            put(store, NAME, os.urandom(1 << 20))
        assert [path.name for path in disk.iterdir()] == ["small"]
        assert get(store, "small") == b"content"
    assert raised.value.message.startswith(f"There is no room left in {disk}: ")
    assert (
        raised.value.hint
        == "free some space there, or give the worker a larger disk or quota, and build again"
    )


def test_store_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "contexts").touch()
    store = file_store(tmp_path)
    attempts: list[Callable[[], object]] = [lambda: put(store, NAME, b""), lambda: get(store, NAME)]
    for attempt in attempts:
        with pytest.raises(OperatorError) as raised:
            attempt()
        assert raised.value.message == f"The context store {tmp_path}/contexts is not a folder"
        assert raised.value.hint == "give builder.build-context-store another path"


def test_store_that_the_worker_may_not_use_is_told_and_never_taken_for_empty() -> None:
    with hardship.public_folder() as folder:
        store = file_store(folder)
        put(store, NAME, b"content")
        attempts: list[Callable[[], object]] = [
            lambda: put(store, NAME, b""),
            lambda: get(store, NAME),
            lambda: store.exists(NAME),
            lambda: store.delete(NAME),
        ]
        (folder / "contexts").chmod(0)
        for attempt in attempts:
            with hardship.as_nobody(), pytest.raises(PermissionDenied) as raised:
                attempt()
            message = (
                f"The worker may not use the context store {folder}/contexts: Permission denied"
            )
            assert raised.value.message == message
            assert raised.value.hint.startswith("let the user with the id ")
        (folder / "contexts").chmod(0o700)

"""What images of code alone are made from is found again, in Redis as in a folder."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import fakeredis
import pytest

from imagemill.context import Entry
from imagemill.names import HASH_KEEP_SECONDS
from imagemill.state.grafts import Earlier, FolderShelf, Grafts, RedisShelf, Shelf
from imagemill.why.record import DockerfileInput, InputRecord

SHELVES: list[Callable[[Path], Shelf]] = [
    lambda _: RedisShelf(fakeredis.FakeRedis(), "p:"),
    lambda folder: FolderShelf(folder / "grafts"),
]
RECORD = InputRecord(
    recipe=DockerfileInput("Dockerfile", "d" * 32),
    entries=(Entry("file", b"app.py", 3, "a" * 16), Entry("link", b"l", 0, "", b"app.py")),
)


@pytest.fixture(params=SHELVES, ids=["redis", "folder"])
def grafts(request: pytest.FixtureRequest, tmp_path: Path) -> Grafts:
    return Grafts(request.param(tmp_path))


def test_an_image_is_found_as_it_was_kept(grafts: Grafts) -> None:
    image = Earlier("r/app@sha256:1", ("a", "b"), RECORD, (("CMD", ("python", "app.py")),))
    assert grafts.find_image("key") is None
    grafts.keep_image("key", image)
    assert grafts.find_image("key") == image
    assert grafts.find_image("another") is None
    grafts.forget_image("key")
    assert grafts.find_image("key") is None


def test_why_there_is_no_image_is_known_until_there_is_one(grafts: Grafts) -> None:
    grafts.refuse_image("key", "it cannot be read")
    assert grafts.find_refusal("key") == "it cannot be read"
    assert grafts.find_refusal("another") is None
    grafts.keep_image("key", Earlier("r/app@sha256:1", (), RECORD))
    assert grafts.find_refusal("key") is None


def test_layers_are_found_in_the_order_in_which_they_are_asked_for(grafts: Grafts) -> None:
    assert grafts.find_layers([]) == []
    grafts.keep_layer("one", b"1")
    grafts.keep_layer("two", b"2")
    assert grafts.find_layers(["two", "none", "one"]) == [b"2", None, b"1"]


def test_a_fact_is_neither_an_image_nor_a_layer(grafts: Grafts) -> None:
    grafts.keep_fact("name", "é")
    assert grafts.find_fact("name") == "é"
    assert grafts.find_fact("other") is None
    assert grafts.find_layers(["name"]) == [None]


@pytest.mark.parametrize("make", SHELVES, ids=["redis", "folder"])
def test_what_is_damaged_is_not_there(make: Callable[[Path], Shelf], tmp_path: Path) -> None:
    shelf = make(tmp_path)
    grafts = Grafts(shelf)
    for damage in (lambda text: text[:-1], lambda text: b"", lambda text: text[:-1] + b"\0"):
        grafts.keep_image("key", Earlier("r/app@sha256:1", (), RECORD))
        grafts.keep_layer("one", b"1")
        grafts.keep_fact("name", "2")
        for name in ("image:key", "layer:one", "fact:name"):
            (kept,) = shelf.find([name])
            assert kept is not None
            shelf.put(name, damage(kept))
        assert grafts.find_image("key") is None
        assert grafts.find_layers(["one"]) == [None]
        assert grafts.find_fact("name") is None


def test_what_was_kept_by_one_name_is_not_taken_for_another() -> None:
    shelf = RedisShelf(fakeredis.FakeRedis(), "")
    Grafts(shelf).keep_layer("one", b"1")
    shelf.put("layer:two", shelf.find(["layer:one"])[0] or b"")
    assert Grafts(shelf).find_layers(["two"]) == [None]


def test_what_nobody_has_used_for_too_long_goes_from_the_folder(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    shelf.put("old", b"1")
    shelf.put("used", b"2")
    long_ago = time.time() - HASH_KEEP_SECONDS - 60
    for path in tmp_path.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert shelf.find(["used"]) == [b"2"]
    shelf.put("new", b"3")
    assert shelf.find(["old", "used", "new"]) == [None, b"2", b"3"]
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600, 0o600]

"""Keys, and what they sign."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagemill.errors import OperatorError
from imagemill.signing import Keys, own_keys

OLD, NEW = "o" * 32, "n" * 32


@given(st.text(), st.text())
def test_a_signature_is_of_one_text_alone(text: str, other: str) -> None:
    keys = Keys.of(OLD)
    assert keys.signed(keys.sign("p", "id", text), "p", "id", text)
    assert keys.signed(keys.sign("p", "id", text), "p", "id", other) == (text == other)


def test_a_signature_is_for_one_purpose_and_by_one_key() -> None:
    signature = Keys.of(OLD).sign("record", "id", "text")
    assert not Keys.of(OLD).signed(signature, "message", "id", "text")
    assert not Keys.of(NEW).signed(signature, "record", "id", "text")
    assert not Keys.of(OLD).signed("é", "record", "id", "text")


def test_a_key_is_changed_in_two_steps() -> None:
    before, between, after = Keys.of(OLD), Keys.of(OLD, NEW), Keys.of(NEW, OLD)
    assert between.signed(before.sign("p", "x"), "p", "x")
    assert between.signed(after.sign("p", "x"), "p", "x")
    assert before.signed(between.sign("p", "x"), "p", "x")


@pytest.mark.parametrize("text", ["", "\n\n", "short", f"{OLD}\nshort"])
def test_a_file_that_has_no_good_key_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(OperatorError, match="keys: A key for signatures is missing, or too short"):
        Keys.read(tmp_path / "keys")


def test_keys_are_not_shown(tmp_path: Path) -> None:
    assert OLD not in repr(Keys.of(OLD))


def test_a_disk_without_room_for_a_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OperatorError, match=f"no room left in {tmp_path}"):
        own_keys(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


def test_the_own_key_is_made_once_and_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "state/key"
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: own_keys(path), range(8)))
    assert made == {own_keys(path)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key"]

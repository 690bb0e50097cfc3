"""Whose machine an error speaks of."""

import pytest

from imagemill.place import attended, machine


@pytest.fixture(autouse=True)
def a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEMILL_ATTENDED", raising=False)


def test_who_asks_a_service_is_told_of_its_worker() -> None:
    assert machine() == "the worker"
    assert machine().capitalize() == "The worker"


def test_who_gives_a_command_is_told_of_this_machine_until_it_has_ended() -> None:
    with attended():
        with attended():
            assert machine() == "this machine"
        assert machine() == "this machine"
    assert machine() == "the worker"


def test_the_embedded_worker_is_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_ATTENDED", "1")
    assert machine() == "this machine"

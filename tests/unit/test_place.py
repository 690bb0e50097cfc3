"""Whose machine an error speaks of."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import imagemill
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


def texts(folder: str) -> Iterator[str]:
    """All texts in the code of a package, but for docstrings."""
    for file in (Path(imagemill.__file__).parent / folder).rglob("*.py"):
        tree = ast.parse(file.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in docs
            ):
                yield node.value


@pytest.mark.parametrize(
    "package",
    ["builders", "clouds", "context", "doctor", "files", "objects", "registries", "sources"],
)
def test_what_fails_on_a_machine_is_said_of_it_by_its_name(package: str) -> None:
    found = [text for text in texts(package) if re.search(r"\b[Tt]he workers?\b", text)]
    assert found == []

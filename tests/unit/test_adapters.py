"""The table of adapters: what is loaded, when, and what is said where it cannot be."""

import sys
from pathlib import Path
from types import MappingProxyType

import pytest

from imagemill.adapters import Adapter, load
from imagemill.errors import OperatorError, UserError

TABLE = MappingProxyType(
    {
        "docker": Adapter("email.message", "Message"),
        "kaniko": Adapter("kaniko_adapter", "Kaniko", "kaniko"),
        "ours": Adapter("imagemill.no_such_module", "Ours", "extra"),
    }
)


def test_class_is_loaded_by_its_name() -> None:
    assert load(TABLE, "docker", "builder").__name__ == "Message"


def test_module_is_imported_only_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_adapter.py").write_text("class Late: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    table = {"late": Adapter("late_adapter", "Late")}
    assert "late_adapter" not in sys.modules
    assert load(table, "late", "builder") is sys.modules["late_adapter"].Late


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dokcer", "did you mean 'docker'? known: docker, kaniko, ours"),
        ("x", "known: docker, kaniko, ours"),
        ("", "known: docker, kaniko, ours"),
    ],
)
def test_unknown_name_is_told_with_the_nearest_and_all_known_ones(name: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        load(TABLE, name, "builder")
    assert raised.value.message == f"There is no builder {name!r}"
    assert raised.value.hint == hint


@pytest.mark.parametrize(
    "statement", ["import no_such_package.inner", "from json import no_such_name"]
)
def test_missing_package_answers_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    (tmp_path / "kaniko_adapter.py").write_text(f"{statement}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        OperatorError, match="The builder 'kaniko' needs the Python package"
    ) as raised:
        load(TABLE, "kaniko", "builder")
    assert raised.value.hint == "pip install 'imagemill[kaniko]'"


def test_module_of_our_own_that_is_missing_is_a_bug_and_no_matter_of_installing() -> None:
    with pytest.raises(ModuleNotFoundError):
        load(TABLE, "ours", "builder")


def test_adapter_without_an_extra_has_nothing_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain_adapter.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError):
        load({"plain": Adapter("plain_adapter", "Plain")}, "plain", "builder")

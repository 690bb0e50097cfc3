"""What a source holds that is seldom meant is told, with the line that leaves it out."""

from pathlib import Path

import pytest

import trees
from imagemill import context
from imagemill.ports import Quiet


def costs(source: Path) -> tuple[str, ...]:
    return context.costs(context.manifest(source, None, Quiet()))


def test_what_counts_is_told_with_its_line(tmp_path: Path) -> None:
    source = trees.make(
        tmp_path,
        {
            "Dockerfile": "FROM scratch\n",
            ".venv/lib/a.py": "1",
            ".venv/lib/__pycache__/a.pyc": "22",
            "part/__pycache__/b.pyc": "1",
            "wandb/run-1/log": "1",
        },
    )
    (warning,) = costs(source)
    assert ".venv (2 files, 3 bytes)" in warning
    assert "__pycache__ (1 file, 1 bytes)" in warning
    assert warning.endswith("a line each: **/.venv **/__pycache__ wandb")
    lines = warning.rpartition(": ")[2].replace(" ", "\n")
    (source / ".dockerignore").write_text(lines)
    assert costs(source) == ()


@pytest.mark.parametrize("path", ["app.py", "data/small.csv", "wandb/__init__.py", "a/mlruns/x"])
def test_what_is_meant_is_not_told(tmp_path: Path, path: str) -> None:
    assert costs(trees.make(tmp_path, {"Dockerfile": "FROM scratch\n", path: "1"})) == ()


def test_large_data_is_told(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "FROM scratch\n", "data/": None})
    with (source / "data" / "train.bin").open("wb") as file:
        file.truncate(150_000_000)
    (warning,) = costs(source)
    assert "data (1 file, 150 MB)" in warning


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({".git/HEAD": ""}, True),
        ({".git/HEAD": "", ".dockerignore": ".git\n"}, False),
        ({".git/HEAD": "", ".dockerignore": "!.git\n"}, False),
        ({"a": ""}, False),
    ],
)
def test_git_that_is_left_out_is_noted(tmp_path: Path, files: dict[str, str], said: bool) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "FROM scratch\n", **files})
    assert (context.notes(context.manifest(source, None, Quiet())) != ()) == said

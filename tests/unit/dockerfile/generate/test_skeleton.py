"""What a package can be installed by before its code is there."""

from pathlib import Path

import pytest

from imagemill.dockerfile.generate.project import Project
from imagemill.dockerfile.generate.skeleton import Skeleton, find
from trees import make

BUILD = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
PROJECT = '[project]\nname = "shop"\nversion = "1"\n'


def test_modules_that_a_backend_looks_for_are_there_and_empty(tmp_path: Path) -> None:
    text = f'{BUILD}{PROJECT}readme = "README.md"\nlicense = {{file = "LICENSE"}}\n'
    files = {"README.md": "", "LICENSE": "", "shop/__init__.py": "1", "shop/deep/a.py": "2"}
    make(tmp_path, {"pyproject.toml": text, **files, "serve.py": "3"})
    assert find(Project(tmp_path)) == Skeleton(
        ("README.md", "LICENSE"), ("shop",), ("serve.py", "shop/__init__.py")
    )


def test_in_src_only_what_is_there_counts(tmp_path: Path) -> None:
    files = {"src/shop/__init__.py": "", "src/one.py": "", "other/__init__.py": "", "x.py": ""}
    make(tmp_path, {"pyproject.toml": BUILD + PROJECT, **files})
    found = Skeleton((), ("src/shop",), ("src/one.py", "src/shop/__init__.py"))
    assert find(Project(tmp_path)) == found


def test_the_file_that_has_the_version_is_there_whole(tmp_path: Path) -> None:
    dynamic = '[project]\nname = "shop"\ndynamic = ["version"]\n'
    version = '[tool.hatch.version]\npath = "shop/__about__.py"\n'
    make(tmp_path, {"pyproject.toml": BUILD + dynamic + version, "shop/__about__.py": "1"})
    found = find(Project(tmp_path))
    assert found is not None
    assert found.copied == ("shop/__about__.py",)


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": PROJECT},
        {"pyproject.toml": BUILD.replace("hatchling.build", "own") + PROJECT},
        {"pyproject.toml": f'{BUILD}backend-path = ["."]\n{PROJECT}'},
        {"pyproject.toml": BUILD + PROJECT, "setup.py": ""},
        {"pyproject.toml": BUILD + PROJECT, "setup.cfg": ""},
        {"pyproject.toml": f'{BUILD}{PROJECT}dynamic = ["readme"]\n'},
        {"pyproject.toml": f'{BUILD}[project]\nname = "shop"\ndynamic = ["version"]\n'},
        {"pyproject.toml": f'{BUILD}{PROJECT}readme = "missing"\n'},
        {"pyproject.toml": f"{BUILD}{PROJECT}[tool.hatch.build.hooks.own]\n"},
        {"pyproject.toml": BUILD + PROJECT, **{f"m{number}.py": "" for number in range(51)}},
    ],
)
def test_what_may_need_all_of_the_code_has_none(tmp_path: Path, files: dict[str, str]) -> None:
    make(tmp_path, files)
    assert find(Project(tmp_path)) is None

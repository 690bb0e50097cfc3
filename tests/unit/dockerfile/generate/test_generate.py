"""Dockerfiles that are generated: for real shapes of projects as golden files, and what holds for
all of them.

`IMAGEMILL_GOLDEN=write` writes the golden files anew: look at what has changed.
"""

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import trees
from imagemill.builders.graft import recipe
from imagemill.cli.commands import cli
from imagemill.dockerfile import syntax as grammar
from imagemill.dockerfile.generate import ACCELERATORS, Wishes, generate
from imagemill.dockerfile.generate.generator import told
from imagemill.errors import UserError

GOLDEN = Path(__file__).parent / "golden"

TRAIN = "print('training')\n"
SRC_LAYOUT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "credit-score"
version = "1.0"
requires-python = ">=3.10"
dependencies = ["numpy>=1.26", "scikit-learn"]

[project.scripts]
credit-score = "credit_score.cli:main"
credit-score-report = "credit_score.report:main"
"""
POETRY = """\
[tool.poetry]
name = "shop"
version = "0.1.0"

[tool.poetry.dependencies]
python = "^3.9,<3.12"
requests = "^2.32"

[tool.poetry.scripts]
shop = "shop.cli:main"

[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
"""
UV = """\
[project]
name = "serving"
version = "0"
requires-python = ">=3.13"
dependencies = ["fastapi", "uvicorn"]
"""
WORKSPACE = """\
[project]
name = "platform"
version = "0"
dependencies = ["features"]

[tool.uv.workspace]
members = ["packages/*"]

[tool.uv.sources]
features = { workspace = true }
"""
CONDA = """\
name: vision
channels: [conda-forge]
dependencies:
  - python=3.11
  - pytorch
  - pip:
      - -r requirements/extra.txt
      - timm
"""
SETUP_PY = """\
from setuptools import find_packages, setup

REQUIRED = ["pandas>=2", "xgboost"]

setup(
    name="churn",
    packages=find_packages(),
    python_requires=">=3.8,<3.11",
    install_requires=REQUIRED,
    entry_points={"console_scripts": ["churn=churn.main:run"]},
)
"""
SETUP_CFG = """\
[metadata]
name = forecast

[options]
packages = find:
python_requires = >=3.11
install_requires =
    statsmodels
    numpy>=1.26; python_version < "3.13"

[options.entry_points]
console_scripts =
    forecast = forecast.cli:main
"""
SCRIPT = """\
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch>=2.4",
#   "rich",
# ]
# ///
print("training")
"""
PACKAGE = """\
[project]
name = "NAME"
requires-python = ">=3.9"
dependencies = ["numpy"]

[project.scripts]
"NAME" = "a:b"

[build-system]
requires = []
"""
PRIVATE = """\
--index-url https://pypi.org/simple
--extra-index-url https://${INDEX_USER}:${INDEX_TOKEN}@packages.example.com/simple
--extra-index-url https://mirror.example.com/simple
-r requirements/base.txt
-c constraints.txt
./libs/common
team-models @ git+https://github.com/team/models@v1.2
"""


@dataclass(frozen=True)
class Shape:
    """A project, and what is asked for."""

    files: Mapping[str, str]
    wishes: Wishes = field(default_factory=Wishes)


SHAPES = {
    "requirements": Shape({"requirements.txt": "numpy==2.1.0\ntorch\n", "train.py": TRAIN}),
    "requirements-python-version": Shape(
        {
            "requirements.txt": "numpy\n",
            ".python-version": "# pyenv\n3.11.9\n",
            "train.py": TRAIN,
            "model/": "",
        }
    ),
    "pyproject-src-layout": Shape(
        {"pyproject.toml": SRC_LAYOUT, "src/credit_score/cli.py": "", "README.md": ""}
    ),
    "poetry": Shape({"pyproject.toml": POETRY, "poetry.lock": "", "shop/cli.py": ""}),
    "uv": Shape({"pyproject.toml": UV, "uv.lock": "version = 1\n", "main.py": ""}),
    "uv-workspace": Shape(
        {
            "pyproject.toml": WORKSPACE,
            "uv.lock": "version = 1\n",
            "packages/features/pyproject.toml": "",
            "main.py": "",
        }
    ),
    "conda": Shape(
        {"environment.yml": CONDA, "requirements/extra.txt": "einops\n", "train.py": TRAIN}
    ),
    "conda-on-cuda": Shape(
        {"environment.yml": "dependencies: [numpy]\n", "train.py": TRAIN},
        Wishes(accelerator="cuda12.4", python="3.10", cache_mounts=False),
    ),
    "runtime-txt": Shape(
        {"requirements.txt": "flask\n", "runtime.txt": "python-3.10.14\n", "app.py": ""}
    ),
    "setup-py": Shape({"setup.py": SETUP_PY, "churn/main.py": ""}),
    "setup-cfg": Shape(
        {
            "setup.cfg": SETUP_CFG,
            "setup.py": "import setuptools\nsetuptools.setup()\n",
            "forecast/": "",
        }
    ),
    "script": Shape({"train.py": TRAIN}),
    "script-with-metadata": Shape(
        {"experiments/train.py": SCRIPT}, Wishes(entrypoint=("experiments/train.py", "--lr", "1"))
    ),
    "cuda": Shape({"requirements.txt": "torch\n", "train.py": TRAIN}, Wishes(accelerator="cuda")),
    "own-base": Shape(
        {"pyproject.toml": SRC_LAYOUT, "src/credit_score/cli.py": ""},
        Wishes(base="registry.example.com/ml/base:7", uv="base", cache_mounts=False),
    ),
    "windows": Shape(
        {
            "requirements.txt": "\ufeffnumpy\r\n-r requirements dev.txt\r\n",
            "requirements dev.txt": "scipy\r\n",
            ".python-version": "3.12\r\n",
            "my train.py": "\ufeffprint('a')\r\n",
        }
    ),
    "monorepo-part": Shape(
        {"pyproject.toml": UV, "serving/__init__.py": "", "serving/__main__.py": ""}
    ),
    "private-indexes": Shape(
        {
            "requirements.txt": PRIVATE,
            "requirements/base.txt": "numpy\n",
            "constraints.txt": "numpy<3\n",
            "libs/common/pyproject.toml": "",
            "main.py": "",
        }
    ),
    "requirements-of-a-package": Shape(
        {
            "requirements.txt": "numpy==2.1.0\n",
            "pyproject.toml": SRC_LAYOUT.replace('["hatchling"]', '["hatchling", "hatch-vcs"]'),
            "src/credit_score/cli.py": "",
        }
    ),
}


def made(top: Path, files: Mapping[str, str]) -> Path:
    return trees.make(top, files)


def fault(tmp_path: Path, files: Mapping[str, str], **wishes: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        generate(made(tmp_path / "source", files), Wishes(**wishes))
    return caught.value


def text(tmp_path: Path, files: Mapping[str, str], **wishes: Any) -> str:
    return generate(made(tmp_path / "source", files), Wishes(**wishes))


# --- What is generated ---


@pytest.mark.parametrize("name", SHAPES)
def test_a_dockerfile_is_as_it_was_looked_at(tmp_path: Path, name: str) -> None:
    found = generate(made(tmp_path, SHAPES[name].files), SHAPES[name].wishes)
    golden = GOLDEN / f"{name}.Dockerfile"
    if os.environ.get("IMAGEMILL_GOLDEN") == "write":
        golden.write_text(found)
    assert found == golden.read_text()


def test_each_golden_file_has_its_shape() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.Dockerfile" for name in SHAPES}


@pytest.mark.parametrize("name", SHAPES)
def test_a_change_of_code_needs_no_builder_by_any_of_them(name: str) -> None:
    found = recipe.read((GOLDEN / f"{name}.Dockerfile").read_text(), None)
    assert [operation.keyword for operation in found.operations] == ["COPY", "USER", "ENTRYPOINT"]
    assert "." not in found.read_before


def test_where_it_does_the_build_warns_and_says_why(tmp_path: Path) -> None:
    code = "from setuptools import setup\nsetup(name='shop', ext_modules=[])\n"
    source = made(tmp_path, {"setup.py": code, "main.py": ""})
    (warning,) = told(source, Wishes())[1]
    assert warning.endswith("by the builder, since setup.py calls setup with ext_modules")


@pytest.mark.parametrize("name", SHAPES)
def test_the_order_and_the_times_of_files_do_not_count(tmp_path: Path, name: str) -> None:
    entries = list(SHAPES[name].files.items())
    random.Random(name).shuffle(entries)
    first = generate(made(tmp_path / "first", SHAPES[name].files), SHAPES[name].wishes)
    second = made(tmp_path / "second", dict(entries))
    for path in second.rglob("*"):
        os.utime(path, (0, 0))
    assert generate(second, SHAPES[name].wishes) == first


@pytest.mark.parametrize("name", SHAPES)
def test_dependencies_are_installed_before_the_code_is_copied_and_nothing_runs_as_root(
    name: str,
) -> None:
    (stage,) = grammar.stages((GOLDEN / f"{name}.Dockerfile").read_text())
    instructions = [f"{each.keyword} {each.text.partition(' ')[2]}" for each in stage.instructions]
    code = instructions.index("COPY --chown=10001:10001 . .")
    user = instructions.index("USER 10001:10001")
    assert [
        each for each in instructions[user:] if not each.startswith(("USER", "ENTRYPOINT"))
    ] == []
    for instruction in instructions[code + 1 : user]:
        assert (
            "uv pip install --editable ." in instruction
            or "--only-root" in instruction
            or "uv sync" in instruction
        )
    assert json.loads(instructions[-1].removeprefix("ENTRYPOINT "))


def test_without_cache_mounts_nothing_is_mounted_and_no_cache_is_kept(tmp_path: Path) -> None:
    found = text(tmp_path, SHAPES["requirements"].files, cache_mounts=False)
    assert "--mount" not in found
    assert "UV_NO_CACHE=1" in found


# --- What the build sees ---


def test_what_dockerignore_hides_is_not_looked_at(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "numpy\n",
        "train.py": TRAIN,
        "app.py": "",
        ".dockerignore": "app.py\nrequirements.txt\n",
    }
    found = text(tmp_path, files)
    assert '["python", "train.py"]' in found
    assert "requirements" not in found


def test_a_virtual_environment_in_the_project_is_not_looked_at(tmp_path: Path) -> None:
    assert '["python", "train.py"]' in text(tmp_path, {"train.py": TRAIN, "venv/__main__.py": ""})


def test_a_name_that_would_begin_a_line_of_its_own_is_not_looked_at(tmp_path: Path) -> None:
    assert '["python", "only.py"]' in text(tmp_path, {"only.py": "", "a\nRUN no\n.py": ""})


def test_a_link_to_a_file_outside_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("numpy\n")
    error = fault(tmp_path, {"requirements.txt@": "../secret", "train.py": TRAIN})
    assert error.message == "'requirements.txt' is a link that leaves the source"


@pytest.mark.parametrize("more", ["-r \n", "-r .\n", "-r folder\n", "-r dangling\n"])
def test_what_is_no_file_is_not_read(tmp_path: Path, more: str) -> None:
    files = {"requirements.txt": more, "train.py": TRAIN, "folder/a.txt": "", "dangling@": "none"}
    assert fault(tmp_path, files).message.endswith("is no file, or a link to none")


def test_a_link_within_the_project_is_followed(tmp_path: Path) -> None:
    files = {
        "requirements.txt@": "requirements/all.txt",
        "requirements/all.txt": "numpy\n",
        "train.py": TRAIN,
    }
    assert "--requirement requirements.txt" in text(tmp_path, files)


# --- The Python ---


@pytest.mark.parametrize(
    ("said", "version"),
    [
        (">=3.9", "3.12"),
        (">=3.13", "3.13"),
        ("<3.11", "3.10"),
        ("<=3.12", "3.11"),
        ("==3.11.*", "3.11"),
        ("==3.11.4", "3.11.4"),
        ("~=3.10.2", "3.10"),
        (">=3.10,!=3.12.*,<4", "3.11"),
        (">=3.10,!=3.12.1", "3.12"),
        ("<3.8.5", "3.8.4"),
        ("", "3.12"),
    ],
)
def test_requires_python_gets_the_default_or_what_is_nearest_to_it(
    tmp_path: Path, said: str, version: str
) -> None:
    files = {
        "pyproject.toml": f'[project]\nname = "a"\nversion = "1"\nrequires-python = "{said}"\n',
        "main.py": "",
    }
    assert f"FROM python:{version}-slim\n" in text(tmp_path, files)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("^3.10", "3.12"),
        ("~3.10", "3.10"),
        ("~3.10.4", "3.10"),
        ("3.11.*", "3.11"),
        ("3.11", "3.11"),
        (">= 3.9, < 3.12", "3.11"),
        (">=3.9 <3.11", "3.10"),
        ("~3.8 || ~3.10", "3.10"),
        ("*", "3.12"),
    ],
)
def test_poetrys_constraints_are_understood(tmp_path: Path, said: str, version: str) -> None:
    files = {"pyproject.toml": f'[tool.poetry.dependencies]\npython = "{said}"\n', "main.py": ""}
    assert f"FROM python:{version}-slim\n" in text(tmp_path, files)


def test_a_request_comes_before_python_version_before_runtime_before_the_range(
    tmp_path: Path,
) -> None:
    files = {
        "requirements.txt": "",
        ".python-version": "3.9",
        "runtime.txt": "python-3.10.1",
        "main.py": "",
    }
    assert "python:3.13-slim" in text(tmp_path, files, python="3.13")
    assert "python:3.9-slim" in text(tmp_path, files)
    (tmp_path / "source/.python-version").unlink()
    assert "python:3.10.1-slim" in text(tmp_path, {})


def test_a_version_that_contradicts_the_range_is_an_error(tmp_path: Path) -> None:
    error = fault(
        tmp_path, {"pyproject.toml": UV, "uv.lock": "", ".python-version": "3.10", "main.py": ""}
    )
    assert error.message == (
        "Python 3.10 (from .python-version) does not fit: requires-python in pyproject.toml says >=3.13"
    )


def test_in_an_own_base_its_python_is_used_if_it_fits(tmp_path: Path) -> None:
    files = {"requirements.txt": "numpy\n", "main.py": ""}
    assert "--python '>=3.8'" in text(tmp_path, files, base="base:1")
    assert "--python 3.11" in text(tmp_path, files, base="base:1", python="3.11")
    assert "--python '>=3.8'" in text(
        tmp_path, files, accelerator="nvcr.io/nvidia/pytorch:24.10-py3"
    )
    assert "--python 3.12" in text(tmp_path, files, accelerator="cuda12.4")


# --- The entry point ---


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"main.py": "", "helpers.py": ""}, ["python", "main.py"]),
        ({"only.py": ""}, ["python", "only.py"]),
        ({"one.py": "if __name__ == '__main__':\n    pass\n", "two.py": ""}, ["python", "one.py"]),
        (
            {"one.py": "", "setup.py": "", "test_one.py": "", "conftest.py": ""},
            ["python", "one.py"],
        ),
        (
            {"tool/__main__.py": "", "tool/__init__.py": "", "train.py": ""},
            ["python", "-m", "tool"],
        ),
        ({"tests/__main__.py": "", "run.py": ""}, ["python", "run.py"]),
    ],
)
def test_the_entry_point_is_found(
    tmp_path: Path, files: dict[str, str], command: list[str]
) -> None:
    assert text(tmp_path, files).endswith(f"ENTRYPOINT {json.dumps(command)}\n")


@pytest.mark.parametrize(
    ("files", "candidates"),
    [
        ({"main.py": "", "train.py": ""}, "python main.py, python train.py"),
        ({"one.py": "", "two.py": ""}, "python one.py, python two.py"),
        ({"a/__main__.py": "", "b/__main__.py": ""}, "python -m a, python -m b"),
        (
            {"pyproject.toml": SRC_LAYOUT.replace('"credit-score"', '"other"')},
            "credit-score, credit-score-report",
        ),
    ],
)
def test_several_entry_points_are_listed(
    tmp_path: Path, files: dict[str, str], candidates: str
) -> None:
    error = fault(tmp_path, files)
    assert error.message == f"It is not clear what the image is to run: {candidates}"
    assert "say what the image runs" in error.hint


def test_a_project_in_a_folder_below_is_pointed_to(tmp_path: Path) -> None:
    error = fault(
        tmp_path, {"services/api/requirements.txt": "", "services/api/main.py": "", "docs/a.md": ""}
    )
    assert "nothing at the top of the source to run" in error.message
    assert error.hint == "build from the folder that is meant: services/api"


def test_nothing_to_go_by_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    error = fault(tmp_path, {"README.md": ""})
    for name in (
        "Dockerfile",
        "uv.lock",
        "poetry.lock",
        "pyproject.toml",
        "environment.yml",
        "requirements.txt",
    ):
        assert name in error.message


# --- What is wrong is named with file and line ---

ENTRY = {"main.py": ""}


@pytest.mark.parametrize(
    ("files", "begins"),
    [
        ({"pyproject.toml": "[project]\nname = \n"}, "pyproject.toml:2: this is not TOML"),
        ({"pyproject.toml": "project = 1\n"}, "pyproject.toml: project is not a table"),
        (
            {"pyproject.toml": '[project]\nrequires-python = "3.x"\n'},
            "pyproject.toml:2: '3.x' is not a range",
        ),
        (
            {"pyproject.toml": '[project]\ndependencies = [\n  "a b"]\n'},
            "pyproject.toml:3: 'a b' is not a requirement",
        ),
        ({"environment.yml": "a: [\nb: }\n"}, "environment.yml:2: this is not YAML"),
        ({"environment.yml": "a: 2024-13-45\n"}, "environment.yml: this is not YAML"),
        (
            {"environment.yml": "[" * 20_000},
            "environment.yml:1: this is not YAML: exceeded maximum",
        ),
        ({"pyproject.toml": f"a = {'1' * 5000}\n"}, "pyproject.toml: this is not TOML"),
        ({"environment.yml": "name: a\n"}, "environment.yml: it has no list of dependencies"),
        (
            {"requirements.txt": "numpy\n\ntorch=2\n"},
            "requirements.txt:3: 'torch=2' is not a requirement",
        ),
        (
            {"requirements.txt": "-r ../base.txt\n"},
            "requirements.txt:1: '../base.txt' leads out of the source",
        ),
        ({"requirements.txt": "-r base.txt\n"}, "requirements.txt:1: the build sees no 'base.txt'"),
        (
            {"requirements.txt": "a @ git+ssh://git@host/a\n"},
            "requirements.txt:1: the build has no ssh key",
        ),
        ({".python-version": "\nmyenv\n"}, ".python-version:2: 'myenv' is not a version"),
        ({".python-version": "2.7\n"}, ".python-version:1: '2.7' is not a version"),
        ({"runtime.txt": "3.11\n"}, "runtime.txt:1: '3.11' is not a version"),
        ({"setup.py": "setup(\n\n  a b)\n"}, "setup.py:3: this is not Python"),
        (
            {"setup.cfg": "[options]\ninstall_requires = a\n[options\n"},
            "setup.cfg:3: this is not an INI file",
        ),
        (
            {"main.py": "# /// script\n# dependencies = [\n# ///\n"},
            "main.py:1: the block of metadata is not TOML",
        ),
        ({"Pipfile": ""}, "The project declares dependencies that nothing here reads: Pipfile"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_with_its_line(
    tmp_path: Path, files: dict[str, str], begins: str
) -> None:
    assert fault(tmp_path, ENTRY | files).message.startswith(begins)


def test_requirements_in_utf16_are_read_as_pip_and_uv_read_them(tmp_path: Path) -> None:
    """PowerShell's `>` writes them."""
    made(tmp_path / "source", ENTRY)
    (tmp_path / "source/requirements.txt").write_bytes("-r more.txt\r\n".encode("utf-16"))
    (tmp_path / "source/more.txt").write_bytes("numpy\r\n".encode("utf-16-be"))
    assert "more.txt:1: there is a NUL" in fault(tmp_path, {}).message
    (tmp_path / "source/more.txt").write_bytes("numpy\r\n".encode("utf-16"))
    assert "COPY requirements.txt more.txt ./" in text(tmp_path, {})


def test_toml_in_utf16_is_refused_since_installers_refuse_it(tmp_path: Path) -> None:
    made(tmp_path / "source", ENTRY)
    (tmp_path / "source/pyproject.toml").write_bytes("[project]\n".encode("utf-16"))
    assert fault(tmp_path, {}).message == "pyproject.toml:1: this is not UTF-8"


@pytest.mark.parametrize(
    "line",
    ["--index-url https://me:hunter2@host/simple", "a @ git+https://ghp_hunter2@github.com/a/b"],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    error = fault(tmp_path, ENTRY | {"requirements.txt": f"{line}\n"})
    assert error.message.startswith("requirements.txt:1: there is a password")
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"python": "2.7"}, "'2.7' is not a version of Python"),
        ({"base": "a b"}, "'a b' is not an image reference"),
        ({"base": "a\nRUN rm -rf /"}, "is not an image reference"),
        ({"base": "python:3", "accelerator": "cuda"}, "Both a base image and an accelerator"),
        ({"accelerator": "cuda12"}, "There is no accelerator 'cuda12'"),
        ({"accelerator": "cuda", "uv": "pip"}, "has no pip"),
        ({"entrypoint": ()}, "The entry point is empty"),
    ],
)
def test_a_wish_that_cannot_be_met_is_an_error(
    tmp_path: Path, wishes: dict[str, Any], message: str
) -> None:
    assert message in fault(tmp_path, ENTRY | {"requirements.txt": "numpy\n"}, **wishes).message


def test_a_member_of_a_workspace_alone_is_an_error(tmp_path: Path) -> None:
    member = UV + "\n[tool.uv.sources]\nfeatures = { workspace = true }\n"
    error = fault(tmp_path, ENTRY | {"pyproject.toml": member})
    assert error.message.startswith("pyproject.toml:8: features is in the workspace")


# --- Names that nobody vouches for ---


@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20
    ),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        min_size=1,
        max_size=3,
    ),
)
def test_no_name_makes_an_instruction_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, name: str, words: list[str]
) -> None:
    """Whatever a wheel and the words of the entry point are called, there are as many instructions
    as before.
    """
    top = tmp_path_factory.mktemp("source")
    (top / "main.py").write_text("")
    (top / "requirements.txt").write_text("numpy\n")
    plain = [each.keyword for each in grammar.instructions(generate(top, Wishes()))]
    wanted = ("python", *words)
    (top / ".python-version").write_text("3.12 # RUN no\n")
    found = list(grammar.instructions(generate(top, Wishes(entrypoint=wanted))))
    assert [each.keyword for each in found] == plain
    assert tuple(json.loads(found[-1].text.removeprefix("ENTRYPOINT "))) == wanted
    (top / "requirements.txt").unlink()
    escaped = "".join(f"\\U{ord(each):08x}" for each in name)
    (top / "pyproject.toml").write_text(PACKAGE.replace("NAME", escaped))
    found = list(grammar.instructions(generate(top, Wishes())))
    assert json.loads(found[-1].text.removeprefix("ENTRYPOINT ")) == [name]
    assert found[-2].keyword == "USER"


@pytest.mark.parametrize(
    "name", ["a[1].txt", "a b.txt", "$HOME.txt", "a*.txt", 'a"b.txt', "-a.txt", "ü.txt"]
)
def test_an_odd_name_of_a_file_is_copied_as_it_is(tmp_path: Path, name: str) -> None:
    found = text(tmp_path, ENTRY | {"requirements.txt": f"-r {name}\n", name: "numpy\n"})
    (copy,) = [
        each.text
        for each in grammar.instructions(found)
        if "requirements.txt" in each.text and each.keyword == "COPY"
    ]
    words = json.loads(copy.removeprefix("COPY ")) if "[" in copy else copy.split()[1:]
    assert len(words) == 3


# --- The command ---


def test_the_command_prints_it(tmp_path: Path) -> None:
    source = made(tmp_path / "source", SHAPES["requirements"].files)
    arguments = [
        "dockerfile",
        str(source),
        "--accelerator",
        "cuda",
        "--entrypoint",
        "python train.py 'a b'",
    ]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    wishes = Wishes(accelerator="cuda", entrypoint=("python", "train.py", "a b"))
    assert done.stdout == generate(source, wishes)
    assert f"FROM {ACCELERATORS['cuda']}" in done.stdout


def test_the_command_says_where_a_quotation_is_open(tmp_path: Path) -> None:
    arguments = ["dockerfile", str(made(tmp_path, ENTRY)), "--entrypoint", "python 'a"]
    assert "has no end" in CliRunner().invoke(cli, arguments).output

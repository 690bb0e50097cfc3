"""`imagemill plan`: what a build will do, and why."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagemill.cli.commands import cli
from trees import make

DOCKERFILE = "FROM a\nCOPY lock.txt /\nRUN install\nCOPY . /app\n"


def planned(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return make(tmp_path / "a", {"Dockerfile": DOCKERFILE, "lock.txt": "1", "serve.py": "1"})


@pytest.fixture
def after(tmp_path: Path) -> Path:
    return make(tmp_path / "b", {"Dockerfile": DOCKERFILE, "lock.txt": "1", "serve.py": "2"})


def test_a_change_of_code_is_told_with_its_file(before: Path, after: Path) -> None:
    found = json.loads(planned(after, "--since", before, "--json").output)
    assert found["way"] == "code"
    assert [(step["line"], step["because"]) for step in found["steps"]] == [
        (2, None),
        (3, None),
        (4, "serve.py"),
    ]
    assert "again: serve.py" in planned(after, "--since", before).output


def test_another_dockerfile_builds_all_anew(before: Path, after: Path) -> None:
    (after / "Dockerfile").write_text(f"{DOCKERFILE}RUN more\n")
    found = planned(after, "--since", before)
    assert "another Dockerfile" in found.output
    assert "move line 5 (RUN)" in found.output


def test_without_an_earlier_image_all_is_new(after: Path) -> None:
    (after / "Dockerfile").write_text(DOCKERFILE.replace("FROM a", "FROM scratch"))
    found = json.loads(planned(after, "--json").output)
    assert (found["way"], found["why"]) == ("builder", "no earlier image is known")


def test_of_a_generated_dockerfile_no_line_is_to_be_moved(tmp_path: Path) -> None:
    files = {"requirements.txt": ".", "setup.py": "", "app.py": "1"}
    before = make(tmp_path / "a", files)
    after = make(tmp_path / "b", files | {"app.py": "2"})
    found = planned(after, "--since", before, "--json")
    plan = json.loads(found.stdout)
    assert (plan["way"], plan["move"]) == ("builder", None)
    assert "built by the builder, since requirements.txt:1" in found.stderr


def test_the_json_has_what_its_page_lists(after: Path, before: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/sources.md").read_text()
    table = page.split("| `--json` | what |", 1)[1].split("\n\n", 1)[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    found = json.loads(planned(after, "--since", before, "--json").output)
    assert list(found) == listed
    assert list(found["steps"][0]) == ["line", "instruction", "because"]

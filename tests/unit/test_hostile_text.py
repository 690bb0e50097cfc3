"""Text of others that would take for ever where a pattern or a parser goes over it again and again.

Each is large enough for the square of its length to be minutes of computing; what is linear takes
well under a second. The limit is of the processor's time, so that a busy machine changes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from imagemill.builders import engine_failures
from imagemill.builders.docker import failures as docker_failures
from imagemill.builders.graft import Refusal, recipe
from imagemill.builders.kaniko import executor_log
from imagemill.dockerfile import base_images, images, reads, syntax
from imagemill.dockerfile.generate import Wishes, generate
from imagemill.dockerfile.generate.project import Project
from imagemill.dockerfile.generate.requirements import Requirements
from imagemill.dockerfile.generate.static_metadata import script
from imagemill.errors import ImagemillError, UserError
from imagemill.registries.authorization import parse_challenges
from imagemill.sources.git import failures as git_failures
from imagemill.sources.git.url import parse
from imagemill.text import one_line, printable
from processor import at_most

SIZE = 100_000
SECONDS = 10.0


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    """Fail when the processor has worked for too long."""
    with at_most(SECONDS):
        yield


def filled(start: str, piece: str, end: str = "") -> str:
    return start + piece * (SIZE // len(piece)) + end


def instructions(text: str) -> None:
    for instruction in syntax.instructions(text):
        instruction.shown_as("RUN x")


BLANKS = " " * SIZE
DOCKERFILES = {
    "directive": f"#a={BLANKS}x y\nFROM scratch\n",
    "heredocs without an end": filled("FROM scratch\nRUN ", "<<A ") + "\n" + "x\n" * SIZE,
    "heredocs of many names": "FROM scratch\nRUN "
    + "".join(f"<<A{n} " for n in range(SIZE // 8))
    + "\n"
    + "x\n" * SIZE,
    "heredocs with a dash": filled("FROM scratch\nRUN ", "<<-A ") + "\n" + "\tx\n" * SIZE,
    "variables": filled("FROM scratch\nRUN echo ", "${"),
    "backslashes": filled("FROM scratch\nRUN ", "\\ "),
    "blanks behind a backslash": f"FROM scratch\nRUN \\{BLANKS}x\n",
    "flags": filled("FROM ", "--a ") + "x y z\n",
    "names": filled("FROM scratch\nRUN ", "git -C a "),
    "one name within another": filled("FROM scratch\nRUN ", "git -C "),
    "quotes": filled("FROM scratch\nARG ", 'a="'),
    "nested variables": filled("ARG a\nFROM ", "${a:-$"),
    "quotes of variables": filled("FROM scratch\nENV a=", '""\\"') + "\nCOPY $a /\n",
    "variables that double": "FROM scratch\nENV a=xx\n"
    + "ENV a=$a$a\n" * 50
    + filled("COPY ", "$a", " /\n"),
    "variables of variables": filled("FROM scratch\nENV a=", "$a", "\n") + "COPY $a /\n",
}


@pytest.mark.parametrize("text", DOCKERFILES.values(), ids=DOCKERFILES)
@pytest.mark.parametrize(
    "read",
    [
        instructions,
        syntax.stages,
        base_images.stages,
        lambda text: images.images(text, {}),
        reads.reads_git,
        lambda text: recipe.read(text, None),
    ],
    ids=["instructions", "stages", "base images", "images", "reads", "recipe"],
)
def test_dockerfiles(text: str, read: Callable[[str], Any]) -> None:
    with suppress(ImagemillError, Refusal):
        read(text)


REQUIREMENTS = {
    "blanks": f"a{BLANKS}b",
    "blanks before an at": f"a{BLANKS}@",
    "brackets": filled("a", "[b,"),
    "specifiers": filled("a", ">=1,"),
    "comments": filled("a ", " #"),
    "options": filled("a", " -"),
    "parentheses": filled("a; ", "("),
    "continued": filled("a", "\\\n"),
    "an option": f"--a{BLANKS}b",
}


@pytest.mark.parametrize("text", REQUIREMENTS.values(), ids=REQUIREMENTS)
def test_requirements(tmp_path: Path, text: str) -> None:
    (tmp_path / "requirements.txt").write_text(text)
    with suppress(UserError):
        Requirements().read(Project(tmp_path), "requirements.txt")


@pytest.mark.parametrize(
    "text",
    [filled("a", ".a", "=1"), filled("[a", '."a"', "]"), filled("x=", "["), "x={a=" * 40_000],
)
def test_toml(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(UserError):
        Project(tmp_path).toml("pyproject.toml")


def test_large_file_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(UserError, match="larger than 256 KiB"):
        Project(tmp_path).toml("pyproject.toml")


FILES = {
    "INI": ("setup.cfg", filled("[options]\ninstall_requires =\n", "\\\na\n")),
    "YAML": ("environment.yml", filled("dependencies:\n", "- a=1\n")),
    "a command": ("Procfile", filled("web: ", "-")),
    "MLflow's command": (
        "MLproject",
        f"entry_points: {{main: {{command: {'-' * SIZE}}}}}\npython_env: setup.cfg\n",
    ),
    "a long word": (".python-version", "9" * SIZE),
}


def test_code_that_may_be_run_is_looked_through_within_bounds(tmp_path: Path) -> None:
    names = [f"a{number}.py" for number in range(20)]
    for name in names:
        (tmp_path / name).write_text(filled("__main__;", "a;"))
    (tmp_path / "setup.py").write_text(f"from setuptools import setup\nsetup(py_modules={names})\n")
    with pytest.raises(UserError, match="not clear what the image is to run"):
        generate(tmp_path, Wishes())


@pytest.mark.parametrize(("name", "text"), FILES.values(), ids=FILES)
def test_projects(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "main.py").touch()
    (tmp_path / "setup.py").touch()
    (tmp_path / "setup.cfg").touch()
    (tmp_path / name).write_text(text)
    said = ""
    try:
        generate(tmp_path, Wishes())
    except UserError as error:
        said = error.message
    assert len(said) < 10_000


@pytest.mark.parametrize("text", [filled("", "# /// script\n"), filled("# /// script\n", "#\n")])
def test_metadata_of_scripts(tmp_path: Path, text: str) -> None:
    (tmp_path / "main.py").write_text(text)
    with suppress(UserError):
        script(Project(tmp_path), "main.py")


@pytest.mark.parametrize(
    "header",
    [
        "a" * SIZE,
        filled("Bearer ", "a=b,"),
        filled("Bearer ", "a "),
        filled("", 'Basic a="'),
        filled("Bearer ", 'a="\\'),
    ],
)
def test_challenges(header: str) -> None:
    parse_challenges([header] * 100)


SAID = {
    "git": lambda text: git_failures.failure(parse("git+https://github.com/a/b").remote, text),
    "engine": lambda text: engine_failures.registry_failure(
        text, engine_failures.Doing("Pushing", "r.example")
    ),
    "executor": lambda text: executor_log.explain(text.split("\n"), 1, "r.example/a:1"),
    "immutable": engine_failures.IMMUTABLE_TAG.search,
    "target": docker_failures._TARGET.search,
    "base": docker_failures._BASE.match,
    "step": docker_failures._STEP.match,
    "one line": one_line,
    "printable": printable,
}
TEXTS = {
    "load key": filled("", "load key "),
    "file name": filled("", "unable to create file "),
    "protocol": filled("", "protocol "),
    "tag": filled("", "tag 'x' already exists in "),
    "target": filled("", "target stage "),
    "brackets": filled("", "[[["),
    "slashes": filled("[", "a/"),
    "manifests": filled("GET https://h/v2/", "x/manifests/"),
    "context": filled("", "stat /kaniko/buildcontext/"),
    "level": filled("", 'level=fatal msg="'),
    "error": filled("error building image", ": "),
    "escapes": filled("", "\x1b[1"),
    "titles": filled("", "\x1b]0;"),
    "quotes": filled("", '"'),
    "blanks": BLANKS + "x",
    "word": "a" * SIZE,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("read", SAID.values(), ids=SAID)
def test_what_programs_say(text: str, read: Callable[[str], Any]) -> None:
    read(text)

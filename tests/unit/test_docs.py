"""What the docs name is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("imagemill", "tasks", "worker", "chaos", "benchmarks", "scripts")
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "configs").glob("*.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_files_that_whoever_extends_needs_are_there() -> None:
    paths = re.findall(r"`((?:imagemill|tasks|worker|tests)/[\w/.]*)`", extending())
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_places_that_code_and_pages_name_are_there() -> None:
    """But for what lies in the wheel alone, and what decisions speak of, which are never rewritten."""
    texts = [page for page in PAGES if "adr" not in page.parts]
    texts += [file for folder in CODE for file in (ROOT / folder).rglob("*.py")]
    named = r"(?<![\w/.-])(?:imagemill|tasks|worker|tests|chaos|benchmarks)/[\w/]*[\w](?:\.(?:py|md|json)\b)?"
    gone = {
        f"{text.relative_to(ROOT)}: {path}"
        for text in texts
        for path in re.findall(named, text.read_text())
        if not (ROOT / path).exists() and not path.startswith("imagemill/service")
    }
    assert gone == set()


def test_modules_that_a_package_lists_are_there() -> None:
    listed = 0
    for package in sorted((ROOT / "imagemill").rglob("__init__.py")):
        for line in (ast.get_docstring(ast.parse(package.read_text())) or "").splitlines():
            if found := re.match(r"(\w+(?:, \w+)*) {2,}\w", line):
                names = found[1].split(", ")
                listed += len(names)
                there = {path.stem for path in package.parent.iterdir()}
                assert set(names) <= there, f"{package}: {set(names) - there}"
    assert listed > 25


def extending() -> str:
    return (ROOT / "docs/extending.md").read_text()

"""What the docs name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


def extending() -> str:
    return (ROOT / "docs/extending.md").read_text()

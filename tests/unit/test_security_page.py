"""Each test that docs/security.md names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")


def test_each_promise_has_its_test() -> None:
    named = re.findall(r"`((?:unit|contract|integration)/[\w/]+\.py)::(\w+)`", PAGE)
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^\s*def {test}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)
    ]
    assert len(named) > 30
    assert missing == []

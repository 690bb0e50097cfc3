"""Each command in the README and in docs/ is one that the command line takes; what can be run is run
by tests/integration/test_documented_blocks.py.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from imagemill.cli.commands import cli

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "configs" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> Iterator[tuple[str, str]]:
    """Page and line of each command in a block, without its comment."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if match := re.match(
                r"(?:ID=\$\(|\$ )?(imagemill (?:[^# ]|\S#| (?! *#))*?)\)?(?:\s+#.*)?$", line
            ):
                yield page.name, match[1]


COMMANDS = sorted(set(commands()))


def test_there_are_some() -> None:
    assert {page for page, _ in COMMANDS} >= {"README.md", "sources.md"}


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda text: text)
def test_command_is_taken_as_it_is_documented(page: str, line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word not in ("…", "...")]
    command: click.Command = cli
    context = None
    while isinstance(command, click.Group):
        options = []
        while words[0].startswith("--"):
            options += [words.pop(0), words.pop(0)]
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"{page}: {line}"
        context = command.make_context(command.name, [*options, words.pop(0)], parent=context)
        command = found
    command.make_context(command.name, words, parent=context)

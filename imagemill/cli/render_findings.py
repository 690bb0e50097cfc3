"""What the doctor finds, for people or as JSON."""

from collections.abc import Iterable
from dataclasses import asdict

from rich.text import Text

from imagemill.cli.render import json_
from imagemill.cli.terminal import console
from imagemill.doctor import Finding, Verdict
from imagemill.text import printable

_INDENT = 9


def show(found: Iterable[Finding], *, as_json: bool) -> bool:
    """Show the findings as they come; returns whether nothing has failed."""
    shown = []
    for finding in found:
        shown.append(finding)
        if not as_json:
            _finding(finding)
    if as_json:
        json_([asdict(finding) for finding in shown])
    return all(finding.verdict is not Verdict.FAILED for finding in shown)


def _finding(finding: Finding) -> None:
    colour = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red"}[
        finding.verdict
    ]
    out = console()
    verdict = finding.verdict.ljust(_INDENT)
    out.print(Text.assemble((verdict, colour), f"{finding.check}: {_indented(finding.message)}"))
    if finding.hint:
        out.print(Text.assemble(" " * _INDENT, ("hint: ", "cyan"), _indented(finding.hint)))
    for grant in finding.grants:
        out.print(Text.assemble(" " * _INDENT, ("grant: ", "cyan"), _indented(grant)))


def _indented(text: str) -> str:
    """Lines after the first one begin where the check's name does."""
    return printable(text).replace("\n", "\n" + " " * _INDENT)

"""What the doctor finds, for people or as JSON."""

from collections.abc import Iterable
from dataclasses import asdict

from rich.text import Text

from imagemill.cli.showing import json_
from imagemill.cli.terminal import console, printable
from imagemill.doctor import Finding, Verdict


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
    colour = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red"}[finding.verdict]
    out = console()
    out.print(Text.assemble((f"{finding.verdict:<9}", colour), f"{finding.check}: {printable(finding.message)}"))
    if finding.hint:
        out.print(Text.assemble(" " * 9, ("hint: ", "cyan"), printable(finding.hint)))

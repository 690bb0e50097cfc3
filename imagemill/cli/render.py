"""Reports, states and configs, for people or as JSON."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagemill.cli.terminal import error, warn, write
from imagemill.errors import UserError
from imagemill.messages import BuildReport, BuildStatus, BuildSummary, State
from imagemill.text import one_line, printable, shortened

if TYPE_CHECKING:
    from imagemill.builders.graft.planning import Plan

STEPS = {
    State.QUEUED: "queue",
    State.LOADING: "load config",
    State.HASHING: "hash source",
    State.CHECKING: "check registry",
    State.UPLOADING: "upload context",
    State.BUILDING: "build",
    State.PUSHING: "push",
    State.VERIFYING: "verify",
    State.REPORTING: "report",
}
"""The steps as people know them."""


def json_(data: Any) -> None:
    """Print data as JSON; in ASCII, since a terminal would obey some characters beyond it."""
    json.dump(data, sys.stdout, indent=2)
    print(flush=True)


def report(
    done: BuildReport,
    *,
    as_json: bool,
    log_shown: bool = False,
    kept: bool = False,
    alone: bool = False,
    quiet: bool = False,
) -> None:
    """How a build ended: the image on standard output; on standard error warnings, and a failure:
    the last log lines, the step, the reason and the hint.

    `alone` says that nothing but the image goes to standard output, `quiet` that no more is told of
    a build that has succeeded, `log_shown` that the log need
    not be told again, `kept` that a service has it for `imagemill logs`.
    """
    if as_json:
        json_(done.dump())
    for warning in done.warnings:
        warn(warning)
    if done.error is not None:
        step = f"{STEPS[done.error.state]}: " if done.error.state else ""
        # Where somebody has cancelled it, the log does not lead to the reason.
        log = () if log_shown or done.status == "cancelled" else done.error.log
        whole_log = f"`imagemill logs {done.id}` has the whole log" if kept and log else ""
        error(
            f"{step}{done.error.message}",
            "; ".join(filter(None, (done.error.hint, whole_log))),
            log,
            done.error.field,
        )
    elif not as_json:
        if alone:
            print(printable(done.image or ""), flush=True)
        if not quiet:
            _table(_facts(done), stderr=alone)


def write_files(done: BuildReport, *, iidfile: Path | None, metadata_file: Path | None) -> None:
    """Write what became of a build as docker does: the image's digest, and as JSON metadata with the
    keys of BuildKit, and the whole report.
    """
    metadata = {
        "containerimage.digest": done.digest,
        "image.name": ",".join(done.tags),
        "imagemill.report": done.dump(),
    }
    texts = {iidfile: done.digest or "", metadata_file: f"{json.dumps(metadata, indent=2)}\n"}
    for path, text in texts.items():
        if path is None:
            continue
        try:
            path.write_text(text)
        except OSError as failure:
            raise UserError(
                f"The image is built, but {path} cannot be written: {failure.strerror}",
                "give a path that can be written",
            ) from None


def status(known: BuildStatus, *, as_json: bool) -> None:
    """Where a build is: its state, and its steps with their times."""
    if as_json:
        json_(known.dump())
        return
    state = (
        f"{known.state}, being cancelled"
        if known.cancelling and known.report is None
        else known.state
    )
    _table([("build", known.id), ("state", state)])
    for step in known.steps:
        took = seconds((step.ended or time.time()) - step.started)
        print(f"  {STEPS[step.state]:<16}{took:>9}{'' if step.ended else ' …'}")
    if known.report is not None:
        report(known.report, as_json=False, kept=True)


def builds(found: Sequence[BuildSummary], *, as_json: bool) -> None:
    """Print builds, a line each: when they began, how they are, and what they came to."""
    if as_json:
        json_([each.dump() for each in found])
        return
    for each in found:
        began = datetime.fromtimestamp(each.begun).strftime("%d %b %H:%M:%S")
        took = seconds(each.seconds if each.seconds is not None else time.time() - each.begun)
        what = each.error or each.image or each.destination or each.source
        print(f"{each.id}  {began}  {each.state.lower():<10}{took:>9}  {one_line(what)}")


def cancelled(known: BuildStatus, *, had_ended: bool, as_json: bool) -> None:
    """Print what became of a build that was to be cancelled."""
    if as_json:
        json_(known.dump())
    elif had_ended:
        print(f"The build had ended before: {known.state}")
    elif known.report is None:
        print(f"The build is {known.state} and stops as soon as a worker looks at it")
    else:
        print(f"The build has ended: {known.state}")


_WAYS = {
    "nothing": "nothing",
    "code": "layers of code are made anew on the earlier image, without a builder",
    "builder": "the builder builds",
}
_BEFORE = {"code": "without a builder", "builder": "by the builder"}


def plan(found: "Plan", *, as_json: bool) -> None:
    """Print what a build will do: the way, the instructions, and what to change."""
    if as_json:
        json_(found.dump())
        return
    rows = [("plan", _WAYS[found.way]), ("why", found.why)]
    if found.sent is not None:
        rows.append(("packed", f"{found.sent:,} bytes"))
    if found.before:
        took = (f"{seconds(each.seconds)} {_BEFORE[each.way]}" for each in found.before)
        rows.append(("before", ", ".join(took)))
    if found.move:
        rows.append(("hint", found.move))
    _table(rows)
    for step in found.steps:
        print(f"  {step.line:>4}  {shortened(step.instruction, 80)}")
        if step.because:
            print(f"        again: {printable(step.because)}")


def launch_config(described: dict[str, Any], *, as_json: bool) -> None:
    """Print a launch config as `imagemill.config.describe` has it."""
    if as_json:
        json_(described)
        return
    import yaml

    write((f"# {printable(described['file'] or 'no file was found: all defaults')}", "dim"))
    write(printable(yaml.safe_dump(described["config"], sort_keys=False).rstrip()))
    for warning in described["warnings"]:
        warn(warning)


def _table(rows: Iterable[tuple[str, str]], *, stderr: bool = False) -> None:
    for name, value in rows:
        write((f"{name:<7}", "bold"), printable(value), stderr=stderr)


def _facts(done: BuildReport) -> Iterable[tuple[str, str]]:
    yield "image", done.image or ""
    yield from (("tag", tag) for tag in done.tags)
    made = f"by {done.builder}" if done.built else "no, it was there already"
    if done.grafted:
        made = "of the earlier image, without a builder"
    yield "built", f"{made}, in {seconds(done.seconds)}"
    if done.not_grafted:
        yield "", f"not of an earlier image: {done.not_grafted}"


def seconds(duration: float) -> str:
    """Return a duration for people: `0.3 s`, `2 min 05 s`."""
    minutes, rest = divmod(round(duration, 1), 60)
    return f"{minutes:.0f} min {rest:02.0f} s" if minutes else f"{rest:.1f} s"

"""`python -m chaos`: runs matrix and storms, prints what came of them, and writes docs/chaos.md."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from chaos import matrix, storm
from chaos.faults import FAULTS
from chaos.history import save
from chaos.site import ROOT, site

PAGE = ROOT / "docs/chaos.md"


def main() -> int:
    """Run what was asked for; 1 if anything was wrong."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        return {"matrix": _matrix, "storm": _storm}[asked.what](asked, Path(name))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("what", choices=("matrix", "storm"))
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--share", type=float, default=1.0, help="of the matrix's cells (0 to 1)")
    parser.add_argument("--only", default="", help="cells whose name holds this text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="that a storm lasts")
    parser.add_argument("--broker-every", type=float, default=0.0, help="seconds between its kills")
    parser.add_argument("--history", type=Path, help="where to keep what was seen, as JSON lines")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    return parser.parse_args()


def _matrix(asked: argparse.Namespace, folder: Path) -> int:
    outcomes = []
    chosen = [cell for cell in matrix.cells(asked.share, asked.seed) if asked.only in str(cell)]
    with site(folder, broker=asked.broker) as running:
        running.start()
        for outcome in matrix.run(running, chosen):
            outcomes.append(outcome)
            said = "; ".join(outcome.wrong) or "ok"
            print(f"{outcome.cell!s:44} {outcome.seconds:6.1f} s  {said}", flush=True)
        if asked.history:
            save(running.history, asked.history)
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    print(f"{len(outcomes)} cells, {len(wrong)} with something wrong")
    if asked.write:
        PAGE.write_text("\n".join(_page(asked, outcomes)) + "\n")
    return bool(wrong)


def _storm(asked: argparse.Namespace, folder: Path) -> int:
    with site(folder, broker=asked.broker) as running:
        running.start(light=3)
        what = storm.Storm(asked.seconds, broker_every=asked.broker_every, seed=asked.seed)
        wrong = storm.run(running, what)
        if asked.history:
            save(running.history, asked.history)
        builds = sum(type(event).__name__ == "Submitted" for event in running.history)
    print(*wrong, f"{builds} builds, {len(wrong)} things wrong", sep="\n")
    return bool(wrong)


def _page(asked: argparse.Namespace, outcomes: Iterable[matrix.Outcome]) -> list[str]:
    """The page of a run of the matrix: a row a point, a column a fault."""
    found = {str(outcome.cell): outcome for outcome in outcomes}
    lines = [
        "# What was broken, and what became of it",
        "",
        f"`python -m chaos matrix`, {time.strftime('%Y-%m-%d')}, {asked.broker}, docker builder: "
        f"{len(found)} of {len(matrix.cells())} cells, chosen by seed {asked.seed}. Each is a "
        "build that stands still at a point of a step while something is done to the service; *ok* "
        "is one right report, the image in the registry, no two builders at once, and a plain "
        "Celery caller that is told the same.",
        "",
        "| step/point | " + " | ".join(FAULTS) + " |",
        "| --- |" + " --- |" * len(FAULTS),
    ]
    for step in matrix.STEPS:
        for point in matrix.POINTS:
            row = [found.get(f"{step}/{point} {fault}") for fault in FAULTS]
            if any(row):
                said = ["" if not each else "; ".join(each.wrong) or "ok" for each in row]
                lines.append(f"| {step}/{point} | " + " | ".join(said) + " |")
    return lines


if __name__ == "__main__":
    sys.exit(main())

"""`python -m chaos`: runs matrix, storms and rolls, prints what came of them, and writes docs/chaos.md."""

import argparse
import signal
import statistics
import sys
import tempfile
from pathlib import Path

from chaos import ROOT, matrix, roll, storm
from chaos.builders import BUILDERS
from chaos.history import save, violations
from chaos.page import Run, written
from chaos.site import Site, site

PAGE = ROOT / "docs/chaos.md"


def main() -> int:
    """Run what was asked for; 1 if anything was wrong."""
    asked = _arguments()
    # Servers end with the block, also where somebody ends us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        site(Path(name), builder=asked.builder, broker=asked.broker) as running,
    ):
        run = {"matrix": _matrix, "storm": _storm, "roll": _roll}[asked.what](asked, running)
        if asked.history:
            save(running.history, asked.history)
    wrong = violations(run.history, late=None if run.outcomes else storm.LATE)
    print(*wrong, f"{len(wrong)} things wrong", sep="\n")
    if asked.write:
        PAGE.write_text(written(PAGE.read_text(), run))
    return bool(wrong)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("what", choices=("matrix", "storm", "roll"))
    parser.add_argument("--builder", choices=BUILDERS, default="docker")
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--share", type=float, default=1.0, help="of the matrix's cells (0 to 1)")
    parser.add_argument("--only", default="", help="cells whose name holds this text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="that a storm lasts")
    parser.add_argument(
        "--servers-every", type=float, default=0.0, help="seconds between two kills of a server"
    )
    parser.add_argument("--builds", type=int, default=roll.Roll.builds, help="of a roll")
    parser.add_argument("--history", type=Path, help="where to keep what was seen, as JSON lines")
    parser.add_argument("--write", action="store_true", help=f"write it to {PAGE.name}")
    return parser.parse_args()


def _matrix(asked: argparse.Namespace, running: Site) -> Run:
    chosen = matrix.batches(asked.builder, asked.broker, share=asked.share, seed=asked.seed)
    wanted = [[cell for cell in batch if asked.only in str(cell)] for batch in chosen]
    outcomes = []
    running.start()
    for outcome in matrix.run(running, [batch for batch in wanted if batch]):
        outcomes.append(outcome)
        said = "; ".join(outcome.wrong) or "ok"
        print(f"{outcome.cell!s:44} {outcome.seconds:6.1f} s  {said}", flush=True)
    running.finish()
    return Run("matrix", asked.builder, asked.broker, running.history, outcomes, asked.seed)


def _storm(asked: argparse.Namespace, running: Site) -> Run:
    running.start(light=3, concurrency=2, builders=2)
    wanted = storm.Storm(asked.seconds, servers_every=asked.servers_every, seed=asked.seed)
    storm.run(running, wanted)
    what = f"storm of {asked.seconds:.0f} s"
    if asked.servers_every:
        what += f", a server killed every {asked.servers_every:.0f} s"
    return Run(what, asked.builder, asked.broker, running.history)


def _roll(asked: argparse.Namespace, running: Site) -> Run:
    running.start(light=2, concurrency=2)
    wanted = roll.Roll(asked.builds)
    exits = roll.run(running, wanted)
    median, most = statistics.median(exits), max(exits)
    print(f"{len(exits)} workers ended within {median:.1f} s (median) and {most:.1f} s (at most)")
    what = f"roll of {wanted.builds} builds, a worker told to end every {wanted.every:.0f} s"
    return Run(what, asked.builder, asked.broker, running.history)


if __name__ == "__main__":
    sys.exit(main())

"""Many builds at once while workers are told to end, one after the other, as an upgrade does."""

import itertools
import os
import signal
import time
from dataclasses import dataclass
from subprocess import Popen

from chaos.site import Site


@dataclass(frozen=True)
class Roll:
    """What a roll is made of: `builds`, each of a project of its own, of which `rate` a second are
    asked for while fewer than `most` are open; `every` so many seconds a worker is told to end, and
    is started again once it has.
    """

    builds: int = 200
    every: float = 20.0
    rate: float = 2.0
    most: int = 20


def run(site: Site, roll: Roll) -> list[float]:
    """Let it pass over the service; return how many seconds each worker took to end."""
    exits: list[float] = []
    ending: dict[Popen[bytes], float] = {}
    workers = itertools.cycle(site.workers)
    asked, next_end, next_build = 0, time.monotonic() + roll.every, 0.0
    while asked < roll.builds or site.open() or ending:
        now = time.monotonic()
        for process in [each for each in ending if each.poll() is not None]:
            exits.append(now - ending.pop(process))
        if now >= next_end and (asked < roll.builds or site.open()):
            next_end = now + roll.every
            worker = next(workers)
            if worker.process is not None and worker.ended() is None:
                site.broke("term", worker.name)
                worker.touched = True
                ending[worker.process] = now
                os.kill(worker.pid, signal.SIGTERM)
        if asked < roll.builds and now >= next_build and site.open() < roll.most:
            next_build = now + 1 / roll.rate
            site.submit(site.source())
            asked += 1
        else:
            time.sleep(0.02)
    site.broke("roll", mended=True)
    site.settle(120)
    site.finish()
    return exits

"""Many builds at once while workers and servers are killed at random."""

import random
import time
from dataclasses import dataclass

from chaos.history import violations
from chaos.site import REDELIVERY, Site

LATE = 15.0
"""Seconds after the last kill within which the last report must have come, at a redelivery of 6 s."""

assert REDELIVERY == 6


@dataclass(frozen=True)
class Storm:
    """What a storm is made of.

    `seconds` it lasts, a worker is killed `every` so many seconds, `rate` builds a second are asked
    for, over `sources` projects; `broker_every` is the time between two kills of the broker, 0: it
    lives.
    """

    seconds: float = 60.0
    every: float = 3.0
    rate: float = 5.0
    sources: int = 20
    broker_every: float = 0.0
    seed: int = 0


def run(site: Site, storm: Storm) -> list[str]:
    """Return what is wrong after the storm; the site's history holds all that was seen."""
    chance = random.Random(storm.seed)
    projects = [site.source(f"storm{number}", seconds=0.2) for number in range(storm.sources)]
    start = time.monotonic()
    next_kill, next_broker, submitted = storm.every, storm.broker_every or float("inf"), 0
    while (now := time.monotonic() - start) < storm.seconds:
        if now >= next_kill:
            next_kill += storm.every
            victim = chance.choice(site.workers)
            site.broke("kill_tree", victim.name)
            victim.kill()
        if now >= next_broker:
            next_broker += storm.broker_every
            site.broke("broker_restart")
            site.broker.kill()
            site.broker.start()
        if submitted < now * storm.rate:
            site.submit(chance.choice(projects))
            submitted += 1
        else:
            time.sleep(0.02)
    site.broke("storm", mended=True)
    site.settle(120)
    site.note_left_over()
    return violations(site.history, late=LATE)

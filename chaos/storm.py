"""Many builds at once while workers and servers are killed at random."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

from chaos.faults import broker_restart, redis_restart
from chaos.site import REDELIVERY, Site

LATE = 15.0
"""Seconds after the last kill within which the last report must have come, at a redelivery of 6 s."""

assert REDELIVERY == 6


@dataclass(frozen=True)
class Storm:
    """What a storm is made of.

    `seconds` it lasts, a worker is killed `every` so many seconds, `rate` builds a second are asked
    for while fewer than `most` are open; a share `new` of them is of a project of its own, the
    others are of the newest projects. `servers_every` is the time between two kills of the broker
    or of Redis, 0: they live.
    """

    seconds: float = 60.0
    every: float = 3.0
    rate: float = 5.0
    most: int = 20
    new: float = 0.1
    newest: int = 20
    servers_every: float = 0.0
    seed: int = 0


def run(site: Site, storm: Storm) -> None:
    """Let it pass over the service; the site's history holds all that was seen."""
    chance = random.Random(storm.seed)
    projects = [site.source() for _ in range(2)]
    start = time.monotonic()
    next_kill, next_server, next_build = storm.every, storm.servers_every or float("inf"), 0.0
    while (now := time.monotonic() - start) < storm.seconds:
        if now >= next_kill:
            next_kill = now + storm.every
            victim = chance.choice(site.workers)
            site.broke("kill_tree", victim.name)
            victim.kill()
        if now >= next_server:
            _kill_server(site, chance)
            next_server = time.monotonic() - start + storm.servers_every
        if now >= next_build and site.open() < storm.most:
            next_build = now + 1 / storm.rate
            site.submit(_project(site, storm, chance, projects))
        else:
            time.sleep(0.02)
    site.broke("storm", mended=True)
    site.settle(120)
    site.finish()


def _kill_server(site: Site, chance: random.Random) -> None:
    kills = [broker_restart] if site.broker is site.redis else [broker_restart, redis_restart]
    kill = chance.choice(kills)
    site.broke(kill.__name__)
    kill(site)


def _project(site: Site, storm: Storm, chance: random.Random, projects: list[Path]) -> Path:
    if chance.random() < storm.new:
        projects.append(site.source())
        return projects[-1]
    return chance.choice(projects[-storm.newest :])

"""What is done to a service: one function a fault, and the table of them.

Each takes the site and, where a step stands still, the process that it stands in; it does its work
and mends what it broke, or leaves that to the supervisor. Steps go on when it returns.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chaos.site import Site, Worker

AWAY = 8.0
"""Seconds for which a server is away: longer than a message's redelivery in these runs."""


@dataclass(frozen=True)
class Spot:
    """Where a step stands still: the process that runs it, and its worker."""

    child: int
    worker: Worker


Fault = Callable[[Site, Spot], None]


def kill_child(site: Site, spot: Spot) -> None:
    """Kill the pool's process that runs the step."""
    os.kill(spot.child, signal.SIGKILL)


def kill_main(site: Site, spot: Spot) -> None:
    """Kill the worker's main process; its children see it some time."""
    spot.worker.touched = True
    assert spot.worker.process is not None
    spot.worker.process.kill()


def kill_tree(site: Site, spot: Spot) -> None:
    """Kill all processes of the worker at once."""
    spot.worker.kill()


def term(site: Site, spot: Spot) -> None:
    """Ask the worker to end, as a rolling deployment does."""
    spot.worker.touched = True
    assert spot.worker.process is not None
    spot.worker.process.terminate()


def quit_(site: Site, spot: Spot) -> None:
    """Have the worker end at once, in good order."""
    spot.worker.touched = True
    assert spot.worker.process is not None
    spot.worker.process.send_signal(signal.SIGQUIT)


def broker_restart(site: Site, spot: Spot) -> None:
    """Kill the broker and start it again."""
    site.broker.kill()
    site.broker.start()


def broker_pause(site: Site, spot: Spot) -> None:
    """Let the broker hang for longer than a message's redelivery."""
    site.broker.pause()
    time.sleep(AWAY)
    site.broker.resume()


def registry_away(site: Site, spot: Spot) -> None:
    """Stop the registry, so that the proxy before it answers 502; start it again a while later."""
    site.registry.kill()
    site.proxy.fail_next(502, times=1_000_000)

    def mend() -> None:
        site.registry.start()
        site.proxy.clear()

    site.later(AWAY, mend)


def registry_500(site: Site, spot: Spot) -> None:
    """Let the registry fail three times."""
    site.proxy.fail_next(500, times=3)


def registry_429(site: Site, spot: Spot) -> None:
    """Let the registry have had enough of us for a moment, without saying for how long."""
    site.proxy.fail_next(429, times=3)


def registry_slow(site: Site, spot: Spot) -> None:
    """Let each answer of the registry take a second, for a while."""
    site.proxy.delay(1.0)
    site.later(AWAY, lambda: site.proxy.delay(0.0))


def registry_hangs(site: Site, spot: Spot) -> None:
    """Let the registry take connections and say nothing, for a while."""
    site.registry.pause()
    site.later(AWAY, site.registry.resume)


def engine_kill(site: Site, spot: Spot) -> None:
    """Kill the Docker engine and start it again; a machine's own engine is left alone."""
    if site.engine:
        site.engine.kill()
        site.engine.start()


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "kill_child": kill_child,
        "kill_main": kill_main,
        "kill_tree": kill_tree,
        "term": term,
        "quit": quit_,
        "broker_restart": broker_restart,
        "broker_pause": broker_pause,
        "registry_away": registry_away,
        "registry_500": registry_500,
        "registry_429": registry_429,
        "registry_slow": registry_slow,
        "registry_hangs": registry_hangs,
        "engine_kill": engine_kill,
    }
)

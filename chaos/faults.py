"""What is done to a service: one function a fault, and which of them a service can have.

Each takes the site and where steps stand still; it does its work, and mends what it broke, then or
later, or leaves that to the supervisor. Steps go on when it returns.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from redis import Redis

from chaos.cluster import Cluster
from chaos.site import Site, Worker

AWAY = 8.0
"""Seconds for which a server is away: longer than a message's redelivery in these runs."""


@dataclass(frozen=True)
class Spot:
    """Where a step of a build stands still: the process that runs it, and its worker."""

    child: int
    worker: Worker


Fault = Callable[[Site, Sequence[Spot]], None]


def kill_child(site: Site, spots: Sequence[Spot]) -> None:
    """Kill the pool's process that runs the step; a pool of threads has the worker's own."""
    for child, worker in {spot.child: spot.worker for spot in spots}.items():
        worker.touched |= child == worker.pid
        os.kill(child, signal.SIGKILL)


def kill_main(site: Site, spots: Sequence[Spot]) -> None:
    """Kill the worker's main process; its children see it some time."""
    _signal(spots, signal.SIGKILL)


def kill_tree(site: Site, spots: Sequence[Spot]) -> None:
    """Kill all processes of the worker at once."""
    for worker in _workers(spots):
        worker.kill()


def term(site: Site, spots: Sequence[Spot]) -> None:
    """Ask the worker to end, as a rolling deployment does."""
    _signal(spots, signal.SIGTERM)


def quit_(site: Site, spots: Sequence[Spot]) -> None:
    """Have the worker end at once, in good order."""
    _signal(spots, signal.SIGQUIT)


def _signal(spots: Sequence[Spot], number: signal.Signals) -> None:
    for worker in _workers(spots):
        worker.touched = True
        os.kill(worker.pid, number)


def _workers(spots: Sequence[Spot]) -> Iterable[Worker]:
    return {spot.worker.name: spot.worker for spot in spots}.values()


def broker_restart(site: Site, spots: Sequence[Spot] = ()) -> None:
    """Kill the broker and start it again."""
    site.broker.kill()
    site.broker.start()


def broker_pause(site: Site, spots: Sequence[Spot]) -> None:
    """Let the broker hang for longer than a message's redelivery."""
    site.broker.pause()
    site.later(AWAY, site.broker.resume)


def redis_restart(site: Site, spots: Sequence[Spot] = ()) -> None:
    """Kill the Redis of records and results, and start it again."""
    site.redis.kill()
    site.redis.start()


def redis_readonly(site: Site, spots: Sequence[Spot]) -> None:
    """Let Redis be a replica for a while, as at a failover: it ends what waits, and takes nothing."""
    redis = Redis.from_url(site.redis.url)
    redis.replicaof("127.0.0.1", "1")
    site.later(AWAY, lambda: redis.replicaof("NO", "ONE"))


def redis_full(site: Site, spots: Sequence[Spot]) -> None:
    """Let Redis have no memory left for a while."""
    redis = Redis.from_url(site.redis.url)
    redis.config_set("maxmemory", 1)
    site.later(AWAY, lambda: redis.config_set("maxmemory", 0))


def registry_away(site: Site, spots: Sequence[Spot]) -> None:
    """Stop the registry, so that the proxy before it answers 502; start it again a while later."""
    site.registry.kill()
    site.proxy.fail_next(502, times=1_000_000)

    def mend() -> None:
        site.registry.start()
        site.proxy.clear()

    site.later(AWAY, mend)


def registry_500(site: Site, spots: Sequence[Spot]) -> None:
    """Let the registry fail three times a build."""
    site.proxy.fail_next(500, times=3 * len(spots))


def registry_429(site: Site, spots: Sequence[Spot]) -> None:
    """Let the registry have had enough of us for a moment, without saying for how long."""
    site.proxy.fail_next(429, times=3 * len(spots))


def registry_slow(site: Site, spots: Sequence[Spot]) -> None:
    """Let each answer of the registry take a second, for a while."""
    site.proxy.delay(1.0)
    site.later(AWAY, lambda: site.proxy.delay(0.0))


def registry_hangs(site: Site, spots: Sequence[Spot]) -> None:
    """Let the registry take connections and say nothing, for a while."""
    site.registry.pause()
    site.later(AWAY, site.registry.resume)


def engine_kill(site: Site, spots: Sequence[Spot]) -> None:
    """Kill the Docker engine and start it again; a machine's own engine is left alone."""
    if site.engine:
        site.engine.kill()
        site.engine.start()


def api_restart(site: Site, spots: Sequence[Spot]) -> None:
    """Start the API server again: all streams break, and all is refused for a moment."""
    _cluster(site).server.restart(refusing=2.0)
    time.sleep(2.0)


def api_500(site: Site, spots: Sequence[Spot]) -> None:
    """Let the API server fail five times a build."""
    _cluster(site).server.fail_next(500, times=5 * len(spots))


def api_slow(site: Site, spots: Sequence[Spot]) -> None:
    """Let each answer of the API server take a second, for a while."""
    server = _cluster(site).server
    server.delay(1.0)
    site.later(AWAY, lambda: server.delay(0.0))


def api_hangs(site: Site, spots: Sequence[Spot]) -> None:
    """Let the API server take connections and say nothing, for a while."""
    server = _cluster(site).server
    site.later(0, lambda: server.hang(AWAY))


def _cluster(site: Site) -> Cluster:
    assert site.cluster is not None
    return site.cluster


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "kill_child": kill_child,
        "kill_main": kill_main,
        "kill_tree": kill_tree,
        "term": term,
        "quit": quit_,
        "broker_restart": broker_restart,
        "broker_pause": broker_pause,
        "redis_restart": redis_restart,
        "redis_readonly": redis_readonly,
        "redis_full": redis_full,
        "registry_away": registry_away,
        "registry_500": registry_500,
        "registry_429": registry_429,
        "registry_slow": registry_slow,
        "registry_hangs": registry_hangs,
        "engine_kill": engine_kill,
        "api_restart": api_restart,
        "api_500": api_500,
        "api_slow": api_slow,
        "api_hangs": api_hangs,
    }
)


def faults(builder: str, broker: str) -> tuple[str, ...]:
    """Return the names of the faults that a service with this builder and this broker can have."""
    absent = set()
    if broker == "redis":
        absent |= {"redis_restart"}  # it is the broker's
    if builder != "docker":
        absent |= {"engine_kill"}
    if builder != "kaniko":
        absent |= {"api_restart", "api_500", "api_slow", "api_hangs"}
    return tuple(name for name in FAULTS if name not in absent)

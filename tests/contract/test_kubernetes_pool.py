"""One worker supervises many builds at once: each gets its own result and log, over a bounded
number of connections.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from api_player import own_server
from builds import until
from imagemill.builders.kaniko.api import CONNECTIONS
from imagemill.builders.kaniko.logs import FOLLOWERS, Followers, PodLog
from imagemill.errors import BuildCancelled
from kaniko_builds import Object, PlayedCluster, RunningBuild, played_cluster

BUILDS = 120
WATCHES = 3
LINES = 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[PlayedCluster]:
    with played_cluster(tmp_path) as played:
        yield played


def source_hash(number: int) -> str:
    return f"{number:064x}"[::-1]


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def start(cluster: PlayedCluster) -> list[RunningBuild]:
    return [
        cluster.build(source_hash(number), build_id=f"build-{number}") for number in range(BUILDS)
    ]


def by_number(cluster: PlayedCluster) -> list[Object]:
    """The Jobs of all builds, in their order."""
    assert until(lambda: len(cluster.server.jobs()) == BUILDS)
    jobs = {
        job["metadata"]["annotations"]["dev.imagemill/build-id"]: job
        for job in cluster.server.jobs()
    }
    return [jobs[f"build-{number}"] for number in range(BUILDS)]


def connections(cluster: PlayedCluster) -> int:
    """How many connections to the API server are open."""
    port = urlsplit(cluster.server.url).port
    found = psutil.Process().net_connections("tcp")
    return sum(
        each.status == psutil.CONN_ESTABLISHED and bool(each.raddr) and each.raddr.port == port
        for each in found
    )


def own_lines(build: RunningBuild) -> list[str]:
    return [line for line in build.progress.lines if line.startswith("line")]


@own_server("a pod that no node runs has no log")
def test_many_builds_at_once_have_their_own_digests_and_whole_logs_over_few_connections(
    cluster: PlayedCluster,
) -> None:
    builds = start(cluster)
    jobs = by_number(cluster)
    pods = [cluster.server.run_pod(cluster.server.start_pod(job)) for job in jobs]
    assert until(lambda: cluster.server.connections.get("pods/log", 0) >= FOLLOWERS)
    watches = {kind: cluster.server.connections[kind] for kind in ("jobs", "pods", "events")}
    assert watches == {"jobs": 1, "pods": 1, "events": 1}
    most = 0
    for line in range(LINES):
        for number, pod in enumerate(pods):
            cluster.server.log(pod, [f"line {line} of {number}"])
        most = max(most, connections(cluster))
    for number, job in enumerate(jobs):
        cluster.server.finish(job, 0, digest(number))
        if number % LINES == 0:
            most = max(most, connections(cluster))
    assert [build.result() for build in builds] == [digest(number) for number in range(BUILDS)]
    for number, build in enumerate(builds):
        assert own_lines(build) == [f"line {line} of {number}" for line in range(LINES)]
    assert most <= WATCHES + FOLLOWERS + CONNECTIONS
    assert cluster.is_empty()
    assert until(lambda: cluster.streams() == 0)


@own_server("its API server cannot be made to fail")
def test_many_builds_survive_closed_and_forgotten_watches_and_a_server_in_trouble(
    cluster: PlayedCluster,
) -> None:
    builds = start(cluster)
    jobs = by_number(cluster)
    for job in jobs[: BUILDS // 2]:
        cluster.server.run_pod(cluster.server.start_pod(job))
    cluster.server.fail_next(503, 5, verb="watch")
    cluster.server.close_watches()
    for job in jobs[BUILDS // 2 :]:
        cluster.server.run_pod(cluster.server.start_pod(job))
    cluster.server.expire_watches()
    for number, job in enumerate(jobs):
        cluster.server.finish(job, 0, digest(number))
    assert [build.result() for build in builds] == [digest(number) for number in range(BUILDS)]


@own_server("a pod that no node runs has no log")
def test_one_connection_serves_several_logs_live_one_turn_after_the_other(
    cluster: PlayedCluster,
) -> None:
    build = cluster.build()
    job, first = cluster.run()
    pods = [first, *(cluster.server.run_pod(cluster.server.start_pod(job)) for _ in range(2))]
    followers = Followers(limit=1, turn=0.1)
    logs = [PodLog(cluster.api, pod["metadata"]["name"], "kaniko", lambda: None) for pod in pods]
    taken: list[list[str]] = [[], [], []]

    def all_have(count: int) -> bool:
        for lines, log in zip(taken, logs, strict=True):
            lines += log.take()
        return all(len(lines) >= count for lines in taken)

    for log in logs:
        followers.add(log)
    for count in range(0, 30, 10):
        for pod in pods:
            cluster.server.log(
                pod, [f"{pod['metadata']['name']} {count + line}" for line in range(10)]
            )
        assert until(lambda: all_have(count + 10))  # noqa: B023 (asked at once)
    for log in logs:
        log.close()
    for pod, lines in zip(pods, taken, strict=True):
        assert lines == [f"{pod['metadata']['name']} {line}" for line in range(30)]
    build.stop(BuildCancelled("the test is over"))
    assert isinstance(build.error(), BuildCancelled)

"""A server that is away for minutes while builds need it, with workers set as they are by default.

python -m chaos.outage registry 300
python -m chaos.outage engine 60
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import servers
from chaos import ROOT  # noqa: F401 (what the tests have is found from there on)
from imagemill.messages import State
from service import Service, service, until
from tasks.settings import Setup

BEGUN, LATER = 2, 4
"""Builds that are running when the server goes away, and those that come then."""

DOCKERFILE = """\
FROM scratch
COPY busybox app.txt /bin/
RUN ["/bin/busybox", "sleep", "5"]
"""


def project(folder: Path, number: int) -> Path:
    """Make a project that no other build has."""
    made = folder / f"project{number}"
    made.mkdir()
    shutil.copy(servers.busybox(), made / "busybox")
    (made / "app.txt").write_text(str(number))
    (made / "Dockerfile").write_text(DOCKERFILE)
    return made


@contextmanager
def outage(what: str) -> Iterator[tuple[Service, servers.Server, str]]:
    """A service set as it is by default, what is to go away, and the registry's address."""
    names = ("retry_backoff", "retry_backoff_max", "max_retries", "lock_lease", "wait_interval")
    defaults = {f"IMAGEMILL_{n.upper()}": str(Setup.model_fields[n].default) for n in names}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outage-")))
        redis = stack.enter_context(servers.redis_server(folder / "redis"))
        registry = stack.enter_context(servers.registry(folder / "registry"))
        engine = stack.enter_context(servers.engine(folder / "engine"))
        docker = {"IMAGEMILL_DOCKER_HOST": engine.url, "IMAGEMILL_DOCKER_CLI": servers.docker_cli()}
        running = stack.enter_context(service(redis, redis, "", folder, **docker, **defaults))
        running.start("light", queues="imagemill")
        running.start("docker", queues="imagemill.docker")
        yield running, {"registry": registry, "engine": engine}[what], registry.url


def main() -> int:
    """Print how the builds ended; 1 if any has failed."""
    what, seconds = sys.argv[1], float(sys.argv[2])
    with outage(what) as (running, broken, registry):
        client = running.client

        def submit(number: int) -> str:
            source = project(running.folder, number)
            return client.submit(source=str(source), destination=f"{registry}/outage{number}")

        builds = [submit(number) for number in range(BEGUN)]
        until(lambda: {client.status(each).state for each in builds} == {State.BUILDING}, "builds")
        broken.kill()
        builds += [submit(number) for number in range(BEGUN, BEGUN + LATER)]
        time.sleep(seconds)
        broken.start()
        back = time.monotonic()
        reports = [client.wait(build, timeout=600) for build in builds]
        tries = running.log.count("trying again")
    failed = [report for report in reports if report.status != "succeeded"]
    print(f"{what} away for {seconds:.0f} s: {len(reports) - len(failed)} of {len(reports)} builds")
    print(f"succeeded, the last {time.monotonic() - back:.0f} s after it was back; {tries} tries")
    print(*(report.error for report in failed), sep="\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

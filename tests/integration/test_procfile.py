"""The Procfile, run by honcho as a person would, builds what another process asks for and ends
without a trace.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import servers
from imagemill.client import Client
from imagemill.errors import ServiceUnreachable
from service import until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def environment(tmp_path: Path, engine: str, docker_cli: str) -> dict[str, str]:
    """All that the Procfile takes from outside: ports, places and the engine."""
    redis = servers.free_port()
    return {
        "PATH": f"{BIN}{os.pathsep}{Path(docker_cli).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "DOCKER_HOST": engine,
        "IMAGEMILL_BROKER": f"redis://127.0.0.1:{redis}/0",
        "IMAGEMILL_RUN_DIR": str(tmp_path / "run"),
        "IMAGEMILL_STATE_DIR": str(tmp_path / "state"),
        "IMAGEMILL_SOURCE_ROOTS": str(tmp_path),
        "REDIS_PORT": str(redis),
        "REGISTRY_PORT": str(servers.free_port()),
        "FLOWER_PORT": str(servers.free_port()),
    }


@pytest.fixture
def procfile(tmp_path: Path, environment: dict[str, str]) -> Iterator[servers.Server]:
    """Honcho with all processes of the Procfile, once each worker answers and Flower serves its
    page.
    """
    client = Client(environment["IMAGEMILL_BROKER"])

    def ready() -> bool:
        try:
            pools = {name.split("@")[0] for name in client.workers()}
        except ServiceUnreachable:
            return False
        return pools == {"light", "docker", "kaniko"} and page(
            f"localhost:{environment['FLOWER_PORT']}/healthcheck"
        )

    command = [
        str(BIN / "honcho"),
        "start",
        "--procfile",
        str(ROOT / "Procfile"),
        "--app-root",
        str(ROOT),
    ]
    with client, servers.Server("honcho", "", command, tmp_path, ready, environment) as server:
        yield server


def page(address: str) -> bool:
    with urllib.request.urlopen(f"http://{address}", timeout=5) as answer:
        return bool(answer.status == 200)


def test_the_procfile_builds_for_another_process_and_leaves_nothing(
    procfile: servers.Server, environment: dict[str, str], tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    repository = f"localhost:{environment['REGISTRY_PORT']}/hello"

    command = [str(BIN / "imagemill"), "build", str(project), "--destination", repository, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)

    assert report["built"]
    assert page(f"{repository.replace('/', '/v2/')}/manifests/{report['digest']}")
    os.kill(procfile.pid, signal.SIGTERM)
    until(
        lambda: not procfile.processes(),
        "the end of all processes",
        lambda: procfile.log.read_text(),
    )

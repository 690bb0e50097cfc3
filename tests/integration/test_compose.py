"""docker-compose.yml and the Procfile run the same processes, and the images that compose names are
pinned.
"""

import contextlib
import http.client
import re
import shlex
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

import servers
from imagemill.names import BUILD_TIMEOUT, POOLS

ROOT = Path(__file__).parents[2]


def compose() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(document, dict)
    return document


def procfile() -> dict[str, str]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))


def service_command(command: str | list[str]) -> list[str]:
    """The words from the program on, without where each keeps its files."""
    words = shlex.split(command) if isinstance(command, str) else command
    begin = next(at for at, word in enumerate(words) if word in ("celery", "imagemill"))
    end = words.index("--schedule") if "--schedule" in words else len(words)
    return words[begin:end]


def worker_queues() -> dict[str, tuple[str, ...]]:
    commands = {
        name: service_command(text) for name, text in procfile().items() if "--pool" in text
    }
    return {
        name: POOLS[words[words.index("--pool") + 1]].queues
        for name, words in commands.items()
        if "--pool" in words
    }


def test_compose_and_procfile_have_the_same_processes() -> None:
    assert set(compose()["services"]) == set(procfile())


@pytest.mark.parametrize("name", ["light", "docker", "kaniko", "beat", "flower"])
def test_compose_runs_the_command_of_the_procfile(name: str) -> None:
    assert service_command(compose()["services"][name]["command"]) == service_command(
        procfile()[name]
    )


def test_a_worker_is_given_the_time_that_its_builds_may_take() -> None:
    services = compose()["services"]
    assert services["docker"]["stop_grace_period"] == f"{BUILD_TIMEOUT / 60 + 1:.0f}m"
    assert {services[pool]["stop_grace_period"] for pool in ("light", "kaniko")} == {"30s"}


def test_each_queue_has_one_pool() -> None:
    queues = [queue for served in worker_queues().values() for queue in served]
    assert sorted(queues) == ["imagemill", "imagemill.docker", "imagemill.kaniko", "imagemill.noop"]


def test_all_pools_have_the_same_broker_and_the_same_contexts() -> None:
    pools = [compose()["services"][name] for name in worker_queues()]
    assert len({pool["environment"]["IMAGEMILL_BROKER"] for pool in pools}) == 1
    assert all("state:/var/lib/imagemill" in pool["volumes"] for pool in pools)


def test_only_the_docker_pool_has_the_engine() -> None:
    having = [
        name for name, service in compose()["services"].items() if "docker.sock" in str(service)
    ]
    assert having == ["docker"]


def test_flower_has_a_login_that_nobody_knows() -> None:
    """Compose refuses to start where the variable is not set, or is empty."""
    login = compose()["services"]["flower"]["environment"]["FLOWER_BASIC_AUTH"]
    assert login.startswith("${FLOWER_BASIC_AUTH:?")


def test_flower_lets_nobody_in_without_its_login(redis_url: str, tmp_path: Path) -> None:
    port = servers.free_port()
    celery = str(Path(sys.executable).parent / "celery")
    command = [celery, "-A", "worker.app", "flower", "--address=127.0.0.1", f"--port={port}"]
    environment = {"IMAGEMILL_BROKER": redis_url, "FLOWER_BASIC_AUTH": "me:secret"}

    def answer(path: str, login: str = "") -> int:
        head = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"} if login else {}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as asked:
            asked.request("GET", path, headers=head)
            return asked.getresponse().status

    def ready() -> bool:
        return answer("/healthcheck") == 200

    with servers.Server("flower", "", command, tmp_path, ready, environment):
        assert answer("/workers") == answer("/workers", "me:wrong") == 401
        assert answer("/workers", "me:secret") == 200


def test_only_this_machine_reaches_what_has_a_port() -> None:
    services = compose()["services"].values()
    ports = [port for service in services for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "--address=127.0.0.1" in compose()["services"]["flower"]["command"]


def test_images_from_elsewhere_are_pinned_to_a_version() -> None:
    dockerfile = re.findall(
        r"^FROM (\S+:\S+)|^COPY --from=(\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    images = [service["image"] for service in compose()["services"].values()] + [
        "".join(pair) for pair in dockerfile
    ]
    others = [image for image in images if image != "imagemill:local"]
    assert len(others) >= 4
    assert all(re.search(r":v?\d+\.\d+", image) for image in others)


def test_the_config_that_compose_names_is_in_the_image() -> None:
    config = Path(compose()["x-service"]["environment"]["IMAGEMILL_CONFIG"])
    assert (ROOT / config.relative_to("/opt/imagemill")).is_file()


def test_the_image_copies_only_what_dockerignore_lets_through() -> None:
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    ignore = (ROOT / ".dockerignore").read_text().split()
    names = [name for line in copied for name in line.split()]
    assert names
    assert all(f"!{name}" in ignore and (ROOT / name).exists() for name in names)

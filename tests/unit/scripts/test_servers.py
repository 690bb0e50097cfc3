"""The servers of the tests are servers: ready when they say so, gone when their block ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import amqp
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, TimeoutError
from redis.retry import Retry
from urllib3 import request

import servers

SERVICES = [sys.executable, str(Path(__file__).parents[3] / "scripts/services")]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[servers.Server]:
    with servers.redis(tmp_path) as server:
        yield server


def answers(url: str) -> bool:
    """Whether something listens where a redis:// URL points to."""
    port = int(url.removesuffix("/0").rpartition(":")[2])
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def executable(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_killed_redis_comes_back_at_the_same_address_with_its_data(
    redis_server: servers.Server,
) -> None:
    with Redis.from_url(redis_server.url) as client:
        client.set("key", "value")
    redis_server.kill()
    assert not answers(redis_server.url)
    redis_server.start()
    with Redis.from_url(redis_server.url) as client:
        assert client.get("key") == b"value"


def test_a_paused_redis_says_nothing_until_it_is_resumed(redis_server: servers.Server) -> None:
    with Redis.from_url(
        redis_server.url, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)
    ) as client:
        redis_server.pause()
        with pytest.raises(TimeoutError):
            client.ping()
        redis_server.resume()
        assert client.ping()


def test_a_redis_with_a_password_lets_nobody_in_without(tmp_path: Path) -> None:
    with servers.redis_server(tmp_path, password='a "b/@') as url:
        with Redis.from_url(url) as client:
            assert client.ping()
        port = int(url.rpartition(":")[2].removesuffix("/0"))
        with (
            Redis(port=port, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(AuthenticationError),
        ):
            client.ping()


def test_rabbitmq_takes_its_own_user_and_leaves_no_process(tmp_path: Path) -> None:
    with servers.rabbitmq(tmp_path) as server:
        with amqp.Connection(
            server.url.split("@")[1].rstrip("/"), userid="guest", password="guest"
        ) as connection:
            assert connection.connected
        assert len(server.processes()) > 1
    assert server.processes() == []


def test_a_registry_comes_back_at_the_same_address(tmp_path: Path) -> None:
    with servers.registry(tmp_path) as server:
        server.kill()
        server.start()
        with urlopen(f"http://{server.url}/v2/") as answer:
            assert answer.status == 200


def test_a_registry_with_users_asks_who_you_are(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_bytes(
        subprocess.check_output([servers.program("htpasswd"), "-nbB", "me", "secret"])
    )
    with servers.docker_registry(tmp_path, auth=users) as address:
        assert request("GET", f"http://{address}/v2/").status == 401
        known = request(
            "GET", f"http://{address}/v2/", headers={"Authorization": "Basic bWU6c2VjcmV0"}
        )
        assert known.status == 200


def test_an_engine_builds_and_leaves_neither_process_nor_mount_nor_bridge(
    tmp_path: Path, docker_cli: str, busybox: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "busybox").write_bytes(busybox.read_bytes())
    (context / "busybox").chmod(0o755)
    (context / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /\nRUN ["/busybox", "touch", "/here"]\n'
    )
    folder = tmp_path / "engine"
    folder.mkdir()
    with servers.engine(folder) as server:
        environment = {**os.environ, "DOCKER_HOST": server.url, "DOCKER_BUILDKIT": "1"}
        subprocess.run(
            [docker_cli, "build", str(context)], env=environment, check=True, capture_output=True
        )
        run = Path(server.url.removeprefix("unix://")).parent
        assert Path("/sys/class/net", run.name).exists()
    assert server.processes() == []
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert not Path("/sys/class/net", run.name).exists()
    assert not run.exists()


def test_an_engine_that_is_there_is_used_and_not_stopped(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine)
    with servers.docker_engine(tmp_path) as host:
        assert host == engine
    assert servers.existing_engine() == engine


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    server = servers.Server(
        "broken", "", ["sh", "-c", "echo no such disk; exit 3"], tmp_path, lambda: False
    )
    with pytest.raises(servers.ServerError, match=r"broken ended with status 3(.|\n)*no such disk"):
        server.start()
    assert server.processes() == []


def test_a_server_ends_with_descendants_that_left_its_session(tmp_path: Path) -> None:
    command = ["sh", "-c", "setsid sleep 600 & exec sleep 600"]
    server = servers.Server("parent", "", command, tmp_path, lambda: len(server.processes()) == 2)
    with server:
        pass
    assert server.processes() == []


def test_a_docker_cli_without_buildkit_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (
        ("without", "28.2.2"),
        ("ancient", "17.12.1"),
        ("built-in", "20.10.24+dfsg1"),
    ):
        (tmp_path / name).mkdir()
        executable(
            tmp_path / name / "docker",
            f'test "$1" = --version && echo "Docker version {version}, build abc"',
        )
    monkeypatch.setenv(
        "PATH", f"{tmp_path}/without:{tmp_path}/ancient:{tmp_path}/built-in:{os.environ['PATH']}"
    )
    assert servers.docker_cli() == f"{tmp_path}/built-in/docker"


def test_a_free_port_is_not_one_that_the_kernel_gives_to_clients() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(servers.free_port() < lowest for _ in range(100))


def test_services_run_gives_the_addresses_and_the_status_of_the_command() -> None:
    script = 'echo "$REDIS_URL $REGISTRY"; exit 7'
    command = [*SERVICES, "run", "redis", "registry", "--", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    url, registry = done.stdout.split()
    assert url.startswith("redis://")
    assert registry.startswith("localhost:")
    assert not answers(url)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_services_run_stops_command_and_servers_when_told_to(signum: signal.Signals) -> None:
    command = [*SERVICES, "run", "redis", "--", "sh", "-c", 'echo "$REDIS_URL $$"; exec sleep 600']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        url, pid = run.stdout.readline().split()
        assert answers(url)
        run.send_signal(signum)
    assert run.returncode == 128 + signum
    assert not answers(url)
    assert not Path("/proc", pid).exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh clone, as far as `scripts/services` goes."""
    shutil.copytree(Path(SERVICES[1]).parent, tmp_path / "checkout/scripts")
    return tmp_path / "checkout"


def install(checkout: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Run `scripts/services install` of the checkout with the programs in one folder alone."""
    command = [sys.executable, str(checkout / "scripts/services"), "install", "--for", "test"]
    environment = {"PATH": str(path), "HOME": str(path)}
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


def test_services_install_asks_apt_for_what_is_missing_alone(
    tmp_path: Path, checkout: Path
) -> None:
    executable(tmp_path / "apt-get", f'echo "$@" >> {tmp_path}/asked')
    executable(tmp_path / "npm", '/bin/mkdir -p "$3"')
    (tmp_path / "pigz").symlink_to(servers.program("pigz"))
    assert install(checkout, tmp_path).returncode == 0
    update, asked = (tmp_path / "asked").read_text().splitlines()
    assert update.startswith("update")
    assert {"redis-server", "busybox-static", "nodejs", "--no-install-recommends"} <= set(
        asked.split()
    )
    assert not {"pigz", "npm"} & set(asked.split())


def test_services_install_asks_npm_for_azurite_once(tmp_path: Path, checkout: Path) -> None:
    executable(tmp_path / "apt-get", "")
    executable(
        tmp_path / "npm", f'echo "$@" >> {tmp_path}/asked; /bin/mkdir -p "$3/node_modules/azurite"'
    )
    for _ in range(2):
        assert install(checkout, tmp_path).returncode == 0
    [asked] = (tmp_path / "asked").read_text().splitlines()
    assert asked.split()[-1] == f"azurite@{servers.AZURITE}"
    [installed] = (checkout / ".venv").iterdir()
    assert installed.name == f"azurite-{servers.AZURITE}"
    assert (installed / "node_modules/azurite").is_dir()


def test_services_install_tells_why_npm_failed_and_leaves_no_half_of_azurite(
    tmp_path: Path, checkout: Path
) -> None:
    executable(tmp_path / "apt-get", "")
    executable(
        tmp_path / "npm", '/bin/mkdir -p "$3/node_modules"; echo no such registry >&2; exit 1'
    )
    done = install(checkout, tmp_path)
    assert done.returncode == 1
    assert "no such registry" in done.stderr
    assert list((checkout / ".venv").iterdir()) == []


def test_services_install_says_what_to_install_where_there_is_no_apt(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    command = [*SERVICES, "install", "--for", "test"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "redis-server" in done.stderr

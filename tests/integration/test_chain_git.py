"""The chain with commits of git repositories: private ones, and ones that were hashed before."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import servers
from git_fixtures import Repository
from git_servers import GitHttp
from http_faults import FaultyProxy
from service import Service, service

TOKEN = "t0ken-of-the-forge"


@pytest.fixture
def proxied_registry(registry: str) -> Iterator[FaultyProxy]:
    """A registry behind something that counts what it is asked."""
    with FaultyProxy(f"http://{registry}") as proxy:
        yield proxy


@pytest.fixture
def running(
    tmp_path: Path,
    redis_url: str,
    key_prefix: str,
    proxied_registry: FaultyProxy,
    engine: str,
    docker_cli: str,
    git_http: GitHttp,
) -> Iterator[Service]:
    """One worker that may read from the git server, with a token for it."""
    address = proxied_registry.url.removeprefix("http://")
    settings = {
        "IMAGEMILL_METRICS_PORT": str(servers.free_port()),
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_INSECURE_REGISTRIES": address,
        "IMAGEMILL_SOURCE_INSECURE_HOSTS": git_http.address,
        "IMAGEMILL_SOURCE_TOKENS": f"{git_http.address}=ann:{TOKEN}",
    }
    git_http.users = {"ann": TOKEN}
    with service(redis_url, redis_url, key_prefix, tmp_path, **settings) as workers:
        workers.start()
        yield workers


LOOK = ["info/refs", "info/refs", "git-upload-pack"]
"""One look at the refs; the first question is refused, since git brings credentials only then."""


def asked(server: GitHttp) -> list[str]:
    return [asked.path.partition("?")[0].partition(".git/")[2] for asked in server.asked]


def build(running: Service, source: str, destination: str, **fields: Any) -> dict[str, object]:
    build = running.client.submit(source=source, destination=destination, **fields)
    report = running.client.wait(build, timeout=120)
    return report.raise_for_status().dump()


def test_a_commit_is_built_once_and_then_found_by_one_look_at_the_refs_and_one_at_the_registry(
    running: Service,
    repository: Repository,
    git_http: GitHttp,
    proxied_registry: FaultyProxy,
    docker_cli: str,
    engine: str,
) -> None:
    commit = repository.commit(
        {"app/Dockerfile": "FROM scratch\nCOPY . /\n", "app/main.py": "print()\n"}
    )
    source = f"git+{git_http.url}/{repository.name}@main#subdirectory=app"
    destination = f"{proxied_registry.url.removeprefix('http://')}/chain-git/{repository.name}"
    # With `graft`, the worker reads the layers of a new image when it has time.
    first = build(running, source, destination, graft=False)
    git_http.asked.clear()
    proxied_registry.requests.clear()
    second = build(running, source, destination)

    assert first["built"]
    assert not second.get("built")
    assert second["digest"] == first["digest"]
    assert asked(git_http) == LOOK
    assert len(proxied_registry.requests) == 1
    told = running.metrics
    for cache, result in (("hash", "miss"), ("hash", "hit"), ("source", "miss"), ("source", "hit")):
        asked_for = f'imagemill_cache_requests_total{{cache="{cache}",result="{result}"}} 1.0'
        assert asked_for in told, told

    subprocess.run(
        [docker_cli, "-H", engine, "pull", "-q", str(first["image"])],
        check=True,
        capture_output=True,
    )
    shown = subprocess.run(
        [
            docker_cli,
            "-H",
            engine,
            "inspect",
            "--format",
            "{{json .Config.Labels}}",
            str(first["image"]),
        ],
        check=True,
        capture_output=True,
    )
    labels = json.loads(shown.stdout)
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.source"] == f"{git_http.url}/{repository.name}"


def test_a_commit_is_fetched_once_for_all_images_that_a_node_makes_of_it(
    running: Service, repository: Repository, git_http: GitHttp, proxied_registry: FaultyProxy
) -> None:
    repository.commit({"Dockerfile": "FROM scratch\nCOPY . /\n"})
    source = f"git+{git_http.url}/{repository.name}"
    destination = f"{proxied_registry.url.removeprefix('http://')}/chain-git/{repository.name}"
    first = build(running, source, destination)
    git_http.asked.clear()
    second = build(running, source, destination, labels={"team": "search"})
    assert second["built"]
    assert second["source_hash"] != first["source_hash"]
    assert asked(git_http) == LOOK


def test_a_branch_that_moved_on_is_built_anew(
    running: Service, repository: Repository, git_http: GitHttp, proxied_registry: FaultyProxy
) -> None:
    source = f"git+{git_http.url}/{repository.name}@main"
    destination = f"{proxied_registry.url.removeprefix('http://')}/chain-git/{repository.name}"
    repository.commit({"Dockerfile": "FROM scratch\nCOPY . /\n"})
    first = build(running, source, destination)
    repository.commit({"main.py": "print()\n"})
    second = build(running, source, destination)
    assert second["built"]
    assert second["source_hash"] != first["source_hash"]


def test_a_token_is_nowhere_to_be_read(
    running: Service, repository: Repository, git_http: GitHttp, proxied_registry: FaultyProxy
) -> None:
    repository.commit({"Dockerfile": "FROM scratch\nCOPY . /\n"})
    source = f"git+{git_http.url}/{repository.name}"
    destination = f"{proxied_registry.url.removeprefix('http://')}/chain-git/{repository.name}"
    done = build(running, source, destination)
    git_http.users = {"ann": "another"}
    refused = running.client.submit(source=source, destination=destination, tags=["again"])
    report = running.client.wait(refused, timeout=120)
    assert report.error is not None
    assert report.error.kind == "PermissionDenied"
    told = json.dumps([done, report.dump(), list(running.client.logs(refused))]) + running.log
    assert TOKEN not in told


def test_a_ref_that_is_not_there_fails_the_build_with_the_nearest_ones(
    running: Service, repository: Repository, git_http: GitHttp, proxied_registry: FaultyProxy
) -> None:
    repository.commit({"Dockerfile": "FROM scratch\n"}, branch="release")
    destination = f"{proxied_registry.url.removeprefix('http://')}/chain-git/{repository.name}"
    submitted = running.client.submit(
        source=f"git+{git_http.url}/{repository.name}@relaese", destination=destination
    )
    report = running.client.wait(submitted, timeout=120)
    assert report.error is not None
    assert report.error.kind == "UserError"
    assert "release" in report.error.hint

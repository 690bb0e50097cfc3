"""The wheel by itself, as a user installs it: it builds, it serves, and it is typed."""

import os
import subprocess
import uuid
from pathlib import Path

import pytest

import wheel as package
from command_line import MARK
from imagemill.client import Client
from service import until


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return package.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def programs(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel and what builds with docker."""
    return package.install(built, tmp_path_factory.mktemp("installed") / "venv", "cli", "local")


@pytest.fixture
def environment(tmp_path: Path, engine: str, docker_cli: str) -> dict[str, str]:
    """The environment of a user who has nothing of the checkout."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        MARK: str(tmp_path),
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of a user, in a folder that has a `worker` and `tasks` of its own."""
    folder = tmp_path / "project"
    for name in ("worker", "tasks"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('not this one')\n")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    (folder / "a").write_text(uuid.uuid4().hex)
    return folder


def test_nothing_with_a_name_that_others_have_lies_at_the_top(programs: Path) -> None:
    ours = {path.name for path in package.site(programs.parent).glob("imagemill*")}
    assert len(ours) == 2
    assert not [
        name
        for name in ("tasks", "worker", "tests", "scripts")
        if (package.site(programs.parent) / name).exists()
    ]


def test_the_wheel_alone_builds(
    programs: Path, environment: dict[str, str], project: Path, registry: str
) -> None:
    command = [
        str(programs / "imagemill"),
        "build",
        ".",
        "-d",
        f"{registry}/wheel/{uuid.uuid4().hex}",
    ]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("built  by docker, in ")


def test_the_wheel_alone_runs_a_worker_that_builds_for_others(
    programs: Path,
    environment: dict[str, str],
    project: Path,
    registry: str,
    redis_url: str,
    key_prefix: str,
) -> None:
    settings = {"IMAGEMILL_KEY_PREFIX": key_prefix, "IMAGEMILL_SOURCE_ROOTS": str(project)}
    command = [str(programs / "imagemill"), "worker", "--broker", redis_url, "--pool", "all"]
    command += ["--", "--hostname", "mine@test"]
    log = project.parent / "worker.log"
    with Client(redis_url, key_prefix=key_prefix) as client, log.open("wb") as output:
        worker = subprocess.Popen(
            command, cwd=project, env=environment | settings, stdout=output, stderr=output
        )
        try:
            until(lambda: bool(client.workers(0.5)), "the worker", log.read_text)
            (queues,) = client.workers().values()
            assert list(client.workers()) == ["mine@test"]
            assert {"imagemill", "imagemill.docker", "imagemill.kaniko"} <= set(queues)
            build = client.submit(source=str(project), destination=f"{registry}/{uuid.uuid4().hex}")
            assert client.wait(build, timeout=60).raise_for_status().built
        finally:
            worker.terminate()
            assert worker.wait(30) == 0, log.read_text()

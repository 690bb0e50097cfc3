"""The wheel by itself, as a user installs it: it builds, it serves, and it is typed."""

import os
import subprocess
import sys
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


@pytest.fixture(scope="session")
def slim(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel without any extra."""
    return package.install(built, tmp_path_factory.mktemp("slim") / "venv")


@pytest.fixture(scope="session")
def terminal(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of one with the command line, for a service elsewhere."""
    return package.install(built, tmp_path_factory.mktemp("terminal") / "venv", "cli")


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
    assert done.stdout.startswith(f"{registry}/wheel/")
    assert "\nbuilt  by docker, in " in done.stderr


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
            until(lambda: bool(client.workers()), "the worker", log.read_text)
            (queues,) = client.workers().values()
            assert list(client.workers()) == ["mine@test"]
            assert {"imagemill", "imagemill.docker", "imagemill.kaniko"} <= set(queues)
            build = client.submit(source=str(project), destination=f"{registry}/{uuid.uuid4().hex}")
            assert client.wait(build, timeout=60).raise_for_status().built
        finally:
            worker.terminate()
            assert worker.wait(30) == 0, log.read_text()


# --- For whoever only enqueues ---


def run(*command: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*map(str, command)],
        cwd=Path(str(command[0])).parent,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )


USER_PROGRAM = """
import asyncio
from pathlib import Path

from imagemill import AsyncClient, BuildFailed, BuildReport, BuildRequest, Client, UserError
from imagemill.testing import StubClient


def images(client: Client, sources: list[Path]) -> list[str]:
    builds = [client.submit(source, "registry.example.com/a", tags=["v1"]) for source in sources]
    builds.append(client.submit(BuildRequest(source="/src/c")))
    return [client.wait(build).raise_for_status().image or "" for build in builds]


async def awaited() -> BuildReport:
    async with AsyncClient(client=StubClient()) as client:
        return await client.wait(await client.submit("/src", timeout=60))


with StubClient() as stub:
    assert len(images(stub, [Path("/src/a"), Path("/src/b")])) == 3
assert asyncio.run(awaited()).status == "succeeded"
try:
    StubClient().submit("/src", tags=["no tag"])
except UserError as error:
    print(error.hint)
except BuildFailed as failure:
    print(failure.report.status)
"""


def test_a_users_program_needs_no_extra(slim: Path) -> None:
    done = run(slim / "python", "-c", USER_PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a tag is up to 128")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", ""),
        ('Client().submit("/src", destinaton="h/r")', 'Unexpected keyword argument "destinaton"'),
        ('Client().submit("/src", tags="v1", force="yes")', 'Argument "force"'),
        ("Client().submit()", 'Missing positional argument "source"'),
        ('Client().wait("x").imag', 'has no attribute "imag"'),
        ('AsyncClient().submit("/src", destinaton="h/r")', "destinaton"),
        ("Clint()", 'Name "Clint" is not defined'),
    ],
)
def test_a_users_program_is_checked_strictly(
    slim: Path,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    line: str,
    said: str,
) -> None:
    (tmp_path / "use.py").write_text(f"{USER_PROGRAM}\n{line}\n")
    mypy: list[str | Path] = [
        sys.executable,
        "-P",
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        slim / "python",
    ]
    cache = tmp_path_factory.getbasetemp() / "mypy"
    done = run(*mypy, "--config-file", os.devnull, "--cache-dir", cache, tmp_path / "use.py")
    errors = [text for text in done.stdout.splitlines() if ": error: " in text]
    assert len(errors) == (1 if line else 0), done.stdout + done.stderr
    assert said in done.stdout


def test_without_its_extra_the_command_says_how_to_install_it(slim: Path) -> None:
    done = run(slim / "imagemill", "doctor")
    assert done.returncode == 2
    assert done.stderr == (
        "error: This needs the Python package 'rich', which is not installed\n"
        "hint: pip install 'imagemill[cli]'\n"
    )


@pytest.mark.parametrize(
    ("command", "extra"), [("build", "local"), ("hash", "local"), ("worker", "local")]
)
def test_a_command_that_builds_says_which_extra_it_needs(
    terminal: Path, project: Path, command: str, extra: str
) -> None:
    options = ["--broker", "redis://127.0.0.1:1/0"] if command == "worker" else [str(project)]
    done = run(terminal / "imagemill", command, *options, HOME=str(project.parent))
    assert done.returncode == 2
    assert f"pip install 'imagemill[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_line_that_installs_an_extra_asks_no_index_for_what_is_there(slim: Path) -> None:
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", slim / "python"]
    done = run(*pip, "install", "--no-index", "--no-deps", "--dry-run", "imagemill[aws]")
    assert "Requirement already satisfied: imagemill[aws]" in done.stdout, done.stderr


def test_builds_of_others_are_looked_at_with_the_command_line_alone(
    terminal: Path, redis_url: str, key_prefix: str
) -> None:
    with Client(redis_url, key_prefix=key_prefix) as client:
        build = client.submit("/src")
    where = ["--broker", redis_url, "--key-prefix", key_prefix]
    done = run(terminal / "imagemill", *where, "status", build)
    assert done.returncode == 0, done.stderr
    assert "QUEUED" in done.stdout

"""`imagemill why`, as its user runs it: on sources here, and on what a real Redis knows of a
service's builds.
"""

import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

import trees
from command_line import CommandLine, command_line
from imagemill import context
from imagemill.client import Client, open_journal
from imagemill.config import LaunchConfig
from imagemill.context import hashing
from imagemill.errors import UserError
from imagemill.messages import BuildReport, BuildRequest, State
from imagemill.names import BUILD_KEEP_SECONDS
from imagemill.ports import Quiet
from imagemill.state.input_records import InputRecords
from imagemill.state.journal import Journal, connect
from imagemill.why.record import DockerfileInput, InputRecord, record

RECORD = InputRecord(DockerfileInput("Dockerfile", "d" * 16))


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with connect(redis_url) as connection:
        yield connection


@pytest.fixture
def client(redis_url: str, key_prefix: str) -> Iterator[Client]:
    with Client(redis_url, key_prefix=key_prefix) as client:
        yield client


@pytest.fixture
def journal(client: Client, redis_url: str, key_prefix: str) -> Journal:
    return open_journal(client.app, redis_url, key_prefix)


@pytest.fixture
def records(redis: Redis, key_prefix: str) -> InputRecords:
    return InputRecords(redis, key_prefix)


@pytest.fixture
def cli(redis_url: str, key_prefix: str) -> Iterator[CommandLine]:
    """A command line that knows the service."""
    with command_line(IMAGEMILL_BROKER=redis_url, IMAGEMILL_KEY_PREFIX=key_prefix) as cli:
        yield cli


@pytest.fixture
def alone() -> Iterator[CommandLine]:
    """A command line that knows no service."""
    with command_line() as cli:
        yield cli


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return trees.make(
        tmp_path / "project",
        {
            "Dockerfile": "ARG PYTHON=3.11\nFROM python:${PYTHON}-slim\n",
            "train.py": "1",
            "run*": "2",
            "src/m.py": "3",
        },
    )


@pytest.fixture
def changed(project: Path, tmp_path: Path) -> Path:
    """The project, some commits later."""
    later = tmp_path / "later"
    shutil.copytree(project, later)
    (later / "Dockerfile").write_text("ARG PYTHON=3.12\nFROM python:${PYTHON}-slim\n")
    (later / "train.py").write_text("1, and more")
    (later / "run").chmod(0o644)
    (later / "src").rename(later / "package")
    return later


def built(source: Path, journal: Journal, records: InputRecords, **given: str) -> str:
    """A build of the source that a worker has done: its id."""
    build, builder = uuid.uuid4().hex, LaunchConfig().builder
    request = BuildRequest(source=str(source), build_args=given)
    manifest = context.manifest(source, None, Quiet())
    source_hash = hashing.source_hash(request, builder, manifest)
    records.keep(source_hash, record(request, builder, manifest))
    journal.enter(build, State.LOADING, time.time())
    journal.end(build, BuildReport(id=build, status="succeeded", source_hash=source_hash))
    return build


EXPECTED = """\
Different: 1 base image, the Dockerfile, 2 paths changed, 1 path renamed

base image
  ~ python:3.11-slim → python:3.12-slim

Dockerfile
  ~ Dockerfile  content

changed
  ~ run  not executable
  ~ train.py  content, 1 byte → 11 bytes

renamed
  > src/m.py → package/m.py
"""


# --- Sources ---


def test_two_folders_are_compared_without_a_service(
    alone: CommandLine, project: Path, changed: Path
) -> None:
    done = alone.run("why", project, changed)
    assert done.stdout == EXPECTED
    assert done.stderr == ""
    assert done.returncode == 1
    assert alone.left() == []


def test_the_same_is_said_to_be_the_same(alone: CommandLine, project: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(project, tmp_path / "copy")
    source_hash = alone.run("hash", project, "--target", "x").stdout.strip()
    done = alone.run("why", project, copy, "--target", "x")
    assert (
        done.stdout
        == f"The same: both have the source hash {source_hash}, for which an image is built once\n"
    )
    assert done.returncode == 0


def test_two_commits_are_compared(alone: CommandLine, project: Path, changed: Path) -> None:
    """The second commit is that of the first folder; its files are those of the second."""

    def git(*arguments: str) -> str:
        options = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(project)]
        return subprocess.run(
            ["git", *options, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    one = git("rev-parse", "HEAD")
    git("--work-tree", str(changed), "add", "--all", ".")
    git("commit", "--quiet", "-m", "two")
    url = f"git+file://{project}"
    done = alone.run("why", f"{url}@{one}", f"{url}@HEAD")
    assert (done.returncode, done.stdout) == (1, EXPECTED), done.stderr


def test_a_source_without_a_dockerfile_is_compared_by_the_one_that_is_generated(
    alone: CommandLine, tmp_path: Path
) -> None:
    source = trees.make(
        tmp_path / "source", {"train.py": "print()", "requirements.txt": "numpy==2.0\n"}
    )
    later = trees.make(
        tmp_path / "later", {"train.py": "print()", "requirements.txt": "numpy==2.0\n"}
    )
    (later / ".python-version").write_text("3.10\n")
    done = alone.run("why", source, later, "--entrypoint", "python train.py", "--json")
    assert done.returncode == 1, done.stderr
    data = json.loads(done.stdout)
    assert [recipe["generated"] for recipe in data["dockerfile"].values()] == [True, True]
    assert [image["after"] for image in data["base_images"]] == ["python:3.10-slim"]


def test_long_lists_are_cut_on_a_terminal_alone(alone: CommandLine, tmp_path: Path) -> None:
    few = trees.make(tmp_path / "few", {"Dockerfile": "FROM a\n"})
    many = trees.make(
        tmp_path / "many", {"Dockerfile": "FROM a\n", **{f"f{n:03}": str(n) for n in range(50)}}
    )
    _, screen = alone.in_terminal("why", few, many)
    assert "f019" in screen
    assert "f020" not in screen
    assert "… and 30 more; --all shows them" in screen
    assert "\x1b[32m+" in screen
    _, screen = alone.in_terminal("why", few, many, "--all")
    assert "f049" in screen
    assert "f049" in alone.run("why", few, many).stdout


def test_what_cannot_be_compared_is_a_usage_error(alone: CommandLine, project: Path) -> None:
    unknown = alone.run("why", project, "3f2a")
    assert unknown.returncode == 2
    assert "There is no folder or file 3f2a" in unknown.stderr
    assert "the id of a build, a source hash, or a folder" in unknown.stderr
    image = alone.run("why", project, "docker-image://python:3.12")
    assert image.returncode == 2
    assert "is an image, which has no source hash" in image.stderr
    build = alone.run("why", project, uuid.uuid4().hex)
    assert build.returncode == 2
    assert "No broker is given" in build.stderr
    assert alone.left() == []


# --- Builds ---


def test_two_builds_are_compared(
    cli: CommandLine, journal: Journal, records: InputRecords, project: Path, changed: Path
) -> None:
    done = cli.run("why", built(project, journal, records), built(changed, journal, records))
    assert (done.returncode, done.stdout) == (1, EXPECTED), done.stderr


def test_a_build_is_compared_with_a_folder_by_its_own_arguments(
    cli: CommandLine, journal: Journal, records: InputRecords, project: Path
) -> None:
    build = built(project, journal, records, TOKEN="hunter2", PYTHON="3.10")
    done = cli.run(
        "why", build, project, "--build-arg", "TOKEN=hunter3", "--build-arg", "NEW=1", "--json"
    )
    assert done.returncode == 1
    assert "hunter" not in done.stdout
    data = json.loads(done.stdout)
    assert data["build_args"] == {"added": ["NEW"], "removed": ["PYTHON"], "changed": ["TOKEN"]}
    assert data["base_images"] == [
        {"stage": "", "before": "python:${PYTHON}-slim", "after": "python:3.11-slim"}
    ]
    same = cli.run(
        "why", build, project, "--build-arg", "TOKEN=hunter2", "--build-arg", "PYTHON=3.10"
    )
    assert (same.returncode, same.stdout[:9]) == (0, "The same:"), same.stdout


def test_a_source_hash_stands_for_its_image(
    cli: CommandLine,
    journal: Journal,
    records: InputRecords,
    client: Client,
    project: Path,
    changed: Path,
) -> None:
    source_hash = client.source_hash(built(project, journal, records))
    done = cli.run("why", source_hash, changed)
    assert (done.returncode, done.stdout) == (1, EXPECTED), done.stderr


def test_a_build_that_runs_can_be_asked_once_its_source_is_hashed(
    journal: Journal, client: Client
) -> None:
    journal.enter("b", State.LOADING, time.time(), source_hash=None)
    with pytest.raises(UserError, match="is LOADING, and has no source hash"):
        client.source_hash("b")
    journal.enter("b", State.CHECKING, time.time(), source_hash="1" * 64)
    assert client.source_hash("b") == "1" * 64


def test_a_build_that_has_no_source_hash_is_told(journal: Journal, client: Client) -> None:
    journal.enter("b", State.LOADING, time.time())
    journal.end("b", BuildReport(id="b", status="succeeded"))
    with pytest.raises(UserError, match="has ended, and has no source hash"):
        client.source_hash("b")


def test_a_build_that_nobody_knows_is_told(cli: CommandLine, project: Path) -> None:
    build = uuid.uuid4().hex
    done = cli.run("why", build, project)
    assert done.returncode == 2
    assert f"Nothing is known of a build {build}" in done.stderr


def test_a_record_that_is_not_kept_any_more_is_told_but_not_missed_where_the_hashes_are_the_same(
    cli: CommandLine,
    journal: Journal,
    records: InputRecords,
    redis: Redis,
    key_prefix: str,
    project: Path,
    changed: Path,
) -> None:
    build = built(project, journal, records)
    redis.delete(*redis.keys(f"{key_prefix}imagemill:inputs:*"))
    done = cli.run("why", build, changed)
    assert done.returncode == 2
    assert "was made from is not known any more" in done.stderr
    assert "kept for 24 hours after they were last used; give the source instead" in done.stderr
    assert cli.run("why", build, project).returncode == 0


def test_a_service_that_does_not_answer_is_no_difference(project: Path) -> None:
    with command_line(IMAGEMILL_BROKER="redis://localhost:1/0") as cli:
        done = cli.run("why", uuid.uuid4().hex, project)
    assert done.returncode == 3
    assert "does not answer" in done.stderr


# --- Records ---


def test_a_record_is_kept_as_long_as_it_is_used(
    records: InputRecords, redis: Redis, key_prefix: str
) -> None:
    records.keep("h", RECORD)
    (key,) = redis.keys(f"{key_prefix}imagemill:inputs:*")
    for use in (lambda: records.find("h"), lambda: records.use("h")):
        redis.expire(key, 60)
        use()
        assert BUILD_KEEP_SECONDS - 60 < redis.ttl(key) <= BUILD_KEEP_SECONDS
    assert records.find("h") == RECORD


def test_using_a_record_says_whether_there_is_one(records: InputRecords) -> None:
    assert not records.use("h")
    records.keep("h", RECORD)
    assert records.use("h")
    assert records.find("other") is None

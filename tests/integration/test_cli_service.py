"""The command line with a broker: builds that outlive it, on a worker that is somebody else's
process.
"""

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import servers
from builds import SHELL
from command_line import CommandLine, command_line
from imagemill.errors import UserError
from imagemill.messages import BuildReport, BuildStatus
from service import Service, service, until


@pytest.fixture(scope="module")
def running(
    redis_url: str, engine: str, docker_cli: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service with one worker, which has a config and a build secret."""
    folder = tmp_path_factory.mktemp("service")
    for name in ("configs", "secrets"):
        (folder / name).mkdir()
    (folder / "secrets/token").write_text("very secret")
    settings = {
        "IMAGEMILL_DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_CONFIG_DIR": str(folder / "configs"),
        "IMAGEMILL_BUILD_SECRETS_DIR": str(folder / "secrets"),
    }
    with service(redis_url, redis_url, f"cli-{uuid.uuid4().hex}:", folder, **settings) as running:
        running.start()
        yield running


@pytest.fixture
def cli(running: Service) -> Iterator[CommandLine]:
    """A command line that knows the service."""
    with command_line(IMAGEMILL_BROKER=running.broker, IMAGEMILL_KEY_PREFIX=running.prefix) as cli:
        yield cli


@pytest.fixture
def source(running: Service, busybox: Path) -> Path:
    """A folder that the worker may read; its Dockerfile is the test's to write."""
    folder = running.folder / uuid.uuid4().hex
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        f"{SHELL}RUN echo 'it runs' # not cached: {uuid.uuid4().hex}\n"
    )
    shutil.copy(busybox, folder / "busybox")
    return folder


@pytest.fixture
def destination(registry: str) -> str:
    """A repository that no other test has."""
    return f"{registry}/cli/{uuid.uuid4().hex}"


def sleeper() -> str:
    """A Dockerfile with an instruction that does not end, and that no other build of the engine
    shares.
    """
    return f"{SHELL}RUN echo 'it sleeps'; /bin/busybox sleep 1000 # {uuid.uuid4().hex}\n"


@pytest.fixture
def sleeping(cli: CommandLine, source: Path, destination: str) -> str:
    """The id of a build that is in the middle of an instruction that does not end."""
    (source / "Dockerfile").write_text(sleeper())
    build = cli.run("build", source, "-d", destination, "--detach").stdout.strip()
    until(lambda: "\nit sleeps\n" in cli.run("logs", build).stdout, "the build")
    return build


def test_a_build_is_shown_and_reported(cli: CommandLine, source: Path, destination: str) -> None:
    done = cli.run("build", source, "-d", destination)
    assert done.returncode == 0, done.stderr
    assert "[BUILDING] building the image\n" in done.stderr
    assert "\nit runs\n" in done.stderr
    assert done.stdout.startswith(f"{destination}@sha256:")


def test_the_id_that_is_shown_at_the_start_is_good_for_the_other_commands(
    cli: CommandLine, source: Path, destination: str
) -> None:
    (source / "Dockerfile").write_text(sleeper())
    with cli.started("build", source, "-d", destination) as command:
        command.until("\nit sleeps\n")
        word, build = command.text.splitlines()[0].split()
        assert word == "build"
        assert "\nit sleeps\n" in cli.run("logs", build).stdout
        assert cli.run("cancel", build).stdout == "The build has ended: CANCELLED\n"
        assert command.end() == 1


def test_a_terminal_shows_the_id_and_after_a_failure_where_the_whole_log_is(
    cli: CommandLine, source: Path, destination: str
) -> None:
    (source / "Dockerfile").write_text(f"{SHELL}RUN echo 'so it is'; exit 3\n")
    code, screen = cli.in_terminal("build", source, "-d", destination)
    assert code == 1
    build = re.search(r"  build ([0-9a-f]{32})", screen)
    assert build
    assert "| so it is" in screen
    assert f"; `imagemill logs {build[1]}` has the whole log" in screen
    assert f"`imagemill logs {build[1]}` has" in cli.run("status", build[1]).stderr


def test_a_detached_build_goes_on(cli: CommandLine, source: Path, destination: str) -> None:
    detached = cli.run("build", source, "-d", destination, "--detach", "--json")
    assert detached.returncode == 0
    build = json.loads(detached.stdout)["id"]
    waited = cli.run("wait", build, "--json")
    assert waited.returncode == 0
    report = BuildReport.model_validate_json(waited.stdout, extra="forbid")
    assert report.id == build
    assert report.status == "succeeded"


def test_a_build_that_has_ended_can_be_looked_at(
    cli: CommandLine, source: Path, destination: str
) -> None:
    build = cli.run("build", source, "-d", destination, "--detach").stdout.strip()
    waited = cli.run("wait", build)
    assert "[BUILDING] building the image\n" in waited.stderr
    status = cli.run("status", build)
    assert status.returncode == 0
    assert status.stdout.startswith(f"build  {build}\nstate  SUCCEEDED\n")
    assert "\n  upload context" in status.stdout
    assert f"image  {destination}@sha256:" in status.stdout
    assert "it runs\n" in cli.run("logs", build).stdout
    known = BuildStatus.model_validate_json(
        cli.run("status", build, "--json").stdout, extra="forbid"
    )
    assert known.state == "SUCCEEDED"
    cancelled = cli.run("cancel", build)
    assert cancelled.returncode == 0
    assert cancelled.stdout == "The build had ended before: SUCCEEDED\n"


def test_a_failed_build_fails_those_who_wait(
    cli: CommandLine, source: Path, destination: str
) -> None:
    (source / "Dockerfile").write_text(f"{SHELL}RUN echo 'so it is'; exit 3\n")
    build = cli.run("build", source, "-d", destination, "--detach").stdout.strip()
    waited = cli.run("wait", build)
    assert waited.returncode == 1
    assert "\nso it is\n" in waited.stderr
    assert "  | " not in waited.stderr
    assert "error: build: Line 4 of the Dockerfile" in waited.stderr
    waited = cli.run("wait", build, "--json")
    assert "  | so it is\n" in waited.stderr
    assert f"`imagemill logs {build}` has the whole log" in waited.stderr


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "destination",
            "localhost:1/x:tag",
            "destination: The destination 'localhost:1/x:tag' has a tag",
        ),
        ("platform", "linux/foo", 'platform: "linux/foo" is not a platform'),
        ("timeout", -1, "timeout: found -1, expected more than 0"),
    ],
)
def test_workers_refuse_a_wrong_request_of_any_celery_client(
    running: Service, source: Path, field: str, value: object, message: str
) -> None:
    request = {"source": str(source), "destination": "localhost:1/x", field: value}
    sent = running.client.app.send_task(
        "imagemill.build_image", kwargs={"request": request}, queue="imagemill"
    )
    with pytest.raises(UserError) as caught:
        sent.get(timeout=60)
    assert message in caught.value.message
    assert caught.value.hint


def test_dead_letters_are_listed_shown_sent_again_and_dropped(
    cli: CommandLine, running: Service
) -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    sent = running.client.app.send_task(
        "imagemill.build_image", kwargs={"request": deep}, queue="imagemill"
    )
    until(lambda: bool(cli.run("dead", "list").stdout), "a dead letter", lambda: running.log)
    (letter,) = json.loads(cli.run("dead", "list", "--json").stdout)
    assert "nested" in cli.run("dead", "list").stdout
    shown = json.loads(cli.run("dead", "show", letter["id"]).stdout)
    assert shown["message"]["headers"]["id"] == sent.id

    assert cli.run("dead", "retry", letter["id"]).returncode == 0
    until(lambda: bool(cli.run("dead", "list").stdout), "it, again", lambda: running.log)
    (again,) = json.loads(cli.run("dead", "list", "--json").stdout)
    assert again["id"] != letter["id"]
    assert cli.run("dead", "drop", again["id"]).returncode == 0
    assert cli.run("dead", "list").stdout == ""
    gone = cli.run("dead", "show", again["id"])
    assert gone.returncode == 2
    assert "There is no dead letter" in gone.stderr


def test_a_running_build_can_be_followed_and_cancelled(cli: CommandLine, sleeping: str) -> None:
    status = cli.run("status", sleeping)
    assert f"build  {sleeping}\nstate  BUILDING\n" in status.stdout
    with cli.started("logs", "-f", sleeping) as following:
        following.until("\nit sleeps\n")
        cancelled = cli.run("cancel", sleeping)
        assert cancelled.returncode == 0
        assert cancelled.stdout == "The build has ended: CANCELLED\n"
        assert following.end() == 0
    assert cli.run("wait", sleeping).returncode == 1


def test_ctrl_c_cancels_a_build_on_the_service(
    cli: CommandLine, running: Service, source: Path, destination: str
) -> None:
    (source / "Dockerfile").write_text(sleeper())
    with cli.started("build", source, "-d", destination, "--json", "-v") as command:
        command.until("\nit sleeps\n")
        command.interrupt()
        assert command.end() == 130
        assert '"status": "cancelled"' in command.text


def test_ctrl_c_leaves_a_build_that_is_only_waited_for(cli: CommandLine, sleeping: str) -> None:
    with cli.started("wait", sleeping) as waiting:
        waiting.until("\nit sleeps\n")
        waiting.interrupt()
        assert waiting.end() == 130
    assert "state  BUILDING\n" in cli.run("status", sleeping).stdout
    cli.run("cancel", sleeping)


def test_config_and_secrets_are_the_workers_own(
    cli: CommandLine, running: Service, source: Path, destination: str
) -> None:
    (running.folder / "configs/team.yaml").write_text(
        f"builder: {{type: docker, destination: '{destination}'}}\n"
    )
    (source / "Dockerfile").write_text(
        f"{SHELL}RUN --mount=type=secret,id=token test -s /run/secrets/token\n"
    )
    done = cli.run("build", source, "--config", "team", "--secret", "id=token")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{destination}@sha256:")


def test_a_broken_config_on_the_worker_is_exit_code_2(
    cli: CommandLine, running: Service, source: Path
) -> None:
    (running.folder / "configs/broken.yaml").write_text("builder: {typ: docker}\n")
    done = cli.run("build", source, "--config", "broken")
    assert done.returncode == 2
    assert "broken.yaml:1: builder.typ" in done.stderr


def test_an_unknown_build_is_exit_code_2(cli: CommandLine) -> None:
    for command in ("status", "wait", "logs", "cancel"):
        done = cli.run(command, "nobody-knows-it")
        assert done.returncode == 2
        assert "Nothing is known of a build nobody-knows-it" in done.stderr


def test_the_doctor_knows_the_workers(cli: CommandLine, engine: str, destination: str) -> None:
    done = cli.run("doctor", "-d", destination, "--json", DOCKER_HOST=engine)
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert found["broker"]["verdict"] == found["backend"]["verdict"] == "ok"
    assert found["queue imagemill"]["message"] == "served by all@test"
    assert found["queue imagemill.docker"]["verdict"] == "ok"


def test_the_doctor_misses_the_worker_of_the_configs_builder(cli: CommandLine) -> None:
    config = cli.folder / "launch.yaml"
    config.write_text(
        "builder: {type: kaniko, destination: h/r, build-context-store: 's3://bucket/path'}\n"
    )
    done = cli.run("doctor", "--config", config)
    assert done.returncode == 1
    assert "failed   queue imagemill.kaniko: no worker answers" in done.stdout
    assert "hint: start one: imagemill worker --pool kaniko" in done.stdout


def test_a_build_that_no_worker_takes_is_told(
    cli: CommandLine, source: Path, destination: str
) -> None:
    cli.variables["IMAGEMILL_KEY_PREFIX"] = f"nobody-{uuid.uuid4().hex}:"
    with cli.started("build", source, "-d", destination) as command:
        command.until("no worker answers that serves the queue imagemill; see `imagemill doctor`")


def test_a_service_that_goes_away_is_exit_code_3_and_says_how_to_go_on(
    tmp_path: Path, source: Path, destination: str
) -> None:
    with servers.redis(tmp_path) as redis, command_line(IMAGEMILL_BROKER=redis.url) as cli:
        with cli.started("build", source, "-d", destination, "--no-upload") as command:
            command.until("[QUEUED]")
            redis.kill()
            assert command.end() == 3
        assert "does not answer" in command.text
        assert "the build may go on: `imagemill wait " in command.text
        assert "Traceback" not in command.text

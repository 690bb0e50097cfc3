"""The command line without a broker, on a real engine and a real registry: what it says, and what
it leaves behind.
"""

import hashlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from builds import SHELL, PushedImage
from command_line import CommandLine, Running, command_line
from git_fixtures import Repository
from graft_trial import flattened
from imagemill.messages import BuildReport
from imagemill.reference import ImageReference


@pytest.fixture
def cli(engine: str, docker_cli: str) -> Iterator[CommandLine]:
    """A command line that builds with the engine."""
    with command_line(DOCKER_HOST=engine, IMAGEMILL_DOCKER_CLI=docker_cli) as cli:
        yield cli


@pytest.fixture
def source(cli: CommandLine) -> Path:
    """A folder that builds without running anything."""
    folder = cli.folder / "source"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    (folder / "a").write_text(uuid.uuid4().hex)
    return folder


@pytest.fixture
def shell(source: Path, busybox: Path) -> Path:
    """The same, with a shell; its Dockerfile is the test's to write."""
    shutil.copy(busybox, source / "busybox")
    return source


@pytest.fixture
def destination(registry: str) -> str:
    """A repository that no other test has."""
    return f"{registry}/cli/{uuid.uuid4().hex}"


# --- Builds that succeed ---


def test_a_change_of_code_needs_no_builder_the_next_time(
    cli: CommandLine, source: Path, destination: str
) -> None:
    def planned(*options: str) -> tuple[str, str, list[str]]:
        said = cli.run("plan", str(source), "--json", *options)
        found = json.loads(said.stdout)
        return found["way"], found["why"], [each["way"] for each in found["before"]]

    assert planned("-d", destination)[:2] == ("builder", "no earlier image is known")
    first = cli.run("build", str(source), "-d", destination)
    assert first.returncode == 0, first.stderr
    way, why, before = planned()
    assert (way, before) == ("nothing", ["builder"])
    assert destination in why
    assert planned("--force")[:2] == ("builder", "--force is given")
    (source / "a").write_text("another")
    assert planned()[0] == planned("--label", "a=b")[0] == "code"
    assert planned("--no-graft")[:2] == ("builder", "--no-graft is given")
    assert planned("-d", f"{destination}/other")[0] == "code"
    assert planned("--build-arg", "A=b")[:2] == ("builder", "another build argument (A)")
    second = cli.run("build", str(source), "-d", destination)
    assert "from which the code alone differs, without a builder" in second.stderr, second.stderr
    image = PushedImage(ImageReference.parse(second.stdout.strip()))
    assert flattened(image)["a"][-1] == hashlib.sha256(b"another").hexdigest()
    both = "--platform", "linux/amd64,linux/arm64"
    assert cli.run("build", str(source), "-d", destination, *both).returncode == 0
    (source / "a").write_text("a third")
    assert planned(*both)[0] == "code"


def test_a_commit_is_built_with_the_users_own_git_config(
    cli: CommandLine, repository: Repository, destination: str
) -> None:
    commit = repository.commit({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": uuid.uuid4().hex})
    source = f"git+file://{repository.path}@main"
    built = cli.run("build", source, "-d", destination)
    assert built.returncode == 0, built.stderr
    assert cli.run("hash", f"{source.removesuffix('main')}{commit}").stdout.strip() in built.stderr
    (cli.folder / "home/.gitconfig").write_text("no config\n")
    refused = cli.run("build", source, "-d", destination)
    assert refused.returncode == 1
    assert ".gitconfig" in refused.stderr


def test_a_build_is_reported_and_the_second_time_nothing_is_built(
    cli: CommandLine, source: Path, destination: str
) -> None:
    first = cli.run("build", source, "-d", destination, "-t", "v1")
    assert first.returncode == 0, first.stderr
    image = first.stdout.removesuffix("\n")  # alone, where it is piped
    lines = first.stderr.splitlines()
    assert lines[0] == "[QUEUED] waiting for a worker"
    assert "[BUILDING] building the image" in lines
    assert any("COPY a /a" in line for line in lines)
    assert f"image  {image}" in lines
    assert image.startswith(f"{destination}@sha256:")
    assert f"tag    {destination}:v1" in lines
    assert any(line.startswith("built  by docker, in ") for line in lines)
    second = cli.run("build", source, "-d", destination)
    assert second.stdout == first.stdout
    assert "[BUILDING]" not in second.stderr
    assert "\nbuilt  no, it was there already, in " in f"\n{second.stderr}"
    assert cli.left() == []


def test_json_is_the_report_alone(cli: CommandLine, source: Path, destination: str) -> None:
    done = cli.run("build", source, "-d", destination, "--json")
    assert done.stderr == ""
    report = BuildReport.model_validate_json(done.stdout, extra="forbid")
    assert report.status == "succeeded"
    assert report.built
    assert report.image == f"{destination}@{report.digest}"
    assert report.tags == (f"{destination}:{report.source_hash}",)
    assert [step.state for step in report.steps][-3:] == ["PUSHING", "VERIFYING", "REPORTING"]


def test_json_shows_progress_on_standard_error_only_if_asked(
    cli: CommandLine, source: Path, destination: str
) -> None:
    done = cli.run("build", source, "-d", destination, "--json", "-v")
    assert BuildReport.model_validate_json(done.stdout).status == "succeeded"
    assert "[BUILDING] building the image" in done.stderr


def test_the_tag_is_what_hash_prints(cli: CommandLine, source: Path, destination: str) -> None:
    options = ("--build-arg", "A=1", "--label", "a=b")
    report = json.loads(cli.run("build", source, "-d", destination, "--json", *options).stdout)
    assert cli.run("hash", source, *options).stdout.strip() == report["source_hash"]


def test_options_reach_the_image(cli: CommandLine, shell: Path, destination: str) -> None:
    (shell / "other.Dockerfile").write_text(
        f"{SHELL}ARG A\nRUN echo $A > /made\nFROM scratch AS unwanted\n"
    )
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(shell)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "1"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(
        [*git, "remote", "add", "origin", "https://me:secret@example.com/a.git"], check=True
    )
    done = cli.run(
        *(
            "build",
            shell,
            "-d",
            destination,
            "-f",
            "other.Dockerfile",
            "--target",
            "shell",
            "--json",
        ),
        *("--build-arg", "A", "--label", "team=x"),
        A="from the environment",
    )
    assert done.returncode == 0, done.stderr
    image = PushedImage(ImageReference.parse(json.loads(done.stdout)["image"]))
    assert image.files["made"] == b"from the environment\n"
    assert image.labels["team"] == "x"
    revision = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert image.labels["org.opencontainers.image.revision"] == revision
    assert image.labels["org.opencontainers.image.source"] == "https://example.com/a.git"


def test_a_build_secret_is_seen_by_the_build_and_stays_nowhere(
    cli: CommandLine, shell: Path, destination: str
) -> None:
    (shell / "Dockerfile").write_text(
        f"{SHELL}RUN --mount=type=secret,id=token /bin/busybox sha256sum /run/secrets/token > /sum\n"
    )
    secret = cli.folder / "token"
    secret.write_text("very secret")
    done = cli.run(
        "build", shell, "-d", destination, "--secret", f"id=token,src={secret}", "--json", "-v"
    )
    assert done.returncode == 0, done.stderr
    image = PushedImage(ImageReference.parse(json.loads(done.stdout)["image"]))
    assert (
        image.files["sum"].split()[0] == b"bf1ba1e9d0d5b4a5be5b0d5d8f5d4b6a"
        or len(image.files["sum"].split()[0]) == 64
    )
    assert "very secret" not in done.stdout + done.stderr
    assert cli.left() == []
    assert secret.read_text() == "very secret"


def test_the_config_names_the_destination(cli: CommandLine, source: Path, destination: str) -> None:
    config = cli.folder / "launch.yaml"
    config.write_text(f"builder: {{type: docker, destination: '{destination}'}}\nmax_jobs: 2\n")
    done = cli.run("build", source, "--config", "launch.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{destination}@sha256:")
    assert "max_jobs" in done.stderr


def test_modules_in_the_callers_folder_are_not_imported(
    cli: CommandLine, source: Path, destination: str
) -> None:
    for name in ("tasks", "worker", "json", "celery"):
        (cli.folder / f"{name}.py").write_text(
            "raise SystemExit('imported what belongs to the user')\n"
        )
    done = cli.run("build", source, "-d", destination)
    assert done.returncode == 0, done.stderr


# --- On a terminal ---


def test_a_terminal_shows_steps_and_times(cli: CommandLine, source: Path, destination: str) -> None:
    code, screen = cli.in_terminal("build", source, "-d", destination)
    assert code == 0
    for step in (
        "load config",
        "hash source",
        "check registry",
        "upload context",
        "build",
        "push",
        "verify",
    ):
        assert f"✓\x1b[0m {step} " in screen
    assert "[BUILDING]" not in screen
    assert f"{destination}@sha256:" in screen


def test_a_terminal_is_not_changed_by_the_log(
    cli: CommandLine, shell: Path, destination: str
) -> None:
    (shell / "Dockerfile").write_text(
        f"{SHELL}RUN /bin/busybox printf '\\033]0;pwned\\007seen\\n'; exit 1\n"
    )
    code, screen = cli.in_terminal("build", shell, "-d", destination)
    assert code == 1
    assert "| seen" in screen
    assert "\x1b]" not in screen


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_colours_are_left_out_where_they_are_not_wanted(
    cli: CommandLine, source: Path, destination: str, variable: str
) -> None:
    code, screen = cli.in_terminal("build", source, "-d", destination, **{variable: "dumb"})
    assert code == 0
    assert "\x1b[32m" not in screen
    assert ("[BUILDING] building the image" in screen) == (variable == "TERM")


# --- Builds that fail ---


def test_a_failed_build_shows_the_step_the_reason_the_last_lines_and_a_hint(
    cli: CommandLine, shell: Path, destination: str
) -> None:
    (shell / "Dockerfile").write_text(f"{SHELL}RUN echo 'main.c:3: no such thing'; exit 3\n")
    done = cli.run("build", shell, "-d", destination, "--json")
    assert done.returncode == 1
    log, _, message = done.stderr.partition("error: ")
    assert "  | main.c:3: no such thing\n" in log
    assert message.startswith("build: Line 4 of the Dockerfile")
    assert "exit code 3" in message
    assert "\nhint: " in message
    assert "imagemill logs" not in message
    assert cli.left() == []


@pytest.mark.parametrize("options", [(), ("--json", "-v"), ("--progress", "plain")])
def test_a_log_that_was_shown_as_it_came_is_not_told_again(
    cli: CommandLine, shell: Path, destination: str, options: tuple[str, ...]
) -> None:
    (shell / "Dockerfile").write_text(f"{SHELL}RUN echo 'main.c:3: no such thing'; exit 3\n")
    done = cli.run("build", shell, "-d", destination, *options)
    assert done.returncode == 1
    assert "\nmain.c:3: no such thing\n" in done.stderr
    assert "  | " not in done.stderr
    assert "error: build: Line 4 of the Dockerfile" in done.stderr
    assert "image  " not in done.stdout


def test_a_missing_dockerfile_is_a_failed_build_and_leads_to_the_option(
    cli: CommandLine, source: Path, destination: str
) -> None:
    (source / "Dockerfile").rename(source / "model.Dockerfile")
    done = cli.run("build", source, "-d", destination)
    assert done.returncode == 1
    assert "(--file PATH)\n" in done.stderr


def test_a_secret_that_was_not_asked_for_leads_to_the_option(
    cli: CommandLine, shell: Path, destination: str
) -> None:
    (shell / "Dockerfile").write_text(
        f"{SHELL}RUN --mount=type=secret,id=token,required=true true\n"
    )
    done = cli.run("build", shell, "-d", destination)
    assert done.returncode == 1
    assert "name 'token' among the build's secrets" in done.stderr
    assert "(--secret id=ID)\n" in done.stderr


def test_without_an_engine_it_is_said_how_to_come_to_one(
    cli: CommandLine, source: Path, destination: str
) -> None:
    del cli.variables["DOCKER_HOST"], cli.variables["IMAGEMILL_DOCKER_CLI"]
    done = cli.run("build", source, "-d", destination, PATH=str(cli.folder / "empty"))
    assert done.returncode == 1
    assert "builder.type is noop, or it is not set and no Docker engine was found" in done.stderr
    hint = done.stderr.partition("hint: ")[2]
    assert "start a Docker engine, or set DOCKER_HOST" in hint
    assert "set builder.type to docker or kaniko" in hint


def test_a_failed_build_is_a_report_too(cli: CommandLine, source: Path, destination: str) -> None:
    (source / "Dockerfile").unlink()
    done = cli.run("build", source, "-d", destination, "--json")
    assert done.returncode == 1
    report = BuildReport.model_validate_json(done.stdout, extra="forbid")
    assert report.status == "failed"
    assert report.error is not None
    assert report.error.kind == "UserError"
    assert f"error: hash source: {report.error.message}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no/such",), "There is no folder or file no/such"),
        ((".", "--tag", "no tag"), 'The build request is not valid: --tag: "no tag" is not a tag'),
        (
            (".", "--timeout", "-1"),
            "The build request is not valid: --timeout: found -1, expected more than 0",
        ),
        (
            (".", "--platform", "linux/foo"),
            'The build request is not valid: --platform: "linux/foo" is not a platform',
        ),
        (
            (".", "-d", "localhost:5999:x"),
            "The build request is not valid: --destination: 'localhost:5999:x' is not",
        ),
        ((".", "-d", "x:tag"), "The destination 'x:tag' has a tag"),
        ((".", "--config", "no.yaml"), "There is no config file no.yaml"),
    ],
)
def test_misuse_is_exit_code_2_and_leaves_nothing(
    cli: CommandLine, arguments: tuple[str, ...], message: str
) -> None:
    done = cli.run("build", *arguments)
    assert done.returncode == 2
    assert f"error: {message}" in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert cli.left() == []


def test_an_engine_that_is_away_fails_the_build(
    cli: CommandLine, source: Path, destination: str
) -> None:
    done = cli.run(
        "build",
        source,
        "-d",
        destination,
        DOCKER_HOST="unix:///no/engine.sock",
        IMAGEMILL_MAX_RETRIES="0",
    )
    assert done.returncode == 1
    assert "/no/engine.sock" in done.stderr
    assert "hint: " in done.stderr


# --- Interrupts and crashes ---


def sleeper() -> str:
    """A Dockerfile with an instruction that does not end, and that no other build of the engine
    shares.
    """
    return f"{SHELL}RUN echo 'it sleeps'; /bin/busybox sleep 1000 # {uuid.uuid4().hex}\n"


@pytest.fixture
def sleeping(cli: CommandLine, shell: Path, destination: str) -> Iterator[Running]:
    """A build that is in the middle of an instruction that does not end."""
    (shell / "Dockerfile").write_text(sleeper())
    with cli.started("build", shell, "-d", destination) as running:
        running.until("\nit sleeps\n")
        yield running


def test_ctrl_c_cancels_the_build(cli: CommandLine, sleeping: Running) -> None:
    sleeping.interrupt()
    assert sleeping.end() == 130
    assert "cancelling the build" in sleeping.text
    assert "error: build: The build was cancelled" in sleeping.text
    assert cli.left() == []


def test_a_second_ctrl_c_stops_at_once(cli: CommandLine, sleeping: Running) -> None:
    # The worker cannot answer the first.
    cli.processes("worker.embedded")[0].suspend()
    sleeping.interrupt()
    sleeping.until("cancelling the build")
    sleeping.interrupt()
    assert sleeping.end() == 130
    assert cli.left() == []


def test_nothing_is_left_when_the_command_line_is_killed(
    cli: CommandLine, sleeping: Running
) -> None:
    sleeping.process.kill()
    assert sleeping.end() == -9
    cli.until_nothing_is_left()


def test_nothing_is_left_when_the_command_line_is_terminated(
    cli: CommandLine, sleeping: Running
) -> None:
    sleeping.process.terminate()
    sleeping.end()
    cli.until_nothing_is_left()


@pytest.mark.parametrize(
    ("victim", "reason"),
    [("worker.embedded", "was killed (SIGKILL)"), ("--unixsocket", "ended with exit code 1")],
)
def test_a_crash_of_the_service_is_told_at_once(
    cli: CommandLine, sleeping: Running, victim: str, reason: str
) -> None:
    cli.kill(victim)
    assert sleeping.end() == 3
    assert f"error: The embedded worker {reason}" in sleeping.text
    assert "  | " in sleeping.text
    assert "hint: " in sleeping.text
    assert cli.left() == []


def test_a_crash_is_a_report_too(cli: CommandLine, shell: Path, destination: str) -> None:
    (shell / "Dockerfile").write_text(sleeper())
    with cli.started("build", shell, "-d", destination, "--json", "-v") as running:
        running.until("\nit sleeps\n")
        cli.kill("worker.embedded")
        assert running.end() == 3
        document = running.text[running.text.index("{") : running.text.rindex("\n}") + 2]
    report = BuildReport.model_validate_json(document, extra="forbid")
    assert report.error is not None
    assert report.error.kind == "EmbeddedFailed"


def test_a_worker_that_cannot_start_says_why(
    cli: CommandLine, source: Path, destination: str
) -> None:
    done = cli.run("build", source, "-d", destination, IMAGEMILL_HASH_TIMEOUT="soon")
    assert done.returncode == 3
    assert "IMAGEMILL_HASH_TIMEOUT" in done.stderr
    assert cli.left() == []


def test_without_the_workers_code_it_is_said_what_to_do(
    cli: CommandLine, source: Path, destination: str
) -> None:
    installed = cli.folder / "wheel"
    installed.mkdir()
    (installed / "imagemill").symlink_to(cli.code / "imagemill")
    # An editable install puts the checkout on the path; here it is not to be found.
    (installed / "sitecustomize.py").write_text(
        f"import sys\nsys.path[:] = [path for path in sys.path if path != {str(cli.code)!r}]\n"
    )
    done = cli.run("build", source, "-d", destination, PYTHONPATH=str(installed))
    assert done.returncode == 2
    assert "error: The worker's code is not installed beside" in done.stderr
    assert "or set IMAGEMILL_BROKER" in done.stderr
    assert cli.left() == []


def test_a_cache_that_cannot_be_written_is_named(
    cli: CommandLine, source: Path, destination: str
) -> None:
    (cli.folder / "file").write_text("")
    done = cli.run("build", source, "-d", destination, XDG_CACHE_HOME=str(cli.folder / "file"))
    assert done.returncode == 3
    assert str(cli.folder / "file") in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr


# --- doctor ---


def test_the_doctor_finds_everything_in_order(cli: CommandLine, destination: str) -> None:
    done = cli.run("doctor", "-d", destination)
    assert done.returncode == 0, done.stdout
    verdicts = [
        line.split(":")[0].split() for line in done.stdout.splitlines() if not line.startswith(" ")
    ]
    assert verdicts == [
        ["ok", "config"],
        ["ok", "docker"],
        ["ok", "engine"],
        ["ok", "registry"],
        ["warning", "credentials"],
        ["ok", "embedded", "service"],
    ]


def test_the_doctor_says_what_is_missing(cli: CommandLine) -> None:
    done = cli.run("doctor", "-d", "localhost:1/x", "--json", DOCKER_HOST="unix:///no/engine.sock")
    assert done.returncode == 1
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert found["engine"]["verdict"] == found["registry"]["verdict"] == "failed"
    assert "/no/engine.sock" in found["engine"]["message"]
    assert found["engine"]["hint"]
    assert "localhost:1" in found["registry"]["message"]


def test_the_doctor_finds_credentials(cli: CommandLine, registry: str) -> None:
    folder = cli.folder / "docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": "dXNlcjpwYXNz"}}}))
    done = cli.run("doctor", "-d", f"{registry}/x", DOCKER_CONFIG=str(folder))
    assert f"ok       credentials: there are some for {registry}" in done.stdout
    assert "pass" not in done.stdout


def test_the_doctor_goes_on_after_a_broken_config(cli: CommandLine) -> None:
    config = cli.folder / "launch.yaml"
    config.write_text("builder: {typ: docker}\n")
    done = cli.run("doctor", "--config", config)
    assert done.returncode == 1
    assert "failed   config: " in done.stdout
    assert "ok       engine: " in done.stdout


def test_dockers_first_line_works(cli: CommandLine, source: Path, destination: str) -> None:
    """`docker build -t REPOSITORY:TAG -f FILE .`, and what else is typed."""
    (source / "Dockerfile").rename(cli.folder / "elsewhere")
    files = ("--iidfile", "iid", "--metadata-file", "meta.json")
    given = ("-t", f"{destination}:v1", "-f", "elsewhere", "-q", "--push", *files)
    done = cli.run("build", source, *given)
    assert done.returncode == 0, done.stderr
    digest = done.stdout.removesuffix("\n").rpartition("@")[2]
    assert done.stdout == f"{destination}@{digest}\n"
    assert done.stderr == ""
    assert (cli.folder / "iid").read_text() == digest
    metadata = json.loads((cli.folder / "meta.json").read_text())
    assert metadata["containerimage.digest"] == digest
    assert f"{destination}:v1" in metadata["image.name"].split(",")
    anew = json.loads(cli.run("build", source, *given, "--no-cache", "--json").stdout)
    assert anew["built"]
    again = json.loads(cli.run("build", source, *given, "--json").stdout)
    assert not again["built"]


def test_secret_may_come_from_a_variable(cli: CommandLine, shell: Path, destination: str) -> None:
    (shell / "Dockerfile").write_text(
        f"{SHELL}RUN --mount=type=secret,id=word test $(cat /run/secrets/word) = given\n"
    )
    done = cli.run("build", shell, "-d", destination, "--secret", "id=word,env=WORD", WORD="given")
    assert done.returncode == 0, done.stderr
    done = cli.run("build", shell, "-d", destination, "--secret", "id=word,env=WORD")
    assert done.returncode == 2
    assert "the variable WORD is not set" in done.stderr
    done = cli.run("build", shell, "-d", destination, "--secret", "id=word")
    assert "give --secret id=ID,src=FILE or id=ID,env=NAME" in done.stderr

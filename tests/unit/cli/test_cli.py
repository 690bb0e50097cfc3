"""The command line without a service: what it takes, what it refuses, and what a terminal gets to
see.
"""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from imagemill.cli import render as showing
from imagemill.cli import terminal
from imagemill.cli.build import build
from imagemill.cli.commands import main
from imagemill.cli.follow import exit_code
from imagemill.cli.git_info import GitInfo, checkout, published
from imagemill.cli.live import LiveView
from imagemill.cli.progress import PlainView
from imagemill.cli.render import seconds
from imagemill.cli.requests import NAMES, located
from imagemill.errors import UserError
from imagemill.messages import BuildReport, BuildRequest, Failure, State
from imagemill.state.journal import Event
from imagemill.text import printable


class Outcome:
    """How a command ended and what it wrote."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Caller:
    """Calls the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["imagemill", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, out, err)


@pytest.fixture
def imagemill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Caller:
    """The command, in a home of its own and with no variable of ours set."""
    for name in (
        "IMAGEMILL_BROKER",
        "IMAGEMILL_BACKEND",
        "IMAGEMILL_CONFIG",
        "IMAGEMILL_KEY_PREFIX",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return Caller(monkeypatch, capsys)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that can be hashed."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    (folder / "a").write_text("a")
    return folder


# --- What is taken, and what is refused ---


def test_help_is_quick_since_it_imports_nothing_heavy() -> None:
    heavy = {"celery", "kombu", "redis", "pydantic", "rich", "docker", "yaml", "psutil"}
    assert imported("import imagemill.cli", heavy) == "[]\n"


def test_a_command_is_imported_alone() -> None:
    others = {"imagemill.cli.build", "imagemill.cli.why", "imagemill.embedded"}
    program = (
        "import click; from imagemill.cli import cli; cli.get_command(click.Context(cli), 'hash')"
    )
    assert imported(program, others) == "[]\n"


def test_what_shows_a_build_is_imported_once_it_is_submitted() -> None:
    later = {"rich", "imagemill.config.model", "imagemill.context", "imagemill.embedded"}
    program = "import imagemill.cli.requests, imagemill.cli.upload, imagemill.cli.follow"
    assert imported(f"{program}, imagemill.cli.terminal, imagemill.cli.build", later) == "[]\n"


def test_a_hash_imports_no_generator_before_there_is_something_to_generate() -> None:
    later = {"rich", "yaml", "celery", "imagemill.dockerfile.generate.install", "imagemill.http"}
    assert imported("import imagemill.cli.requests, imagemill.cli.sources", later) == "[]\n"


def imported(program: str, names: set[str]) -> str:
    """Which of the modules a program has imported at its end."""
    code = f"{program}; import sys; print(sorted({names} & set(sys.modules)))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("shell", "code", "told"),
    [
        (("--version", ">/dev/full"), 1, "error: Standard output cannot be written: No space"),
        (("dead", "--help", "| true; exit ${PIPESTATUS[0]}"), 1, ""),
        (("hash", ". ; exit $?"), 2, "error: The working folder is not there any more"),
    ],
)
def test_what_the_machine_refuses_is_said_in_a_sentence(
    tmp_path: Path, shell: tuple[str, ...], code: int, told: str
) -> None:
    (tmp_path / "gone").mkdir()
    leave = "cd gone; rmdir ../gone; " if "hash" in shell else ""
    command = f"{leave}{sys.executable} -m imagemill {' '.join(shell)}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr.startswith(told)
    assert bool(done.stderr) == bool(told)


@pytest.mark.parametrize(
    ("level", "arguments", "told"),
    [
        ("verbose", [], 'error: IMAGEMILL_LOG_LEVEL is "verbose"'),
        ("INFO", ["light"], "error: Celery's command worker: "),
    ],
)
def test_a_worker_that_is_started_wrongly_says_so_and_ends_with_2(
    level: str, arguments: list[str], told: str
) -> None:
    command = [sys.executable, "-m", "imagemill", "worker", "--broker", "redis://127.0.0.1:1/0"]
    variables = os.environ | {"IMAGEMILL_LOG_LEVEL": level}
    done = subprocess.run(
        [*command, *arguments], env=variables, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[0][: len(told)]) == (2, told)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_commands(imagemill: Caller, flag: str) -> None:
    outcome = imagemill(flag)
    assert outcome.code == 0
    for command in ("build", "status", "wait", "logs", "cancel", "hash", "config", "doctor"):
        assert f"\n  {command} " in outcome.out


def test_the_version_is_printed(imagemill: Caller) -> None:
    assert imagemill("--version").out == "imagemill 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("bild",), "No such command 'bild'", "did you mean build? see `imagemill --help`"),
        (("ps",), "No such command 'ps'", "`imagemill list` lists the builds"),
        (("why",), "Missing argument 'A'", "see `imagemill why --help`"),
        (("build", ".", "--detach"), "--detach needs a broker", "IMAGEMILL_BROKER"),
        (
            ("build", ".", "--secret", "src=/x"),
            "expected id=ID, id=ID,src=FILE or id=ID,env=NAME, found 'src=/x'",
            "--help",
        ),
        (("build", ".", "--secret", "id=x,env=X"), "the variable X is not set", "--help"),
        (("build", ".", "--secret", "id=x,src=/no/file"), "there is no file /no/file", "--help"),
        (
            ("build", ".", "--secret", "id=x,src=/etc/hosts", "--secret", "id=y"),
            "not said where the build secret is: y",
            "give --secret id=ID,src=FILE",
        ),
        (("build", ".", "--build-arg", "=1"), "a build argument needs a name", "--help"),
        (("status", "x"), "No broker is given", "IMAGEMILL_BROKER"),
        (("logs", "x"), "No broker is given", "IMAGEMILL_BROKER"),
        (
            ("--broker", "redis://h", "build", ".", "--config", "a/b.yaml"),
            "not a file: a/b.yaml",
            "--config b",
        ),
        (
            ("build", "--broker", "redis://h", ".", "--secret", "id=x,src=/x"),
            "never travel (x)",
            "BUILD_SECRETS_DIR",
        ),
        (("--broker", "redis://h", "build", "no/such"), "There is no folder or file no/such", ""),
        (("--broker", "amqp://h", "status", "x"), "Results are kept in Redis", "IMAGEMILL_BACKEND"),
        (
            ("--broker", "127.0.0.1:6379", "status", "x"),
            "The broker's URL has no scheme",
            "redis://HOST:6379/0",
        ),
        (
            ("build", ".", "--tag"),
            "Option '--tag' requires an argument",
            "see `imagemill build --help`",
        ),
        (
            ("hash", ".", "--file"),
            "Option '--file' requires an argument",
            "see `imagemill hash --help`",
        ),
        (
            ("status", "--broker"),
            "Option '--broker' requires an argument",
            "see `imagemill status --help`",
        ),
        (
            ("config", "check", "--default-config"),
            "requires an argument",
            "see `imagemill config check --help`",
        ),
        (
            ("build", ".", "--label", "foo"),
            "the label 'foo' needs a value: KEY=VALUE",
            "see `imagemill build --help`",
        ),
        (("build", ".", "--label", "=foo"), "a label needs a name: KEY=VALUE", "--help"),
        (
            ("hash", ".", "--platform", "linux/x86_64"),
            '--platform: "linux/x86_64" is not a',
            "did you mean linux/amd64?",
        ),
    ],
)
def test_misuse_is_refused_with_a_hint(
    imagemill: Caller, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    outcome = imagemill(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    error, _, hints = outcome.err.partition("\nhint: ")
    assert error.startswith("error: ")
    assert message in error
    assert hint in hints


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("-d", "x:tag"), "The destination 'x:tag' has a tag", "give --destination x --tag tag"),
        (
            ("-d", "h:5000/a/b:v1"),
            "The destination 'h:5000/a/b:v1' has a tag",
            "give --destination h:5000/a/b --tag v1",
        ),
        (
            ("-d", "localhost:5000"),
            "--destination: The destination 'localhost:5000' has a tag",
            "HOST:PORT/REPOSITORY",
        ),
        (
            ("-d", "localhost:5999:x"),
            "--destination: 'localhost:5999:x' is not an image reference",
            "",
        ),
        (
            ("-d", "h.example/Upper"),
            "--destination: 'h.example/Upper' is not an image reference",
            "write 'upper'",
        ),
        (("-d", ""), "--destination: An image reference is empty", "a reference is"),
        (
            ("--platform", "linux/foo"),
            '--platform: "linux/foo" is not a platform',
            "the platforms are linux/amd64, ",
        ),
        (("--tag", "no tag"), '--tag: "no tag" is not a tag', "a tag is up to 128 letters"),
        (("--timeout", "-1"), "--timeout: found -1, expected more than 0", "--timeout: seconds"),
        (
            ("--timeout", "inf"),
            "--timeout: found a number, expected a finite number",
            "--timeout: seconds",
        ),
        (
            ("--secret", "id=a b"),
            '--secret: "a b" is not an id of a build secret',
            "not the secret itself",
        ),
        (("--config", "a b"), '--config: "a b" is not the name of a config', "letters, digits"),
    ],
)
def test_a_wrong_request_is_refused_before_anybody_is_asked(
    imagemill: Caller, source: Path, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    outcome = imagemill("--broker", "redis://127.0.0.1:1/0", "build", source, *arguments)
    assert outcome.code == 2
    error, _, hints = outcome.err.partition("\nhint: ")
    assert message in error
    assert hint in hints


def test_every_field_of_a_request_has_the_name_of_an_option() -> None:
    options = {option for parameter in build.params for option in parameter.opts} | {"SRC"}
    assert set(NAMES) == set(BuildRequest.model_fields)
    assert set(NAMES.values()) <= options


def test_a_service_that_is_away_is_exit_code_3(imagemill: Caller) -> None:
    outcome = imagemill("--broker", "redis://:secret@127.0.0.1:1/0", "status", "x")
    assert outcome.code == 3
    assert "does not answer" in outcome.err
    assert "IMAGEMILL_BROKER" in outcome.err
    assert "secret" not in outcome.err


def test_a_relative_source_becomes_absolute(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    monkeypatch.chdir(source)
    assert located(".") == str(source)
    assert located("../source/a") == str(source / "a")


def test_a_source_that_only_the_workers_have_is_theirs_to_look_for() -> None:
    assert located("/no/such/folder", remote=True) == "/no/such/folder"


def test_a_url_is_no_path() -> None:
    assert located("docker-image://busybox") == "docker-image://busybox"


# --- hash, config check ---


def test_what_is_read_here_fails_in_words_about_this_machine(imagemill: Caller) -> None:
    outcome = imagemill("hash", "http://a.invalid/a.tar.gz")
    assert "This machine does not read from a.invalid by http://" in outcome.err
    assert "worker" not in outcome.err


def test_hash_changes_with_what_an_image_is_made_of(
    imagemill: Caller, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_ENVIRONMENT", "1")
    variants = [
        (),
        ("--build-arg", "A=1"),
        ("--build-arg", "A="),
        ("--build-arg", "FROM_ENVIRONMENT"),
        ("--label", "a=b"),
        ("--target", "x"),
        ("--platform", "linux/arm64"),
        ("--secret", "id=a"),
    ]
    hashes = [imagemill("hash", source, *variant).out for variant in variants]
    assert len(set(hashes)) == len(variants)
    assert all(len(text) == 65 for text in hashes)


def test_a_build_argument_without_a_value_comes_from_the_environment(
    imagemill: Caller, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "1")
    assert (
        imagemill("hash", source, "--build-arg", "HERE").out
        == imagemill("hash", source, "--build-arg", "HERE=1").out
    )
    assert imagemill("hash", source, "--build-arg", "NOWHERE").out == imagemill("hash", source).out


def test_the_hash_counts_the_configs_platform(
    imagemill: Caller, source: Path, tmp_path: Path
) -> None:
    config = tmp_path / "arm.yaml"
    config.write_text("builder: {type: docker, platform: linux/arm64}\n")
    given = imagemill("hash", source, "--platform", "linux/arm64").out
    assert imagemill("hash", source, "--config", config).out == given


def test_the_manifest_says_what_the_hash_covers(imagemill: Caller, source: Path) -> None:
    lines = imagemill("hash", source, "--manifest").out.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        'dockerfile "Dockerfile"',
        'file "Dockerfile"',
        'file "a"',
    ]


def test_a_missing_dockerfile_leads_to_the_option_that_names_one(
    imagemill: Caller, source: Path
) -> None:
    (source / "Dockerfile").rename(source / "model.Dockerfile")
    outcome = imagemill("hash", source)
    assert outcome.code == 2
    assert "it has model.Dockerfile" in outcome.err
    assert "hint: say which Dockerfile is meant, by its path (--file PATH)\n" in outcome.err
    (source / "model.Dockerfile").unlink()
    assert "nothing to generate one from" in imagemill("hash", source).err


def test_an_image_has_no_source_hash(imagemill: Caller) -> None:
    outcome = imagemill("hash", "docker-image://busybox")
    assert outcome.code == 2
    assert "has no source hash" in outcome.err


def test_config_check_prints_where_it_came_from_and_all_values(
    imagemill: Caller, tmp_path: Path
) -> None:
    file = tmp_path / "launch.yaml"
    file.write_text(
        "builder:\n  type: docker\n  destination: https://localhost:5000/a\nmax_jobs: 3\n"
    )
    outcome = imagemill("config", "check", file)
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == f"# {file}"
    assert "destination: localhost:5000/a" in outcome.out
    assert "type: local" in outcome.out
    assert "max_jobs" in outcome.err


def test_config_check_reads_the_variable(
    imagemill: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "launch.yaml"
    file.write_text("builder: {type: noop}\n")
    monkeypatch.setenv("IMAGEMILL_CONFIG", str(file))
    described = json.loads(imagemill("config", "check", "--json").out)
    assert described["file"] == str(file)
    assert described["config"]["builder"] == {"type": "noop"}


def test_config_check_names_line_and_key_of_an_error(imagemill: Caller, tmp_path: Path) -> None:
    file = tmp_path / "launch.yaml"
    file.write_text("builder:\n  type: docker\n  destinatoin: a/b\n")
    outcome = imagemill("config", "check", file)
    assert outcome.code == 2
    assert f"{file}:3: builder.destinatoin" in outcome.err
    assert "did you mean builder.destination?" in outcome.err


# --- What git knows ---


@pytest.fixture
def repository(source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source, committed."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git(source, "init", "-q")
    git(source, "remote", "add", "origin", "https://user:secret@example.com/team/model.git")
    git(source, "add", ".")
    git(
        source, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "-m", "first"
    )
    return source


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", folder, *arguments], check=True, capture_output=True, text=True
    ).stdout


def test_a_clean_checkout_has_a_revision_and_a_url_without_credentials(repository: Path) -> None:
    revision = git(repository, "rev-parse", "HEAD").strip()
    assert checkout(repository) == GitInfo(revision, "https://example.com/team/model.git")


def test_a_changed_checkout_is_no_revision(repository: Path) -> None:
    (repository / "a").write_text("changed")
    assert checkout(repository) == GitInfo()


def test_a_checkout_with_a_new_file_is_no_revision(repository: Path) -> None:
    (repository / "new").write_text("new")
    assert checkout(repository) == GitInfo()


def test_a_folder_that_the_repository_around_it_ignores_is_none_of_its_revisions(
    repository: Path,
) -> None:
    (repository / ".git/info/exclude").write_text("ignored/\n")
    (repository / "ignored").mkdir()
    (repository / "ignored/Dockerfile").write_text("FROM scratch\n")
    assert checkout(repository / "ignored") == GitInfo()


def test_a_checkout_without_a_remote_still_has_a_revision(repository: Path) -> None:
    git(repository, "remote", "remove", "origin")
    assert checkout(repository).revision
    assert checkout(repository).url is None


def test_a_folder_outside_of_any_repository_is_unknown(source: Path) -> None:
    assert checkout(source) == GitInfo()


def test_nothing_that_the_checkout_names_is_run(repository: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    program.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(program))
    assert checkout(repository).revision
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://token@example.com/a.git", "https://example.com/a.git"),
        ("https://example.com:8443/a.git?token=x#y", "https://example.com:8443/a.git"),
        ("ssh://git@example.com/a.git", "ssh://example.com/a.git"),
        ("git@example.com:team/a.git", "ssh://example.com/team/a.git"),
        ("/srv/git/a.git", None),
        ("file:///srv/git/a.git", None),
        ("../a.git", None),
    ],
)
def test_the_url_of_a_remote_is_published_without_credentials(remote: str, url: str | None) -> None:
    assert published(remote) == url


# --- What a terminal gets to see ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;ZXZpbA==", ""),
        ("\x9b31mred", "31mred"),
        ("a\rb\x08c\x00d", "abcd"),
        ("\u202egnp.exe", "gnp.exe"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("[bold]not markup[/bold] :smile:", "[bold]not markup[/bold] :smile:"),
    ],
)
def test_control_sequences_are_not_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_nothing_printable_is_obeyed(text: str) -> None:
    assert not any(ord(character) < 32 and character not in "\t\n" for character in printable(text))
    assert not any(127 <= ord(character) < 160 for character in printable(text))


@pytest.mark.parametrize(
    ("duration", "text"),
    [(0.04, "0.0 s"), (3.46, "3.5 s"), (59.96, "1 min 00 s"), (125, "2 min 05 s")],
)
def test_durations_are_for_people(duration: float, text: str) -> None:
    assert seconds(duration) == text


def screen(width: int = 60, **options: object) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=20, highlight=False, markup=False, **options)  # type: ignore[arg-type]
    return console, out


EVENTS = [
    Event("1", 0.0, state=State.QUEUED),
    Event("2", 1.0, state=State.BUILDING),
    Event("3", 1.0, line="[1/2] COPY \x1b]0;title\x07[red]x[/red]"),
    Event("4", 2.0, state=State.BUILDING),
]


def test_plain_lines_have_each_state_once_and_the_log_as_it_is() -> None:
    lines: list[str] = []
    with PlainView(lines.append) as view:
        for event in EVENTS:
            view.show(event)
    assert lines == [
        "[QUEUED] waiting for a worker",
        "[BUILDING] building the image",
        "[1/2] COPY [red]x[/red]",
    ]


def test_plain_lines_have_an_amount_every_some_seconds_and_none_that_is_over() -> None:
    lines: list[str] = []
    view = PlainView(lines.append)
    for at, amount in ((0.0, "1 MB"), (6.0, "2 MB"), (7.0, "3 MB"), (12.0, ""), (13.0, "4 MB")):
        view.show(Event(str(at), at, amount=amount))
    assert lines == ["2 MB", "4 MB"]


def test_plain_lines_begin_with_the_builds_id_where_it_can_be_used() -> None:
    lines: list[str] = []
    view = PlainView(lines.append)
    view.identify("3f2a")
    view.show(EVENTS[0])
    assert lines == ["build 3f2a", "[QUEUED] waiting for a worker"]


def test_a_plain_view_knows_whether_the_log_was_shown() -> None:
    view = PlainView(print)
    view.show(EVENTS[1])
    assert not view.log_shown
    view.show(EVENTS[2])
    assert view.log_shown


def test_the_live_views_log_goes_away() -> None:
    view = LiveView(screen(force_terminal=True, legacy_windows=False)[0])
    for event in EVENTS:
        view.show(event)
    assert not view.log_shown


FAILED = BuildReport(
    id="3f2a",
    status="failed",
    error=Failure(
        kind="UserError", message="Line 4", hint="mend it", state=State.BUILDING, log=("so it is",)
    ),
)


@pytest.mark.parametrize(
    ("log_shown", "kept", "shown"),
    [
        (
            False,
            True,
            "  | so it is\nerror: build: Line 4\nhint: mend it; `imagemill logs 3f2a` has the whole log\n",
        ),
        (False, False, "  | so it is\nerror: build: Line 4\nhint: mend it\n"),
        (True, True, "error: build: Line 4\nhint: mend it\n"),
        (True, False, "error: build: Line 4\nhint: mend it\n"),
    ],
)
def test_a_failure_tells_the_log_that_was_not_shown_and_where_there_is_more(
    capsys: pytest.CaptureFixture[str], log_shown: bool, kept: bool, shown: str
) -> None:
    showing.report(FAILED, as_json=False, log_shown=log_shown, kept=kept)
    assert capsys.readouterr().err == shown


def test_what_is_no_terminal_gets_plain_text_unless_colours_are_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    terminal.write(("error: ", "bold red"), "[red]no[/red]")
    assert capsys.readouterr().out == "error: [red]no[/red]\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal.write(("error: ", "bold red"), "[red]no[/red]")
    assert "\x1b[1;31merror: \x1b[0m[red]no" in capsys.readouterr().out


def render(view: LiveView) -> str:
    console, out = screen()
    console.print(view)
    return out.getvalue()


def test_the_live_view_has_steps_with_their_times_and_the_last_lines() -> None:
    console, _ = screen(force_terminal=True, legacy_windows=False)
    view = LiveView(console)
    for event in EVENTS:
        view.show(event)
    for number in range(12):
        view.show(Event(f"5-{number}", 3.0, line=f"line {number} {'x' * 100}"))
    view.note("cancelling")
    lines = render(view).splitlines()
    assert lines[0] == "  ✓ queue               1.0 s"
    assert lines[1].split()[1:2] == ["build"]
    assert [line.split()[1] for line in lines[2:12]] == [str(number) for number in range(2, 12)]
    assert all(len(line) <= 60 for line in lines)
    assert lines[12] == "  cancelling"
    view.identify("3f2a")
    assert render(view).splitlines()[0] == "  build 3f2a"


@pytest.mark.parametrize(("width", "below"), [(84, False), (83, True), (34, True)])
def test_an_amount_is_read_on_a_narrow_terminal_too(width: int, below: bool) -> None:
    console, out = screen(width=width, force_terminal=True, legacy_windows=False)
    view = LiveView(console)
    for event in EVENTS:
        view.show(event)
    pushed = "143 MB of 802 MB pushed, 9.8 MB/s, 12 of 15 layers"
    view.show(Event("8", time.time(), state=State.PUSHING))
    view.show(Event("9", 3.0, amount=pushed))
    console.print(view)
    shown = pushed if width > 60 else "143 MB of 802 MB pushed, 9.8"
    lines = [line for line in out.getvalue().splitlines() if shown in line]
    assert ["push " not in line for line in lines] == [below]


def test_the_live_view_fits_the_screen_whatever_it_shows() -> None:
    console, _ = screen(force_terminal=True, legacy_windows=False)
    view = LiveView(console)
    view.identify("3f2a")
    for number, state in enumerate([*State, *State]):
        view.show(Event(str(number), float(number), state=state))
        view.show(Event(f"{number}-1", float(number), line="\n".join(map(str, range(20)))))
    view.note("cancelling")
    # One line stays free for the cursor.
    assert len(render(view).splitlines()) == 20 - 1


def test_the_live_view_marks_the_step_that_failed() -> None:
    console, _ = screen(force_terminal=True, legacy_windows=False)
    view = LiveView(console)
    for event in EVENTS:
        view.show(event)
    error = Failure(kind="UserError", message="no")
    view.show(Event("9", 5.5, report=BuildReport(id="x", status="failed", error=error)))
    assert render(view).splitlines()[1] == "  ✗ build               4.5 s"


@pytest.mark.parametrize(
    ("status", "kind", "interrupted", "code"),
    [
        ("succeeded", None, False, 0),
        ("succeeded", None, True, 0),
        ("failed", "UserError", False, 1),
        ("failed", "ServiceUnreachable", False, 1),
        ("failed", "ConfigError", False, 2),
        ("cancelled", "BuildCancelled", False, 1),
        ("cancelled", "BuildCancelled", True, 130),
    ],
)
def test_the_exit_code_tells_how_the_build_ended(
    status: str, kind: str | None, interrupted: bool, code: int
) -> None:
    error = Failure(kind=kind, message="m") if kind else None
    report = BuildReport.load({"id": "x", "status": status, "error": error and error.dump()})
    assert exit_code(report, interrupted=interrupted) == code


def test_hint_has_the_option_of_the_field_that_it_is_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.error("It is not said", "say it", field="python")
    assert capsys.readouterr().err == "error: It is not said\nhint: say it (--python)\n"
    assert Failure.of(UserError("m", "h").about("python")).exception().field == "python"

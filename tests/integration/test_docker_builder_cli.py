"""The docker command line: choosing it, finding its engine, and running it within bounds."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import servers
from builds import Watched, packed, processes, until
from certificates import new_key, write_certificate
from imagemill.builders import Workplace, builder_for, detect
from imagemill.builders.docker import cli as docker_cli
from imagemill.builders.docker.builder import DockerCommandBuilder
from imagemill.builders.docker.cli import (
    Cli,
    Endpoint,
    find_cli,
    find_endpoint,
    reaches_engine,
    run,
)
from imagemill.builders.noop import RefusingBuilder
from imagemill.errors import (
    BuildCancelled,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    UserError,
)
from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry

ENVIRONMENT = {"PATH": os.environ["PATH"]}
IMAGE = ImageReference.parse("localhost:1/team/app:abc")

Script = Callable[[str, str], Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Makes a program named `docker` in a folder of its own."""

    def make(folder: str, text: str) -> Path:
        path = tmp_path / folder / "docker"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


OLD = 'echo "Docker version 20.10.24+dfsg1, build 297e128"; [ "$1" = --version ]'
NEW = 'echo "Docker version 28.2.2, build e6534b4"; [ "$1" = --version ]'
NEW_WITH_BUILDX = 'echo "Docker version 28.2.2, build e6534b4"'


# --- Choosing the command ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "chosen", "buildkit", "buildx"),
    [
        (OLD, NEW_WITH_BUILDX, 0, True, False),
        (NEW, OLD, 1, True, False),
        (NEW, NEW_WITH_BUILDX, 1, True, True),
        (NEW, NEW, 0, False, False),
    ],
)
def test_the_first_docker_with_buildkit_is_chosen_else_the_first(
    script: Script,
    tmp_path: Path,
    first: str,
    second: str,
    chosen: int,
    buildkit: bool,
    buildx: bool,
) -> None:
    programs = [script("one", first), script("two", second)]
    path = os.pathsep.join(str(program.parent) for program in programs)
    assert find_cli(path, tmp_path) == Cli(str(programs[chosen]), buildkit, buildx)


def test_without_docker_there_is_none_to_choose(tmp_path: Path) -> None:
    assert find_cli(str(tmp_path), tmp_path) is None


def test_a_plugin_in_the_users_own_folder_is_found_by_a_build(
    docker_cli: str, tmp_path: Path
) -> None:
    config = tmp_path / "docker-config"
    plugin = config / "cli-plugins/docker-imagemill"
    plugin.parent.mkdir(parents=True)
    metadata = json.dumps({"SchemaVersion": "0.1.0", "Vendor": "x", "Version": "1"})
    plugin.write_text(
        f"#!/bin/sh\n[ \"$1\" = docker-cli-plugin-metadata ] && echo '{metadata}' || echo plugged in\n"
    )
    plugin.chmod(0o755)
    private = tmp_path / "private"
    private.mkdir()
    (private / "config.json").write_text(
        json.dumps(DockerConfig(config).private_copy("localhost:1", None))
    )
    environment = {**ENVIRONMENT, "DOCKER_CONFIG": str(private)}
    done = subprocess.run(
        [docker_cli, "imagemill"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "plugged in\n"


# --- Finding the engine -----------------------------------------------------------------------------------------------


def test_the_engine_of_the_current_context_is_found(docker_cli: str, tmp_path: Path) -> None:
    use_context(tmp_path, "far", "tcp://far.example:2376")
    certificates = tmp_path / "contexts/tls" / hashlib.sha256(b"far").hexdigest() / "docker"
    certificates.mkdir(parents=True)
    write_certificate(certificates / "ca.pem", new_key(), "far.example")  # docker reads it
    assert find_endpoint(docker_cli, None, ENVIRONMENT, tmp_path) == Endpoint(
        "tcp://far.example:2376", certificates
    )


def use_context(docker_config: Path, name: str, host: str) -> None:
    """What `docker context create` and `docker context use` write."""
    metadata = (
        docker_config / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    )
    metadata.parent.mkdir(parents=True)
    engine = {"Host": host, "SkipTLSVerify": False}
    metadata.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": engine}}))
    (docker_config / "config.json").write_text(json.dumps({"currentContext": name}))


def test_certificates_are_handed_to_docker() -> None:
    assert Endpoint("tcp://a:2376", Path("/certs")).environment == {
        "DOCKER_HOST": "tcp://a:2376",
        "DOCKER_CERT_PATH": "/certs",
        "DOCKER_TLS_VERIFY": "1",
    }


def test_without_contexts_it_is_the_engine_of_this_machine(docker_cli: str, tmp_path: Path) -> None:
    assert (
        find_endpoint(docker_cli, None, ENVIRONMENT, tmp_path).host == "unix:///var/run/docker.sock"
    )


def test_the_environments_certificates_go_with_the_host_that_is_given(tmp_path: Path) -> None:
    environment = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}
    assert find_endpoint("docker", "tcp://a:2376", environment, tmp_path) == Endpoint(
        "tcp://a:2376", Path("/certs")
    )
    assert find_endpoint("docker", "tcp://a:2375", {}, tmp_path).environment == {
        "DOCKER_HOST": "tcp://a:2375"
    }


def test_docker_is_detected_where_an_engine_answers(
    docker_cli: str, engine: str, tmp_path: Path
) -> None:
    assert detect(Path(docker_cli), engine, DockerConfig(tmp_path)) == "docker"


def test_noop_is_detected_where_there_is_no_docker_command(tmp_path: Path) -> None:
    assert (
        detect(None, "unix:///anything", DockerConfig(tmp_path), {"PATH": str(tmp_path)}) == "noop"
    )


def test_noop_is_detected_where_nobody_named_an_engine_and_there_is_none(
    docker_cli: str, tmp_path: Path
) -> None:
    use_context(tmp_path, "off", f"unix://{tmp_path}/missing.sock")
    assert detect(Path(docker_cli), None, DockerConfig(tmp_path), ENVIRONMENT) == "noop"


def test_an_engine_that_was_named_and_does_not_answer_is_no_noop(
    docker_cli: str, tmp_path: Path
) -> None:
    host = f"tcp://127.0.0.1:{servers.free_port()}"
    with pytest.raises(ServiceUnreachable) as caught:
        detect(Path(docker_cli), host, DockerConfig(tmp_path))
    assert caught.value.message == f"The Docker engine at {host} does not answer"


def test_an_engine_that_hangs_is_no_noop(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_cli, "ANSWER", 0.2)
    cli = script("hanging", f"exec {sys.executable} -c 'import time; time.sleep(1000)'")
    with pytest.raises(ServiceUnreachable, match="gave no answer"):
        reaches_engine(str(cli), "tcp://127.0.0.1:1", ENVIRONMENT, tmp_path)


def test_an_engine_that_refuses_the_worker_is_no_noop(script: Script, tmp_path: Path) -> None:
    refusal = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
    cli = script(
        "refused",
        f'[ "$1" = context ] && exec cat {tmp_path}/context; echo "{refusal}" >&2; exit 1',
    )
    context = {
        "Endpoints": {"docker": {"Host": "unix:///var/run/docker.sock"}},
        "TLSMaterial": {},
        "Storage": {},
    }
    (tmp_path / "context").write_text(json.dumps([context]))
    with pytest.raises(
        PermissionDenied, match=r"may not use the Docker engine at unix:///var/run/docker\.sock"
    ):
        reaches_engine(str(cli), None, ENVIRONMENT, tmp_path)


# --- Running it -------------------------------------------------------------------------------------------------------


def nothing() -> None:
    pass


def test_lines_come_in_order_with_both_streams_and_the_exit_code() -> None:
    lines: list[str] = []
    code = run(
        ["sh", "-c", "echo one; echo two >&2; printf three; exit 7"],
        ENVIRONMENT,
        lines.append,
        nothing,
    )
    assert (lines, code) == (["one", "two", "three"], 7)


def test_text_that_is_not_utf8_is_kept_with_replacements() -> None:
    lines: list[str] = []
    run(["printf", r"caf\351 \303\251\n"], ENVIRONMENT, lines.append, nothing)
    assert lines == ["caf\N{REPLACEMENT CHARACTER} é"]


def test_a_flood_of_output_stays_in_bounded_memory() -> None:
    flood = (
        "yes 0123456789 | head -c 3000000; head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end"
    )
    count = 0
    longest = 0
    last = ""

    def read(line: str) -> None:
        nonlocal count, longest, last
        count, longest, last = count + 1, max(longest, len(line)), line

    tracemalloc.start()
    try:
        run(["sh", "-c", flood], ENVIRONMENT, read, nothing)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count > 270_000
    assert longest == docker_cli.MAX_LINE
    assert last == "end"
    assert peak < 3_000_000


class Impatient:
    """Raises when it is asked for the third time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked == 3:
            raise BuildCancelled("The build was cancelled")


@pytest.mark.parametrize("close", ["", "exec >&- 2>&-;"])
def test_a_silent_command_is_stopped_with_all_that_it_started(close: str) -> None:
    marker = f"7{uuid.uuid4().int % 10**8}"
    command = ["sh", "-c", f"{close} sleep {marker} & sleep {marker}"]
    with pytest.raises(BuildCancelled):
        run(command, ENVIRONMENT, nothing_of, Impatient())
    assert until(lambda: not processes(f"sleep {marker}"))


def nothing_of(_: str) -> None:
    pass


def test_a_command_that_does_not_end_when_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_cli, "GRACE", 0.1)
    marker = f"8{uuid.uuid4().int % 10**8}"
    progress = Watched(stop_at="ready")
    with pytest.raises(BuildCancelled):
        run(
            ["sh", "-c", f"trap '' TERM; echo ready; sleep {marker}"],
            ENVIRONMENT,
            progress.log,
            progress.check,
        )
    assert until(lambda: not processes(f"sleep {marker}"))


def test_a_command_that_is_missing_is_the_operators_to_mend(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be run: No such file") as caught:
        run([str(tmp_path / "docker")], ENVIRONMENT, nothing_of, nothing)
    assert "install the Docker CLI" in caught.value.hint


def test_a_worker_without_docker_says_what_to_install(tmp_path: Path) -> None:
    place = Workplace(
        tmp_path,
        DockerConfig(tmp_path),
        docker_host="unix:///x",
        environment={"PATH": str(tmp_path)},
    )
    with pytest.raises(OperatorError, match="no docker command") as caught:
        DockerCommandBuilder(place).build(
            BuildInputs(IMAGE),
            packed("FROM scratch\n", {}),
            OciRegistry(place.docker_config),
            Watched(),
        )
    assert "install the Docker CLI" in caught.value.hint


# --- The table of builders --------------------------------------------------------------------------------------------


def test_noop_refuses_and_says_how_building_is_turned_on(tmp_path: Path) -> None:
    builder = builder_for(
        SimpleNamespace(type="noop"), scratch=tmp_path, docker_config=DockerConfig(tmp_path)
    )
    assert isinstance(builder, RefusingBuilder)
    with pytest.raises(UserError) as caught:
        builder.build(
            BuildInputs(IMAGE), packed("", {}), OciRegistry(DockerConfig(tmp_path)), Watched()
        )
    assert caught.value.message == (
        f"{IMAGE} does not exist, and nothing can build it: builder.type is noop, or it is not set and no Docker"
        " engine was found"
    )
    assert "set builder.type to docker or kaniko" in caught.value.hint


def test_an_unknown_builder_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no builder 'dokcer'") as caught:
        builder_for(
            SimpleNamespace(type="dokcer"), scratch=tmp_path, docker_config=DockerConfig(tmp_path)
        )
    assert "did you mean 'docker'?" in caught.value.hint

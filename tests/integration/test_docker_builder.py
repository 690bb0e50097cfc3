"""The docker builder with a real engine: what it keeps to itself, what it leaves behind, and how it
fails.
"""

import os
import stat
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import servers
from builds import SHELL, PushedImage, Watched, packed, processes
from imagemill.builders import Workplace
from imagemill.builders.docker import cli as docker_cli
from imagemill.builders.docker.builder import DockerCommandBuilder
from imagemill.errors import (
    BuildCancelled,
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    UserError,
)
from imagemill.messages import State
from imagemill.ports import BuildInputs, Registry
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry


@pytest.fixture
def place(tmp_path: Path, engine: str, docker_cli: str) -> Workplace:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Workplace(scratch, DockerConfig(tmp_path / "docker-config"), Path(docker_cli), engine)


@pytest.fixture
def image(registry: str) -> ImageReference:
    return ImageReference.parse(f"{registry}/{uuid.uuid4().hex}:abc")


@pytest.fixture
def oci(place: Workplace, registry: str) -> Registry:
    return OciRegistry(place.docker_config, frozenset({registry}))


def docker(place: Workplace, *arguments: str) -> str:
    """What the docker command says of the engine."""
    command = [str(place.docker_cli), "--host", str(place.docker_host), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def failure(
    place: Workplace,
    oci: Registry,
    image: ImageReference,
    dockerfile: str,
    files: Mapping[str, bytes | Path],
) -> ImagemillError:
    with pytest.raises(ImagemillError) as caught:
        DockerCommandBuilder(place).build(
            BuildInputs(image), packed(dockerfile, files), oci, Watched()
        )
    assert list(place.scratch.iterdir()) == []
    return caught.value


# --- What it keeps to itself ------------------------------------------------------------------------------------------


def test_values_of_build_arguments_are_in_no_process_list(
    place: Workplace, oci: Registry, image: ImageReference, busybox: Path
) -> None:
    value = uuid.uuid4().hex
    seen: list[list[str]] = []
    progress = Watched(
        on={"running": lambda: seen.extend([processes(str(image)), processes(value)])}
    )
    dockerfile = f"{SHELL}ARG TOKEN\nRUN echo running; sleep 2; [ ${{#TOKEN}} = 32 ]\n"
    inputs = BuildInputs(image, build_args={"TOKEN": value})
    DockerCommandBuilder(place).build(
        inputs, packed(dockerfile, {"busybox": busybox}), oci, progress
    )
    with_image, with_value = seen
    assert with_image != []
    assert with_value == []


def test_arguments_that_docker_would_obey_reach_the_build_alone(
    place: Workplace, oci: Registry, image: ImageReference, busybox: Path
) -> None:
    names = ("DOCKER_HOST", "DOCKER_CONFIG", "HOME", "LD_PRELOAD", "http_proxy", "BUILDX_BUILDER")
    values = {name: f"/no/{name}" for name in names}
    declared = "".join(f"ARG {name}\n" for name in names)
    printed = "; ".join(f"echo {name}=${name}" for name in names)
    progress = Watched()
    inputs = BuildInputs(image, build_args=values)
    DockerCommandBuilder(place).build(
        inputs, packed(f"{SHELL}{declared}RUN {printed}\n", {"busybox": busybox}), oci, progress
    )
    assert {f"{name}={value}" for name, value in values.items()} <= set(progress.lines)


def test_credentials_are_in_a_private_folder_that_goes_with_the_build(
    place: Workplace, oci: Registry, image: ImageReference, busybox: Path
) -> None:
    modes: list[int] = []

    def look() -> None:
        (config,) = place.scratch.glob("*/config/config.json")
        modes.extend(
            stat.S_IMODE(path.stat().st_mode) for path in (config.parent, config.parent.parent)
        )

    progress = Watched(on={"running": look})
    DockerCommandBuilder(place).build(
        BuildInputs(image),
        packed(f"{SHELL}RUN echo running\n", {"busybox": busybox}),
        oci,
        progress,
    )
    assert modes == [0o700, 0o700]
    assert list(place.scratch.iterdir()) == []
    assert not place.docker_config.folder.exists()


# --- What it leaves behind --------------------------------------------------------------------------------------------


def test_no_tag_is_left_in_the_engine(
    place: Workplace, oci: Registry, image: ImageReference
) -> None:
    DockerCommandBuilder(place).build(
        BuildInputs(image), packed("FROM scratch\nCOPY a /\n", {"a": b"1"}), oci, Watched()
    )
    left = docker(place, "image", "ls", "--format", "{{.Repository}}")
    assert image.path not in left
    assert "imagemill-build" not in left


def test_a_tag_that_another_build_took_away_is_given_again(
    place: Workplace, oci: Registry, image: ImageReference
) -> None:
    progress = Watched(on={State.PUSHING: lambda: docker(place, "rmi", str(image))})
    context = packed("FROM scratch\nCOPY a /\n", {"a": b"1"})
    digest = DockerCommandBuilder(place).build(BuildInputs(image), context, oci, progress)
    assert oci.digest(image) == digest


def test_a_push_that_is_cancelled_stops(
    place: Workplace, oci: Registry, image: ImageReference
) -> None:
    progress = Watched(stop_at=f"The push refers to repository [{image.repository}]")
    context = packed("FROM scratch\nCOPY a /\n", {"a": os.urandom(50_000_000)})
    with pytest.raises(BuildCancelled):
        DockerCommandBuilder(place).build(BuildInputs(image), context, oci, progress)
    assert progress.states == [State.PUSHING]
    assert oci.digest(image) is None
    assert image.path not in docker(place, "image", "ls", "--format", "{{.Repository}}")


# --- How instructions fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dockerfile", "message", "hint"),
    [
        (
            "FROM scratch\nCOPX a b\n",
            "Line 2 of the Dockerfile cannot be read: unknown instruction: COPX",
            "mend",
        ),
        (
            f"{SHELL}RUN <<END\necho x\nEND\n",
            "Line 5 of the Dockerfile cannot be read: unknown instruction: ECHO",
            "here-documents need a newer Docker engine",
        ),
        (
            f"{SHELL}ARG A=1\nRUN [ $A = 1 ] || exit 4\nFROM shell\nRUN true\nARG A=2\n"
            "RUN [ $A = 1 ] || exit 4\nRUN [ $A = 1 ] || exit 4\n",
            "Line 9 of the Dockerfile (RUN [ $A = 1 ] || exit 4) failed with exit code 4",
            "the last lines of the log",
        ),
        (f"{SHELL}RUN exit 137\n", "failed with exit code 137: it was killed", "less memory"),
        (f"{SHELL}RUN nosuchprogram\n", "Line 4 of the Dockerfile", "a program was not found"),
        (
            f"{SHELL}ONBUILD RUN echo inherited; exit 5\nFROM shell\nRUN true\n",
            "An instruction of the base image (ONBUILD RUN) failed with exit code 5",
            "",
        ),
        (f"{SHELL}USER nobody\nRUN true\n", "unable to find user nobody", "mend it"),
        (
            f"{SHELL}FROM scratch\nCOPY --from=shell /nothing /\n",
            "Line 5 of the Dockerfile (COPY --from=shell /nothing /): there is no 'nothing' where it copies from",
            "check path and stage",
        ),
        ("FROM ${NOT_SET}\n", "base name (${NOT_SET}) should not be blank", "log"),
        (
            f"{SHELL}RUN --mount=type=secret,id=token,required=true true\n",
            "Line 4 of the Dockerfile (RUN --mount=type=secret,id=token,required=true true) needs the build secret",
            "'token'",
        ),
    ],
)
def test_a_dockerfile_that_fails_is_the_requesters_to_mend(
    place: Workplace,
    oci: Registry,
    image: ImageReference,
    busybox: Path,
    dockerfile: str,
    message: str,
    hint: str,
) -> None:
    error = failure(place, oci, image, dockerfile, {"busybox": busybox})
    assert type(error) is UserError
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize("name", ["", "A=B", "A\0B"])
def test_a_build_argument_that_cannot_have_its_name_is_the_requesters_to_mend(
    place: Workplace, oci: Registry, image: ImageReference, name: str
) -> None:
    with pytest.raises(UserError, match="cannot be the name of a build argument"):
        DockerCommandBuilder(place).build(
            BuildInputs(image, build_args={name: "x"}), packed("FROM scratch\n", {}), oci, Watched()
        )


def test_a_secret_without_a_file_is_the_operators_to_mend(
    place: Workplace, oci: Registry, image: ImageReference, tmp_path: Path
) -> None:
    with pytest.raises(OperatorError, match="no file for the build secret 'token'"):
        DockerCommandBuilder(place).build(
            BuildInputs(image, secrets={"token": tmp_path / "missing"}),
            packed("FROM scratch\n", {}),
            oci,
            Watched(),
        )


# --- How base images fail ---------------------------------------------------------------------------------------------


def test_a_base_image_that_does_not_exist_is_the_requesters_to_mend(
    place: Workplace, oci: Registry, image: ImageReference, registry: str
) -> None:
    error = failure(place, oci, image, f"FROM {registry}/no/such:1\n", {})
    assert type(error) is UserError
    assert error.message == f"The base image {registry}/no/such:1 does not exist"
    assert "check its name" in error.hint


def test_a_base_image_whose_registry_is_away_is_tried_again(
    place: Workplace, oci: Registry, image: ImageReference
) -> None:
    base = f"localhost:{servers.free_port()}/base:1"
    error = failure(place, oci, image, f"FROM {base}\n", {})
    assert type(error) is ServiceUnreachable
    assert f"Pulling the base image {base} failed" in error.message
    assert "check that localhost" in error.hint


def test_a_base_image_that_may_not_be_pulled_is_the_operators_to_mend(
    place: Workplace, oci: Registry, image: ImageReference, tmp_path: Path
) -> None:
    users = tmp_path / "htpasswd"
    users.write_bytes(
        subprocess.check_output([servers.program("htpasswd"), "-Bbn", "ann", "right"])
    )
    with servers.docker_registry(tmp_path, auth=users) as address:
        error = failure(place, oci, image, f"FROM {address}/base:1\n", {})
    assert type(error) is PermissionDenied
    assert f"Pulling the base image {address}/base:1 failed" in error.message
    assert f"give the worker a login that {address} accepts" in error.hint


def test_something_to_add_whose_server_is_away_is_tried_again(
    place: Workplace, oci: Registry, image: ImageReference
) -> None:
    url = f"http://localhost:{servers.free_port()}/file"
    error = failure(place, oci, image, f"FROM scratch\nADD {url} /\n", {})
    assert type(error) is ServiceUnreachable
    assert error.message.startswith(f"Fetching {url} failed")
    assert "network" in error.hint


# --- How engines fail -------------------------------------------------------------------------------------------------


@pytest.fixture
def own_engine(tmp_path: Path) -> Iterator[servers.Server]:
    """An engine that a test may kill."""
    folder = tmp_path / "engine"
    folder.mkdir()
    with servers.engine(folder) as server:
        yield server


def test_no_engine_is_a_service_unreachable(
    place: Workplace, oci: Registry, image: ImageReference, tmp_path: Path
) -> None:
    host = f"unix://{tmp_path}/missing.sock"
    error = failure(
        replace(place, docker_host=host), oci, image, "FROM scratch\nCOPY a /\n", {"a": b"1"}
    )
    assert type(error) is ServiceUnreachable
    assert error.message == f"The Docker engine at {host} does not answer"
    assert "systemctl start docker" in error.hint
    assert "DOCKER_HOST" in error.hint


def test_an_engine_that_dies_is_a_service_unreachable(
    place: Workplace,
    oci: Registry,
    image: ImageReference,
    busybox: Path,
    own_engine: servers.Server,
) -> None:
    progress = Watched(on={"running": own_engine.kill})
    dockerfile = f"{SHELL}RUN echo running; /bin/busybox sleep 1000\n"
    with pytest.raises(ServiceUnreachable) as caught:
        DockerCommandBuilder(replace(place, docker_host=own_engine.url)).build(
            BuildInputs(image), packed(dockerfile, {"busybox": busybox}), oci, progress
        )
    assert own_engine.url in caught.value.message
    assert caught.value.hint


def test_a_build_in_an_engine_that_hangs_can_be_cancelled(
    place: Workplace,
    oci: Registry,
    image: ImageReference,
    busybox: Path,
    own_engine: servers.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(docker_cli, "GRACE", 0.5)
    monkeypatch.setattr(docker_cli, "ANSWER", 0.5)
    progress = Watched(stop_at="running", on={"running": own_engine.pause})
    dockerfile = f"{SHELL}RUN echo running; /bin/busybox sleep 1000\n"
    with pytest.raises(BuildCancelled):
        DockerCommandBuilder(replace(place, docker_host=own_engine.url)).build(
            BuildInputs(image), packed(dockerfile, {"busybox": busybox}), oci, progress
        )
    assert processes(str(image)) == []
    assert any("Could not clear up in the Docker engine" in line for line in progress.lines)


@pytest.fixture
def small_engine(tmp_path: Path) -> Iterator[servers.Server]:
    """An engine with 60 MB for its images."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(folder)], check=True)
    try:
        with servers.engine(folder) as server:
            yield server
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    "dockerfile", ["FROM scratch\nCOPY big /\n", f"{SHELL}RUN /bin/busybox cat /dev/zero > /big\n"]
)
def test_an_engine_without_space_is_the_operators_to_mend(
    place: Workplace,
    oci: Registry,
    image: ImageReference,
    busybox: Path,
    small_engine: servers.Server,
    dockerfile: str,
) -> None:
    at = replace(place, docker_host=small_engine.url)
    error = failure(
        at,
        oci,
        image,
        dockerfile.replace("dd", "/bin/busybox dd"),
        {"busybox": busybox, "big": bytes(80_000_000)},
    )
    assert type(error) is OperatorError
    assert f"The Docker engine at {small_engine.url} has no space left" in error.message
    assert "docker builder prune" in error.hint


# --- The classic builder ----------------------------------------------------------------------------------------------

NO_BUILDX = """\
#!/bin/sh
case "$1 $2" in
"--version "*) echo "Docker version 28.2.2, build e6534b4" ;;
"buildx version") echo "docker: unknown command: docker buildx" >&2; exit 1 ;;
*) exec {real} "$@" ;;
esac
"""


@pytest.fixture
def without_buildx(place: Workplace, tmp_path: Path) -> Workplace:
    """A docker command that says what one of the newer kind says of itself without its buildx
    plugin.
    """
    cli = tmp_path / "docker"
    cli.write_text(NO_BUILDX.format(real=place.docker_cli))
    cli.chmod(0o755)
    return replace(place, docker_cli=cli)


def test_without_buildkit_the_classic_builder_builds_and_the_log_says_what_is_missing(
    without_buildx: Workplace, oci: Registry, image: ImageReference, busybox: Path
) -> None:
    progress = Watched()
    inputs = BuildInputs(
        image, target="it", build_args={"A": "b"}, labels={"l": "m"}, platform="linux/amd64"
    )
    dockerfile = f"{SHELL}FROM shell AS it\nARG A\nRUN echo $A > /a\nFROM scratch\n"
    digest = DockerCommandBuilder(without_buildx).build(
        inputs, packed(dockerfile, {"busybox": busybox}), oci, progress
    )
    assert oci.digest(image) == digest
    assert PushedImage(image).files["a"] == b"b\n"
    assert PushedImage(image).labels == {"l": "m"}
    assert "install docker-buildx-plugin" in progress.lines[0]


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        (
            f"{SHELL}RUN echo ERROR: no; \\\n exit 3\nRUN true\n",
            "Line 4 of the Dockerfile (RUN echo ERROR: no; exit 3) failed",
        ),
        (
            "FROM scratch\nCOPY nowhere /\n",
            "Line 2 of the Dockerfile (COPY nowhere /): there is no 'nowhere'",
        ),
        (
            "FROM scratch\nCOPX a b\n",
            "Line 2 of the Dockerfile cannot be read: unknown instruction: COPX",
        ),
    ],
)
def test_what_fails_in_the_classic_builder_is_told_alike(
    without_buildx: Workplace,
    oci: Registry,
    image: ImageReference,
    busybox: Path,
    dockerfile: str,
    message: str,
) -> None:
    error = failure(without_buildx, oci, image, dockerfile, {"busybox": busybox})
    assert type(error) is UserError
    assert message in error.message


def test_secrets_need_buildkit(
    without_buildx: Workplace, oci: Registry, image: ImageReference, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("value")
    with pytest.raises(OperatorError, match="Build secrets need BuildKit"):
        DockerCommandBuilder(without_buildx).build(
            BuildInputs(image, secrets={"token": secret}),
            packed("FROM scratch\n", {}),
            oci,
            Watched(),
        )


# --- Caches and keys --------------------------------------------------------------------------------------------------

DICE = f"{SHELL}RUN head -c 16 /dev/urandom > /dice\n"


def thrown(
    place: Workplace, oci: Registry, busybox: Path, inputs: BuildInputs
) -> tuple[str, Watched]:
    """The digest of an image that is another one each time that it is really built."""
    docker(place, "builder", "prune", "--all", "--force")
    progress = Watched()
    digest = DockerCommandBuilder(place).build(
        inputs, packed(DICE, {"busybox": busybox}), oci, progress
    )
    return digest, progress


def test_layers_are_left_for_builds_elsewhere_and_the_image_is_as_without(
    place: Workplace, oci: Registry, image: ImageReference, registry: str, busybox: Path
) -> None:
    cache = ImageReference.parse(f"{registry}/{uuid.uuid4().hex}/cache:layers")
    first, _ = thrown(place, oci, busybox, BuildInputs(image, layer_cache=cache))
    assert thrown(place, oci, busybox, BuildInputs(image))[0] != first
    assert thrown(place, oci, busybox, BuildInputs(image, layer_cache=cache))[0] == first
    assert str(cache) not in docker(place, "images", "--format", "{{.Repository}}:{{.Tag}}")


def test_cache_that_cannot_be_is_told_and_the_image_is_there(
    place: Workplace, oci: Registry, image: ImageReference
) -> None:
    nowhere, progress = "localhost:1/cache:layers", Watched()
    inputs = BuildInputs(image, cache_from=(nowhere,), cache_to=nowhere)
    context = packed("FROM scratch\nCOPY a /\n", {"a": b"1"})
    digest = DockerCommandBuilder(place).build(inputs, context, oci, progress)
    assert oci.digest(image) == digest
    (warning,) = progress.warnings
    assert warning.startswith("The layers are not kept for later builds: ")
    assert "localhost:1" in warning


def test_instruction_may_use_an_ssh_key_by_an_agent(
    place: Workplace, oci: Registry, image: ImageReference, busybox: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    dockerfile = (
        f"{SHELL}RUN --mount=type=ssh,id=deploy,required"
        " [ -S $SSH_AUTH_SOCK ] && echo the agent is there\n"
    )
    progress = Watched()
    DockerCommandBuilder(place).build(
        BuildInputs(image, ssh={"deploy": key}),
        packed(dockerfile, {"busybox": busybox}),
        oci,
        progress,
    )
    assert "the agent is there" in progress.lines

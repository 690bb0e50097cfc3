"""What holds for every builder that makes images. An adapter joins by a line in `BUILDERS`."""

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import servers
from builds import SHELL, PushedImage, Watched, packed, processes, until
from http_faults import FaultyProxy
from imagemill.builders import Workplace
from imagemill.builders.docker.builder import PUSH_TRIES, DockerCommandBuilder
from imagemill.builders.labels import SOURCE_HASH, labels
from imagemill.errors import (
    BuildCancelled,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.messages import State
from imagemill.ports import Builder, BuildInputs, Credentials, Registry
from imagemill.reference import ImageReference
from imagemill.registries.authorization import Login
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry


class User:
    """A source of credentials that has one login for all registries."""

    def __init__(self, username: str, password: str) -> None:
        self._credentials = Credentials(username, password)

    def login(self, repository: ImageReference) -> Login:
        return Login(self._credentials)


class Renewed:
    """A source of credentials that has these, one after the other, and then the last of them."""

    def __init__(self, *credentials: Credentials) -> None:
        self._credentials = list(credentials)

    def login(self, repository: ImageReference) -> Login:
        left = self._credentials
        return Login(left.pop(0) if len(left) > 1 else left[0])


def docker(request: pytest.FixtureRequest, folder: Path) -> Builder:
    return DockerCommandBuilder(
        Workplace(
            scratch=folder,
            docker_config=DockerConfig(folder / "no-docker-config"),
            docker_cli=Path(request.getfixturevalue("docker_cli")),
            docker_host=request.getfixturevalue("engine"),
        )
    )


BUILDERS = {"docker": docker}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture(params=BUILDERS)
def builder(request: pytest.FixtureRequest, scratch: Path) -> Builder:
    return BUILDERS[request.param](request, scratch)


@pytest.fixture
def image(registry: str) -> ImageReference:
    """A name that no other test uses."""
    return ImageReference.parse(f"{registry}/team/{uuid.uuid4().hex}:abc")


@pytest.fixture
def open_registry(registry: str, tmp_path: Path) -> Registry:
    return OciRegistry(DockerConfig(tmp_path / "nothing"), frozenset({registry}))


def test_an_image_is_built_and_pushed_under_the_digest_that_is_returned(
    builder: Builder, image: ImageReference, open_registry: Registry, scratch: Path
) -> None:
    progress = Watched()
    context = packed("FROM scratch\nCOPY . /\n", {"a": b"one", "b/c": b"two"})
    digest = builder.build(BuildInputs(image), context, open_registry, progress)
    assert open_registry.digest(image) == digest
    assert PushedImage(image).files == {"a": b"one", "b/c": b"two"}
    assert progress.states == [State.PUSHING]
    assert any("COPY . /" in line for line in progress.lines)
    assert list(scratch.iterdir()) == []


def test_the_same_context_built_twice_has_the_same_digest(
    builder: Builder, image: ImageReference, open_registry: Registry
) -> None:
    def build() -> str:
        return builder.build(
            BuildInputs(image),
            packed("FROM scratch\nCOPY a /\n", {"a": b"1"}),
            open_registry,
            Watched(),
        )

    assert build() == build()


def test_an_ignored_dockerfile_is_used_and_not_copied(
    builder: Builder, image: ImageReference, open_registry: Registry
) -> None:
    context = packed(
        "FROM scratch\nCOPY . /\n", {".dockerignore": b"*\n", "a": b"kept: it was packed"}
    )
    builder.build(BuildInputs(image), context, open_registry, Watched())
    assert set(PushedImage(image).files) == {".dockerignore", "a"}


STAGES = (
    SHELL
    + """\
FROM shell AS first
ARG GREETING
RUN echo "$GREETING" > /greeting
FROM shell AS second
RUN echo second > /second
"""
)


def test_target_arguments_and_labels_reach_the_image(
    builder: Builder, image: ImageReference, open_registry: Registry, busybox: Path
) -> None:
    wanted = labels("0123", "rev", "https://example.com/repo", {"team": "a b=c"})
    inputs = BuildInputs(
        image, target="first", build_args={"GREETING": "hello, world"}, labels=wanted
    )
    builder.build(inputs, packed(STAGES, {"busybox": busybox}), open_registry, Watched())
    pushed = PushedImage(image)
    assert pushed.files["greeting"] == b"hello, world\n"
    assert "second" not in pushed.files
    assert pushed.labels == wanted
    assert pushed.labels[SOURCE_HASH] == "0123"


def test_the_platform_reaches_the_image(
    builder: Builder, image: ImageReference, open_registry: Registry
) -> None:
    inputs = BuildInputs(image, platform="linux/arm64")
    builder.build(inputs, packed("FROM scratch\nCOPY a /\n", {"a": b"1"}), open_registry, Watched())
    assert (PushedImage(image).config["os"], PushedImage(image).config["architecture"]) == (
        "linux",
        "arm64",
    )


def test_a_secret_is_there_while_building_and_nowhere_afterwards(
    builder: Builder, image: ImageReference, open_registry: Registry, busybox: Path, tmp_path: Path
) -> None:
    value = uuid.uuid4().hex
    secret = tmp_path / 'a, "b" secret'
    secret.write_text(value)
    dockerfile = (
        f"{SHELL}RUN --mount=type=secret,id=token /bin/busybox wc -c < /run/secrets/token\n"
    )
    progress = Watched()
    inputs = BuildInputs(image, secrets={"token": secret})
    builder.build(inputs, packed(dockerfile, {"busybox": busybox}), open_registry, progress)
    assert str(len(value)) in progress.lines
    pushed = PushedImage(image)
    assert value.encode() not in pushed.layers
    assert value not in f"{pushed.config}{progress.lines}{inputs}"


def test_an_instruction_that_fails_is_named_with_its_line_and_exit_code(
    builder: Builder, image: ImageReference, open_registry: Registry, busybox: Path
) -> None:
    dockerfile = f"{SHELL}RUN true\n\nRUN echo the reason; \\\n    exit 3\n"
    progress = Watched()
    with pytest.raises(UserError) as caught:
        builder.build(
            BuildInputs(image), packed(dockerfile, {"busybox": busybox}), open_registry, progress
        )
    assert (
        caught.value.message
        == "Line 6 of the Dockerfile (RUN echo the reason; exit 3) failed with exit code 3"
    )
    assert caught.value.hint == "the last lines of the log are the instruction's own"
    assert "the reason" in progress.lines


def test_an_unknown_target_is_told_with_those_that_exist(
    builder: Builder, image: ImageReference, open_registry: Registry, busybox: Path
) -> None:
    inputs = BuildInputs(image, target="frist")
    with pytest.raises(UserError) as caught:
        builder.build(inputs, packed(STAGES, {"busybox": busybox}), open_registry, Watched())
    assert caught.value.message == "The Dockerfile has no stage 'frist'"
    assert caught.value.hint == "did you mean 'first'? its stages are: shell, first, second"


def test_a_missing_file_is_told_with_the_line_that_wants_it(
    builder: Builder, image: ImageReference, open_registry: Registry
) -> None:
    with pytest.raises(UserError) as caught:
        builder.build(
            BuildInputs(image),
            packed("FROM scratch\nCOPY nowhere /\n", {}),
            open_registry,
            Watched(),
        )
    assert (
        caught.value.message
        == "Line 2 of the Dockerfile (COPY nowhere /): there is no 'nowhere' in the build context"
    )
    assert ".dockerignore" in caught.value.hint


def test_a_build_that_is_cancelled_stops_what_it_runs(
    builder: Builder, image: ImageReference, open_registry: Registry, busybox: Path, scratch: Path
) -> None:
    marker = f"6{uuid.uuid4().int % 10**8}"
    dockerfile = f"{SHELL}RUN echo running; /bin/busybox sleep {marker}\n"
    progress = Watched(stop_at="running")
    with pytest.raises(BuildCancelled):
        builder.build(
            BuildInputs(image), packed(dockerfile, {"busybox": busybox}), open_registry, progress
        )
    assert until(lambda: not processes(f"sleep {marker}"))
    assert progress.states == []
    assert open_registry.digest(image) is None
    assert list(scratch.iterdir()) == []


def test_builds_of_one_image_at_once_do_not_disturb_each_other(
    builder: Builder, image: ImageReference, open_registry: Registry, busybox: Path
) -> None:
    barrier = threading.Barrier(4)

    def build(_: int) -> str:
        barrier.wait()
        while (
            True
        ):  # as the step does: a registry's files may be read while another push writes them
            context = packed(f"{SHELL}RUN echo {image.path} > /name\n", {"busybox": busybox})
            try:
                return builder.build(BuildInputs(image), context, open_registry, Watched())
            except TransientError as error:
                if not error.message.startswith(f"Pushing to {image.repository} failed: "):
                    raise

    with ThreadPoolExecutor(4) as pool:
        digests = set(pool.map(build, range(4)))
    assert digests == {open_registry.digest(image)}


@pytest.fixture(scope="module")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that wants the user `ann` with the password `right`."""
    folder = tmp_path_factory.mktemp("private")
    users = folder / "htpasswd"
    write_password(users, "right")
    with servers.docker_registry(folder, auth=users) as address:
        yield address


def write_password(users: Path, password: str) -> None:
    """Let the password of `ann` be this one."""
    users.write_bytes(
        subprocess.check_output([servers.program("htpasswd"), "-Bbn", "ann", password])
    )


def registry_with(login: User | Renewed, address: str) -> Registry:
    return OciRegistry(login, frozenset({address}))


def test_the_registrys_credentials_are_used(builder: Builder, private_registry: str) -> None:
    image = ImageReference.parse(f"{private_registry}/{uuid.uuid4().hex}:abc")
    registry = registry_with(User("ann", "right"), private_registry)
    digest = builder.build(
        BuildInputs(image), packed("FROM scratch\nCOPY a /\n", {"a": b"1"}), registry, Watched()
    )
    assert registry.digest(image) == digest


def test_wrong_credentials_are_no_permission_for_the_repository(
    builder: Builder, private_registry: str
) -> None:
    image = ImageReference.parse(f"{private_registry}/team/app:abc")
    progress = Watched()
    with pytest.raises(PermissionDenied) as caught:
        builder.build(
            BuildInputs(image),
            packed("FROM scratch\nCOPY a /\n", {"a": b"1"}),
            registry_with(User("ann", "wr0ng-passw0rd"), private_registry),
            progress,
        )
    assert f"{private_registry}/team/app" in caught.value.message
    assert f"give the worker a login that {private_registry} accepts" in caught.value.hint
    assert "wr0ng-passw0rd" not in f"{caught.value}{progress.lines}"


ENDED, LASTING = time.time() - 1, time.time() + 3600
SMALL = "FROM scratch\nCOPY a /\n"
PUSH = "The push refers to repository"


def pushes(progress: Watched) -> int:
    """How often a push was begun."""
    return sum(line.startswith(PUSH) for line in progress.lines)


def test_a_push_that_outlives_its_credentials_goes_on_with_new_ones(
    builder: Builder, tmp_path: Path
) -> None:
    users = tmp_path / "htpasswd"
    write_password(users, "old")
    old, new = Credentials("ann", "old", expires=ENDED), Credentials("ann", "new", expires=LASTING)
    progress = Watched(on={State.PUSHING: lambda: write_password(users, "new")})
    with servers.docker_registry(tmp_path, auth=users) as address:
        image = ImageReference.parse(f"{address}/team/app:abc")
        assert registry_with(User("ann", "old"), address).digest(image) is None
        given = registry_with(
            Renewed(old, old, new), address
        )  # for the build, for the push, and for the next one
        digest = builder.build(BuildInputs(image), packed(SMALL, {"a": b"1"}), given, progress)
        assert registry_with(User("ann", "new"), address).digest(image) == digest
    assert pushes(progress) == 2
    assert "The credentials for the push have ended: going on with new ones" in progress.lines


def test_a_push_that_goes_on_with_new_credentials_sends_no_layer_twice(
    builder: Builder, registry: str, image: ImageReference
) -> None:
    ended = json.dumps(
        {"errors": [{"code": "DENIED", "message": "Your authorization token has expired."}]}
    ).encode()
    progress = Watched()
    with FaultyProxy(f"http://{registry}") as proxy:
        proxy.fail_next(403, {"Content-Type": "application/json"}, 1, "^PUT .*/manifests/", ended)
        address = urlsplit(proxy.url).netloc
        behind = ImageReference.parse(f"{address}/{image.path}:{image.tag}")
        given = registry_with(Renewed(Credentials("ann", "x", expires=ENDED)), address)
        builder.build(BuildInputs(behind), packed(SMALL, {"a": b"1"}), given, progress)
        assert proxy.asked("^PUT .*/manifests/") == 2
        assert proxy.asked("^PATCH .*/blobs/uploads/") == 2  # the layer and the image's config
    assert pushes(progress) == 2


@pytest.mark.parametrize(
    ("expires", "tries"),
    [(None, 1), (LASTING, 1), (ENDED, PUSH_TRIES)],
    ids=["unknown", "lasting", "ended"],
)
def test_a_refused_push_is_begun_again_only_while_its_credentials_have_ended(
    builder: Builder, private_registry: str, expires: float | None, tries: int
) -> None:
    image = ImageReference.parse(f"{private_registry}/team/app:abc")
    progress = Watched()
    given = registry_with(Renewed(Credentials("ann", "wrong", expires=expires)), private_registry)
    with pytest.raises(PermissionDenied):
        builder.build(BuildInputs(image), packed(SMALL, {"a": b"1"}), given, progress)
    assert pushes(progress) == tries


def test_a_registry_that_is_away_is_a_service_unreachable(
    builder: Builder, open_registry: Registry
) -> None:
    image = ImageReference.parse(f"localhost:{servers.free_port()}/team/app:abc")
    with pytest.raises(ServiceUnreachable) as caught:
        builder.build(
            BuildInputs(image),
            packed("FROM scratch\nCOPY a /\n", {"a": b"1"}),
            open_registry,
            Watched(),
        )
    assert f"Pushing to {image.repository} failed" in caught.value.message
    assert f"check that {image.registry} runs" in caught.value.hint


def test_a_base_image_that_is_in_a_private_registry_is_pulled_with_the_credentials(
    builder: Builder, private_registry: str
) -> None:
    registry = registry_with(User("ann", "right"), private_registry)
    base = ImageReference.parse(f"{private_registry}/{uuid.uuid4().hex}:abc")
    builder.build(
        BuildInputs(base), packed("FROM scratch\nCOPY a /\n", {"a": b"1"}), registry, Watched()
    )
    image = ImageReference.parse(f"{private_registry}/{uuid.uuid4().hex}:abc")
    digest = builder.build(
        BuildInputs(image), packed(f"FROM {base}\nLABEL a=b\n", {}), registry, Watched()
    )
    assert registry.digest(image) == digest


def test_a_tag_that_is_there_and_cannot_be_replaced_is_kept(
    builder: Builder, registry: str, image: ImageReference, open_registry: Registry
) -> None:
    """As a repository with immutable tags behaves; the words are Amazon ECR's."""
    first = builder.build(
        BuildInputs(image),
        packed("FROM scratch\nCOPY a /\n", {"a": b"1"}),
        open_registry,
        Watched(),
    )
    said = (
        f"The image tag '{image.tag}' already exists in the '{image.path}' repository and cannot be overwritten because"
        " the repository is immutable."
    )
    refusal = json.dumps(
        {"errors": [{"code": "TAG_INVALID", "message": "tag invalid: " + said}]}
    ).encode()
    progress = Watched()
    with FaultyProxy(f"http://{registry}") as proxy:
        proxy.fail_next(
            400, {"Content-Type": "application/json"}, 10, "^PUT .*/manifests/", refusal
        )
        behind = ImageReference.parse(f"{urlsplit(proxy.url).netloc}/{image.path}:{image.tag}")
        context = packed("FROM scratch\nCOPY a /\n", {"a": b"2"})
        kept = builder.build(BuildInputs(behind), context, open_registry, progress)

    assert kept == first
    assert any("cannot be replaced" in line for line in progress.lines)

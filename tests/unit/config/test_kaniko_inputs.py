"""What of `kaniko-config` is an input of the image, and so in its name."""

from typing import Any

import pytest

from imagemill.config.kaniko_inputs import HARMLESS, KanikoInputs, kaniko_inputs
from imagemill.config.model import DockerBuilder, KanikoBuilder
from imagemill.context import Manifest, hashing
from imagemill.context.manifest import Dockerfile
from imagemill.messages import BuildRequest

MANIFEST = Manifest(Dockerfile("Dockerfile", "0" * 64), ())


def builder(*args: str, env: list[dict[str, Any]] | None = None, **more: Any) -> KanikoBuilder:
    job = {"spec": {"template": {"spec": {"containers": [{"args": [*args], "env": env or []}]}}}}
    given = {"destination": "registry.example.com/app", "build_context_store": "s3://bucket/path"}
    return KanikoBuilder.model_validate(given | {"kaniko_config": job} | more)


def name_of(builder: KanikoBuilder, **request: Any) -> str:
    """The source hash of the images that it makes."""
    wanted = BuildRequest.parse({"source": "/srv/app", **request})
    return hashing.source_hash(wanted, builder, MANIFEST)


@pytest.mark.parametrize(
    "argument",
    [
        "--build-arg=GREETING",
        "--label=from",
        "--target",
        "--custom-platform",
        "--annotation=a",
        "--compression",
        "--ignore-path",
        "--a-flag-that-nobody-knows-yet",
    ],
)
def test_what_changes_the_image_changes_its_name(argument: str) -> None:
    names = {name_of(builder(f"{argument}={value}")) for value in ("A", "B")}
    assert len(names | {name_of(builder())}) == 3


@pytest.mark.parametrize("flag", sorted(HARMLESS))
def test_what_leaves_the_image_as_it_is_leaves_its_name(flag: str) -> None:
    assert name_of(builder(f"--{flag}=A")) == name_of(builder())


def test_a_switch_of_the_executor_changes_the_name() -> None:
    switched = [{"name": "FF_KANIKO_COPY_AS_ROOT", "value": "false"}]
    names = {name_of(builder(env=env)) for env in ([], switched)}
    assert len(names | {name_of(builder(kaniko_features="none"))}) == 3


def test_a_bare_build_argument_has_the_value_of_its_variable() -> None:
    def given(value: str) -> str:
        return name_of(builder("--build-arg=TOKEN", env=[{"name": "TOKEN", "value": value}]))

    assert given("1") != given("2")
    assert given("1") == name_of(builder("--build-arg=TOKEN=1"))


def test_the_requests_own_value_counts() -> None:
    made = [name_of(builder(f"--build-arg=A={value}"), build_args={"A": "3"}) for value in (1, 2)]
    assert made[0] == made[1] == name_of(builder(), build_args={"A": "3"})


def test_other_builders_have_no_such_inputs() -> None:
    assert kaniko_inputs(DockerBuilder()) == KanikoInputs()

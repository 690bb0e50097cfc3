"""What a build asks of docker: its arguments, its variables and its labels."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagemill.builders.docker.arguments import build_arguments, other_arguments
from imagemill.builders.labels import labels
from imagemill.errors import OperatorError, UserError
from imagemill.ports import BuildInputs
from imagemill.reference import ImageReference

IMAGE = ImageReference.parse("localhost:5000/app:1")


def test_values_of_build_arguments_go_by_the_environment() -> None:
    arguments, variables = build_arguments(
        BuildInputs(IMAGE, build_args={"TOKEN": "s3cret", "EMPTY": ""}), ()
    )
    assert arguments == ["--build-arg=TOKEN", "--build-arg=EMPTY"]
    assert variables == {"TOKEN": "s3cret", "EMPTY": ""}


OBEYED = (
    "PATH HOME LD_PRELOAD DOCKER_HOST docker_config BUILDKIT_HOST https_proxy NO_PROXY GODEBUG PYTHONPATH"
    " AWS_CONFIG_FILE BASH_ENV SSH_AUTH_SOCK GLIBC_TUNABLES KEPT"
)
HARMLESS = "GIT_TOKEN AWS_SECRET_ACCESS_KEY NODE_AUTH_TOKEN VERSION GOPROXY LDFLAGS"


@pytest.mark.parametrize("name", OBEYED.split())
def test_a_name_that_means_something_to_docker_does_not_reach_its_environment(name: str) -> None:
    arguments, variables = build_arguments(BuildInputs(IMAGE, build_args={name: "x"}), {"KEPT"})
    assert arguments == [f"--build-arg={name}=x"]
    assert variables == {}


@pytest.mark.parametrize("name", HARMLESS.split())
def test_names_of_secrets_and_of_nothing_in_particular_do(name: str) -> None:
    assert build_arguments(BuildInputs(IMAGE, build_args={name: "x"}), ()) == (
        [f"--build-arg={name}"],
        {name: "x"},
    )


@given(st.dictionaries(st.text(), st.text()))
def test_no_name_or_value_becomes_another_argument(given_args: dict[str, str]) -> None:
    try:
        arguments, variables = build_arguments(BuildInputs(IMAGE, build_args=given_args), ())
    except UserError:
        return
    assert [argument.removeprefix("--build-arg=").split("=")[0] for argument in arguments] == list(
        given_args
    )
    assert variables.items() <= given_args.items()


def test_the_other_inputs_are_arguments(tmp_path: Path) -> None:
    secret = tmp_path / "a,b"
    secret.touch()
    inputs = BuildInputs(
        IMAGE, "stage", "linux/arm64", labels={"a": "b c"}, secrets={"token": secret}
    )
    assert other_arguments(inputs) == [
        "--label=a=b c",
        "--target=stage",
        "--platform=linux/arm64",
        f'--secret=id=token,"src={tmp_path}/a,b"',
    ]


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a\0"])
def test_a_label_that_cannot_have_its_name_is_the_requesters_to_mend(name: str) -> None:
    with pytest.raises(UserError, match="cannot be the name of a label"):
        other_arguments(BuildInputs(IMAGE, labels={name: "x"}))


def test_a_secret_without_a_file_is_the_operators_to_mend(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no file for the build secret 'token'"):
        other_arguments(BuildInputs(IMAGE, secrets={"token": tmp_path}))


def test_the_requests_labels_win_save_over_the_source_hash() -> None:
    wanted = {
        "org.opencontainers.image.source": "theirs",
        "dev.imagemill.source-hash": "forged",
        "x": "y",
    }
    assert labels("0123", "rev", "ours", wanted) == {
        "org.opencontainers.image.revision": "rev",
        "org.opencontainers.image.source": "theirs",
        "dev.imagemill.source-hash": "0123",
        "x": "y",
    }


def test_what_is_not_known_is_no_label() -> None:
    assert labels("0123", None, None, {}) == {"dev.imagemill.source-hash": "0123"}

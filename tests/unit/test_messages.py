"""What a build request takes, and in which words it is refused: to Python, to Celery, to the
command line.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

import schemas
from imagemill.client import Client
from imagemill.errors import UserError
from imagemill.messages import PLATFORMS, BuildRequest


def refused(**fields: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        BuildRequest.parse({"source": "/src", **fields})
    assert type(caught.value) is UserError
    return caught.value


@pytest.mark.parametrize(
    ("field", "value", "message", "hint"),
    [
        ("source", None, "source: found nothing, expected text", "a folder, an archive"),
        ("source", "", "source: found nothing, expected a value", "a folder, an archive"),
        ("tags", ["v1", "no tag"], 'tags: "no tag" is not a tag', "a tag is up to 128 letters"),
        ("tags", "v1", 'tags: found "v1", expected a list', "tags to add"),
        (
            "timeout",
            -1,
            "timeout: found -1, expected more than 0",
            "seconds that the build may take",
        ),
        ("timeout", 0.0, "timeout: found 0, expected more than 0", "seconds"),
        ("timeout", float("nan"), "timeout: found a number, expected a finite number", "seconds"),
        ("timeout", "soon", 'timeout: found "soon", expected a number', "seconds"),
        (
            "force",
            "maybe",
            'force: found "maybe", expected true or false',
            "even if the image exists",
        ),
        ("config", "../x", 'config: "../x" is not the name of a config', "letters, digits"),
        ("labels", ["a=b"], "labels: found a list, expected a mapping", "labels of the image"),
        ("build_args", {"A": 1}, "build_args.A: found a number, expected text", "not for secrets"),
        ("tag", "v1", "tag: there is no such field", "did you mean tags?"),
        (
            "nonsense",
            "v1",
            "nonsense: there is no such field",
            "the fields are source, dockerfile, dockerfile_text, python",
        ),
    ],
)
def test_a_wrong_field_is_named_in_plain_words(
    field: str, value: object, message: str, hint: str
) -> None:
    error = refused(**{field: value})
    assert error.message == f"The build request is not valid: {message}"
    assert hint in error.hint
    assert "docs/schema" not in str(error)


def test_a_number_that_no_float_holds_is_refused_too() -> None:
    assert "timeout: found a number" in refused(timeout=10**400).message


def test_all_that_is_wrong_is_told_at_once() -> None:
    error = refused(tags=["a b", "-c"], timeout=0)
    assert error.message.endswith(
        'tags: "a b" is not a tag; tags: "-c" is not a tag; timeout: found 0, expected more than 0'
    )
    assert error.hint.count("a tag is up to") == 1


@pytest.mark.parametrize("data", [[], "source", None])
def test_what_is_no_mapping_is_no_request(data: object) -> None:
    with pytest.raises(UserError, match=r"request: found .*, expected a mapping$"):
        BuildRequest.parse(data)


def test_fields_are_called_what_their_giver_calls_them() -> None:
    with pytest.raises(UserError) as caught:
        BuildRequest.parse({"source": "/src", "timeout": 0}, {"timeout": "--timeout"})
    assert "valid: --timeout: found 0" in caught.value.message
    assert caught.value.hint.startswith("--timeout: seconds")


@pytest.mark.parametrize(
    "fields", [{"build_args": {"A": b"hunter2\xff"}}, {"secrets": ["TOKEN=hunter2"]}]
)
def test_what_may_be_a_secret_is_not_repeated(fields: dict[str, Any]) -> None:
    error = refused(**fields)
    assert "hunter2" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None


# --- Destination ---


@pytest.mark.parametrize(
    ("destination", "message", "hint"),
    [
        ("x:tag", "The destination 'x:tag' has a tag", ""),
        (
            "h.example/a:v1",
            "The destination 'h.example/a:v1' has a tag",
            "write h.example/a: the tag is the source",
        ),
        ("localhost:5000", "The destination 'localhost:5000' has a tag", "HOST:PORT/REPOSITORY"),
        ("localhost:5999:x", "'localhost:5999:x' is not an image reference", ""),
        ("h.example/Upper", "the repository 'Upper' has upper-case letters", "write 'upper'"),
        ("http://h.example/a", "There is a scheme in front", "leave out the scheme"),
        ("", "An image reference is empty", "a reference is"),
    ],
)
def test_a_destination_that_is_none_is_refused_at_once(
    destination: str, message: str, hint: str
) -> None:
    error = refused(destination=destination)
    assert error.message.startswith("The build request is not valid: destination: ")
    assert message in error.message
    assert hint in error.hint


def test_a_password_in_the_destination_is_not_repeated() -> None:
    assert "hunter2" not in str(refused(destination="user:hunter2@h.example/a"))


@pytest.mark.parametrize(
    "destination", ["h.example/a", "localhost:5000/a/b", "https://h.example/a", "[::1]:5000/a"]
)
def test_a_destination_is_taken_as_it_is_written(destination: str) -> None:
    assert (
        BuildRequest.parse({"source": "/src", "destination": destination}).destination
        == destination
    )


# --- Platform ---


@pytest.mark.parametrize(
    "platform",
    ["linux/amd64", "linux/arm64", "linux/arm/v6", "linux/386", "linux/riscv64", "windows/amd64"],
)
def test_dockers_platforms_are_taken(platform: str) -> None:
    assert BuildRequest.parse({"source": "/src", "platform": platform}).platform == platform


@pytest.mark.parametrize(
    ("platform", "hint"),
    [
        ("linux/foo", f"the platforms are {', '.join(PLATFORMS)}"),
        ("", "the platforms are linux/amd64, "),
        ("linux/amd46", "did you mean linux/amd64?"),
        ("Linux/AMD64", "did you mean linux/amd64?"),
        ("amd64", "did you mean linux/amd64?"),
        ("linux/x86_64", "did you mean linux/amd64?"),
        ("linux/aarch64", "did you mean linux/arm64?"),
        ("darwin/arm64", "did you mean linux/arm64?"),
        ("linux/armv7", "did you mean linux/arm/v7?"),
    ],
)
def test_a_platform_that_is_none_is_refused_with_the_nearest(platform: str, hint: str) -> None:
    error = refused(platform=platform)
    assert f'platform: "{platform}" is not a platform that docker builds for' in error.message
    assert error.hint == hint or (hint.endswith(", ") and error.hint.startswith(hint))


def test_the_schema_knows_the_platforms() -> None:
    schema = json.loads((schemas.FOLDER / "build-request.json").read_text())
    jsonschema.validate({"source": "/src", "platform": "linux/arm64"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"source": "/src", "platform": "linux/foo"}, schema)


# --- Source ---


def test_a_source_may_be_a_path() -> None:
    request = BuildRequest.parse({"source": Path("/src/project")})
    assert request.source == "/src/project"
    assert request.dump()["source"] == "/src/project"


def test_a_request_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="is not a tag"):
        BuildRequest(source="/src", tags=("no tag",))


# --- The service's URLs ---


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("127.0.0.1:6379",), "broker"),
        (("redis:6379",), "broker"),
        (("user:hunter2@h:6379",), "broker"),
        (("redis://h", "redis:6379"), "backend"),
        (("amqp://h", "h:6379/0"), "backend"),
    ],
)
def test_a_url_without_a_scheme_is_told(arguments: tuple[str, ...], what: str) -> None:
    with pytest.raises(UserError) as caught:
        Client(*arguments)
    assert caught.value.message == f"The {what}'s URL has no scheme"
    assert "redis://HOST:6379/0" in caught.value.hint
    assert f"IMAGEMILL_{what.upper()}" in caught.value.hint
    assert "hunter2" not in str(caught.value)

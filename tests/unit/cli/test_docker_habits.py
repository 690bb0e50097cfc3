"""What docker's users type is understood, or answered with what to do instead."""

import io
import sys
from pathlib import Path

import pytest
from click import NoSuchOption
from click.testing import CliRunner

import trees
from imagemill.cli.build import build
from imagemill.cli.commands import cli
from imagemill.cli.docker_habits import INSTEAD, dockerfile, named
from imagemill.cli.options import Misuse
from imagemill.errors import UserError
from imagemill.messages import BuildRequest


@pytest.mark.parametrize(
    ("tags", "destination", "result"),
    [
        (["v1"], None, (("v1",), None)),
        (["localhost:5000/team/model:v1"], None, (("v1",), "localhost:5000/team/model")),
        (["host/model"], None, (("latest",), "host/model")),
        (["host/model:a", "host/model:b", "c"], "host/model", (("a", "b", "c"), "host/model")),
        (["team/model:v1"], "docker.io/team/model", (("v1",), "docker.io/team/model")),
    ],
)
def test_tags_with_their_repository(
    tags: list[str], destination: str | None, result: tuple[tuple[str, ...], str | None]
) -> None:
    assert named(tags, destination) == result


@pytest.mark.parametrize(
    ("tags", "destination", "words"),
    [
        (["a.example/x:1"], "b.example/x", ["a.example/x", "b.example/x", "-d"]),
        (["a.example/x:1", "b.example/x:1"], None, ["a.example/x", "b.example/x"]),
        (["a.example/x@sha256:0"], None, ["has a digest", "REPOSITORY:TAG"]),
        (["model:v1"], None, ["names no registry", "-t REGISTRY/model:v1"]),
        (["a.example/x:"], None, ["has no tag behind its last ':'", "-t a.example/x:TAG"]),
        (["a.example/x:1+2"], None, ["has no tag behind its last ':'", "-t a.example/x:TAG"]),
    ],
)
def test_what_cannot_be_is_answered(
    tags: list[str], destination: str | None, words: list[str]
) -> None:
    with pytest.raises(Misuse) as raised:
        named(tags, destination)
    said = f"{raised.value.message} {raised.value.hint}".replace("--destination", "-d")
    assert [word for word in words if word not in said] == []


def test_dockerfile_is_looked_for_as_docker_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.make(tmp_path, {"src/Dockerfile": "1", "src/x/Dockerfile": "2", "Dockerfile": "3"})
    monkeypatch.chdir(tmp_path)
    source = str(tmp_path / "src")
    assert dockerfile(str(tmp_path / "src/Dockerfile"), source) == ("Dockerfile", None)
    assert dockerfile("src/x/Dockerfile", source) == ("x/Dockerfile", None)
    assert dockerfile("Dockerfile", source) == (None, "3")
    assert dockerfile("x/Dockerfile", source) == ("x/Dockerfile", None)
    assert dockerfile(None, source) == (None, None)
    assert dockerfile("Dockerfile", "git+https://host/a") == ("Dockerfile", None)
    monkeypatch.chdir(tmp_path / "src")
    assert dockerfile("../Dockerfile", source) == (None, "3")
    assert dockerfile("x/../Dockerfile", source) == ("Dockerfile", None)


def test_dockerfile_outside_is_hashed_by_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.make(tmp_path, {"ctx/a": "1", "one": "FROM scratch\n", "two": "FROM scratch\n#\n"})
    monkeypatch.chdir(tmp_path)
    hashes = [
        CliRunner().invoke(cli, ["hash", "ctx", "-f", name], standalone_mode=False).stdout
        for name in ("one", "two")
    ]
    assert len(set(hashes)) == 2
    assert all(len(each.strip()) == 64 for each in hashes)


def test_dockerfile_of_standard_input_is_taken_by_its_text(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "FROM scratch\n"})
    by_text = [
        CliRunner().invoke(cli, ["hash", str(source), "-f", "-"], input=text, standalone_mode=False)
        for text in ("FROM scratch\n", "FROM scratch\n#\n")
    ]
    assert len({done.stdout for done in by_text}) == 2


def test_dockerfile_of_standard_input_is_utf8_whatever_the_locale_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = "LABEL a=\u00e9\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent), encoding="latin-1"))
    assert dockerfile("-", ".") == (None, "LABEL a=\u00e9\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"# \xe9"), encoding="latin-1"))
    with pytest.raises(Misuse, match="Standard input cannot be read"):
        dockerfile("-", ".")
    monkeypatch.setattr(sys, "stdin", None)  # as where it is closed
    with pytest.raises(Misuse, match="There is no standard input"):
        dockerfile("-", ".")


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--pull=true", "--no-cache=TRUE"], {"pull": True, "no_cache": True}),
        (["--pull", "--no-cache=false"], {"pull": True, "no_cache": False}),
        (["-q=1", "--build-arg=pull=true"], {"quiet": True, "build_args": {"pull": "true"}}),
        (["--", "--pull=true"], {"pull": False, "source": "--pull=true"}),
    ],
)
def test_switches_may_have_a_value(arguments: list[str], given: dict[str, object]) -> None:
    found = build.make_context("build", arguments).params
    assert {name: found[name] for name in given} == given


@pytest.mark.parametrize(
    ("source", "hint"), [("Dockerfile", "give -f Dockerfile ."), ("-", "SRC is a folder")]
)
def test_what_is_no_source_is_answered(
    source: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.make(tmp_path, {"Dockerfile": "FROM scratch\n"})
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["hash", source], standalone_mode=False)
    assert isinstance(result.exception, Misuse)
    assert result.exception.hint.startswith(hint)


def test_ignore_file_beside_a_dockerfile_outside_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.make(tmp_path, {"ctx/a": "", "Dockerfile": "", "Dockerfile.dockerignore": "a"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Misuse, match="ignore file beside it"):
        dockerfile("Dockerfile", "ctx")


@pytest.mark.parametrize(
    ("spelling", "given"),
    [
        (["--cache-from", "a.io/x"], {"cache_from": ("a.io/x",)}),
        (["--cache-from=type=registry,ref=a.io/x:1"], {"cache_from": ("a.io/x:1",)}),
        (["--cache-from=a.io/x", "--cache-from=a.io/y"], {"cache_from": ("a.io/x", "a.io/y")}),
        (["--cache-to=type=registry,ref=a.io:1/x:1,mode=max"], {"cache_to": "a.io:1/x:1"}),
        (["--cache-to=type=inline"], {"cache_to": "inline"}),
        (["--ssh", "default", "--ssh=a=/k"], {"ssh": {"default": None, "a": Path("/k")}}),
    ],
)
def test_caches_and_keys_are_read_as_docker_has_them(
    spelling: list[str], given: dict[str, object]
) -> None:
    found = build.make_context("build", [".", *spelling]).params
    assert {name: found[name] for name in given} == given


def test_cache_has_a_tag_and_no_digest() -> None:
    asked = BuildRequest.parse({"source": "/src", "cache_from": ["a.io/x"], "cache_to": "x/y:1"})
    assert asked.cache_from == ("a.io/x:latest",)
    assert asked.cache_to == "docker.io/x/y:1"
    with pytest.raises(UserError, match=r"cache_to: .* has a digest, expected a tag"):
        BuildRequest.parse({"source": "/src", "cache_to": f"a.io/x@sha256:{'0' * 64}"})


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--cache-to=type=gha"], "type=registry,ref="),
        (["--cache-from=type=local,src=/x"], "type=registry,ref="),
        (
            ["--cache-to=type=registry,ref=a.io/x,compression=zstd"],
            "give --cache-to type=registry,ref=a.io/x",
        ),
    ],
)
def test_caches_elsewhere_than_in_registries_are_answered(arguments: list[str], hint: str) -> None:
    result = CliRunner().invoke(cli, ["build", ".", *arguments], standalone_mode=False)
    assert isinstance(result.exception, Misuse)
    assert hint in result.exception.hint


@pytest.mark.parametrize("option", [name for name in INSTEAD if name.startswith("--")])
def test_option_that_is_not_here_is_answered(option: str) -> None:
    result = CliRunner().invoke(cli, ["build", ".", option, "x"], standalone_mode=False)
    assert isinstance(result.exception, Misuse)
    assert option in result.exception.message
    assert result.exception.hint == INSTEAD[option]


@pytest.mark.parametrize("option", ["--cache-hom", "--state-di", "--brokr"])
def test_no_hidden_option_is_proposed(option: str) -> None:
    result = CliRunner().invoke(cli, ["build", option, "x"], standalone_mode=False)
    assert isinstance(result.exception, NoSuchOption)
    hidden = {"--cache-home", "--state-dir", "--broker"}
    assert hidden.isdisjoint(result.exception.possibilities or ())


def test_several_platforms_are_one_image_in_whatever_order(tmp_path: Path) -> None:
    source = trees.make(tmp_path, {"Dockerfile": "FROM scratch\n"})

    def hashed(platforms: str) -> str:
        arguments = ["hash", str(source), "--platform", platforms]
        return CliRunner().invoke(cli, arguments, catch_exceptions=False).output

    both = hashed("linux/amd64,linux/arm64")
    assert both == hashed("linux/arm64, linux/amd64,linux/arm64")
    assert len({both, hashed("linux/amd64"), hashed("linux/arm64")}) == 3


def test_one_of_several_platforms_that_is_none_is_answered(tmp_path: Path) -> None:
    arguments = ["hash", str(tmp_path), "--platform", "linux/amd64,linux/x86-64"]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert "did you mean linux/amd64?" in str(result.exception)

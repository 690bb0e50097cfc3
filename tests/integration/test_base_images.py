"""A base image counts by what it is, not by its name alone."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import servers
from command_line import CommandLine, command_line
from imagemill.embedded import EmbeddedService
from imagemill.messages import BuildReport
from imagemill.reference import ImageReference
from imagemill.registries.docker_config import DockerConfig
from imagemill.registries.oci import OciRegistry
from trees import make


@pytest.fixture
def cli(engine: str, docker_cli: str) -> Iterator[CommandLine]:
    with command_line(DOCKER_HOST=engine, IMAGEMILL_DOCKER_CLI=docker_cli) as cli:
        yield cli


@pytest.fixture
def place(registry: str) -> str:
    """Where no other test pushes to."""
    return f"{registry}/bases/{uuid.uuid4().hex}"


def project(cli: CommandLine, name: str, dockerfile: str) -> Path:
    folder = cli.folder / name
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile)
    (folder / "a").write_text(uuid.uuid4().hex)
    return folder


def report(cli: CommandLine, *arguments: str | Path) -> BuildReport:
    done = cli.run("build", *arguments, "--json")
    assert done.stdout, done.stderr
    return BuildReport.model_validate_json(done.stdout)


def push_base(cli: CommandLine, folder: Path, place: str) -> None:
    (folder / "a").write_text(uuid.uuid4().hex)
    built = report(cli, folder, "-d", f"{place}/base", "-t", "1")
    assert built.error is None, built.error


def test_an_updated_base_is_a_new_image(cli: CommandLine, place: str) -> None:
    base = project(cli, "base", "FROM scratch\nCOPY a /base\n")
    push_base(cli, base, place)
    source = project(cli, "p", f"FROM {place}/base:1\nCOPY a /a\n")
    first = report(cli, source, "-d", f"{place}/p")
    assert first.built
    assert cli.run("hash", source).stdout.strip() == first.source_hash
    assert not report(cli, source, "-d", f"{place}/p").built
    push_base(cli, base, place)
    second = report(cli, source, "-d", f"{place}/p")
    assert second.built
    assert second.digest != first.digest
    assert cli.run("hash", source).stdout.strip() == second.source_hash != first.source_hash


def test_the_name_alone_counts_where_the_config_says_so(cli: CommandLine, place: str) -> None:
    base = project(cli, "base", "FROM scratch\nCOPY a /base\n")
    push_base(cli, base, place)
    config = cli.folder / "config.yaml"
    config.write_text("builder:\n  type: docker\n  base-digests: false\n")
    source = project(cli, "p", f"FROM {place}/base:1\nCOPY a /a\n")
    options = (source, "-d", f"{place}/p", "--config", config)
    assert report(cli, *options).built
    push_base(cli, base, place)
    assert not report(cli, *options).built
    assert report(cli, *options, "--no-cache").built


def test_a_registry_that_does_not_answer_is_an_error(cli: CommandLine, place: str) -> None:
    nobody = f"localhost:{servers.free_port()}"
    source = project(cli, "p", f"FROM {nobody}/base:1\nCOPY a /a\n")
    failed = report(cli, source, "-d", f"{place}/p")
    assert failed.error is not None
    assert failed.error.state == "HASHING"
    assert "base-digests: false" in failed.error.hint
    assert any("trying again" in line and failed.error.hint in line for line in failed.error.log)
    assert nobody in failed.error.message
    hashed = cli.run("hash", source)
    assert hashed.returncode != 0
    assert nobody in hashed.stderr


def test_a_base_that_only_the_engine_has_counts_by_its_name(
    cli: CommandLine, place: str, registry: str
) -> None:
    source = project(cli, "p", f"FROM {registry}/absent/{uuid.uuid4().hex}:1\nCOPY a /a\n")
    done = cli.run("build", source, "-d", f"{place}/p", "--json", "-v")
    found = json.loads(done.stdout)
    assert any("counts by its name" in line for line in found["warnings"]) or (
        "counts by its name" in done.stderr
    )
    assert found["error"]["state"] == "BUILDING"


def test_what_a_base_was_is_known_for_a_while_unless_its_tag_is_moved_here_or_it_is_asked_anew(
    tmp_path: Path, engine: str, docker_cli: str, registry: str, place: str
) -> None:
    variables = {
        "DOCKER_HOST": engine,
        "IMAGEMILL_DOCKER_CLI": docker_cli,
        "IMAGEMILL_BASE_DIGEST_SECONDS": "600",
    }
    base = make(tmp_path / "base", {"Dockerfile": "FROM scratch\nCOPY a /base\n", "a": "one"})
    source = make(tmp_path / "p", {"Dockerfile": f"FROM {place}/base:1\nCOPY a /a\n", "a": "a"})
    with EmbeddedService(tmp_path / "state", variables, {}) as service:
        client = service.connect()

        def built(source: Path, name: str, **options: Any) -> BuildReport:
            done = client.wait(client.submit(str(source), f"{place}/{name}", **options))
            assert done.error is None, done.error
            return done

        old = built(base, "base", tags=("1",))
        first = built(source, "p").source_hash
        (base / "a").write_text("two")
        built(base, "base", tags=("1",))
        second = built(source, "p").source_hash
        assert second != first
        reference = ImageReference.parse(f"{place}/base").with_digest(old.digest)
        OciRegistry(DockerConfig(tmp_path), frozenset({registry})).tag(reference, ("1",))
        assert built(source, "p").source_hash == second
        assert built(source, "p", pull=True).source_hash == first
        assert built(source, "p").source_hash == first

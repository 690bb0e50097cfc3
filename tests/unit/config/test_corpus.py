"""Launch configs as teams have them: what works with the W&B agent works here, and what is read
otherwise is said.
"""

from pathlib import Path

import pytest
from click.testing import CliRunner

from imagemill.cli.commands import cli
from imagemill.config import load

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.yaml"))

TOLD = {
    "aks": "Secret azure-storage-access-key, key password",
    "ecr-by-parts": "repo_name: an older spelling of registry.repository",
    "retried-by-the-job": "backoffLimit: not used: backoffLimit is 0, since Imagemill tries",
    "values-of-the-agents-chart": "a chart's values, of which launchConfig is the launch config",
    "values-of-the-chart": "a chart's values, of which agentConfig is the launch config",
}
"""Config → what its check tells."""


def source(folder: Path) -> str:
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return str(folder)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_config_is_accepted_and_a_build_agrees(path: Path, tmp_path: Path) -> None:
    checked = CliRunner().invoke(cli, ["config", "check", str(path)], standalone_mode=False)
    assert checked.exception is None
    assert TOLD.get(path.stem, "") in checked.stderr
    if load(path).config.builder.type == "kaniko":
        arguments = ["kaniko", "job", source(tmp_path / "source"), "--config", str(path)]
        assert CliRunner().invoke(cli, arguments, standalone_mode=False).exception is None


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_config_means_the_same_in_utf16(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_bytes(path.read_text().encode("utf-16"))
    assert load(copy).config == load(path).config


def test_fault_in_a_charts_values_is_told_by_the_line_of_the_file(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("agent: {}\nlaunchConfig: |\n  builder:\n    type: dockr\n")
    result = CliRunner().invoke(cli, ["config", "check", str(values)], standalone_mode=False)
    assert f"{values}:4: builder.type: " in str(result.exception)
    assert "did you mean docker?" in str(result.exception)
    values.write_text("agentConfig:\n  builder:\n    type: docker\n    destinaton: a.example/b\n")
    result = CliRunner().invoke(cli, ["config", "check", str(values)], standalone_mode=False)
    assert f"{values}:4: builder.destinaton: " in str(result.exception)


REFUSED = {
    "a pod where a Job is meant": (
        "containers:\n      - args: ['--cache=false']",
        "7: builder.kaniko-config.containers: found a key that is unknown here",
        "containers belongs below builder.kaniko-config.spec.template.spec",
    ),
    "an argument that is ours": (
        "spec: {template: {spec: {containers: [\n      {args: ['--context=dir:///x']}]}}}",
        "8: builder.kaniko-config.spec.template.spec.containers[0].args[0]: --context is not to be",
        "leave the argument out",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_check_refuses_what_each_build_would_refuse(name: str, tmp_path: Path) -> None:
    job, message, hint = REFUSED[name]
    path = tmp_path / "launch.yaml"
    path.write_text(
        "environment: {type: aws, region: us-east-1}\nbuilder:\n  type: kaniko\n"
        "  destination: registry.example.com/team/model\n"
        f"  build-context-store: s3://example-bucket/contexts\n  kaniko-config:\n    {job}\n"
    )
    result = CliRunner().invoke(cli, ["config", "check", str(path)], standalone_mode=False)
    assert f"{path}:{message}" in str(result.exception)
    assert hint in str(result.exception)


def test_folder_that_build_pods_cannot_reach_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "launch.yaml"
    path.write_text(
        "builder:\n  type: kaniko\n  destination: registry.example.com/team/model\n"
        "  build-context-store: file:///var/contexts\n"
    )
    result = CliRunner().invoke(cli, ["config", "check", str(path)], standalone_mode=False)
    assert f"{path}:4: builder.build-context-store: found file:///var/contexts" in str(
        result.exception
    )
    with path.open("a") as file:
        file.write("  context-volume-claim: contexts\n")
    assert load(path).config.builder.type == "kaniko"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("base_image: x", "known keys of builder: "),
        ("destinaton: x", "did you mean builder.destination?"),
        ("kaniko_confg: {}", "did you mean builder.kaniko-config?"),
        ("repo_name: x", "known keys of builder: "),
    ],
)
def test_guess_fits_or_is_none(key: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "launch.yaml"
    path.write_text(f"builder:\n  type: docker\n  destination: a.example/b\n  {key}\n")
    result = CliRunner().invoke(cli, ["config", "check", str(path)], standalone_mode=False)
    assert hint in str(result.exception)

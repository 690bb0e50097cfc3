"""The example launch configs: each loads, is described, and says what its README says."""

import re
from pathlib import Path

import pytest

from imagemill.builders.kaniko.overlay import executor
from imagemill.cli.commands import cli
from imagemill.config import Loaded, load
from imagemill.config.explain import KNOWN
from imagemill.permissions.needs import needs

CONFIGS = Path(__file__).parents[3] / "configs"
EXAMPLES = sorted(CONFIGS.glob("*.yaml"))
README = (CONFIGS / "README.md").read_text(encoding="utf-8")

BUILDERS = {
    "aws-docker": ("aws", "docker"),
    "aws-kaniko": ("aws", "kaniko"),
    "azure-docker": ("azure", "docker"),
    "azure-kaniko": ("azure", "kaniko"),
    "coreweave-kaniko": ("local", "kaniko"),
    "docker-file-store": ("local", "docker"),
    "docker-local": ("local", "docker"),
    "gcp-docker": ("gcp", "docker"),
    "gcp-kaniko": ("gcp", "kaniko"),
    "noop": ("local", "noop"),
    "wandb-agent": ("aws", "kaniko"),
    "wandb-agent-registry": ("aws", "kaniko"),
}


def example(name: str) -> Loaded:
    return load(CONFIGS / f"{name}.yaml")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_loads_with_the_environment_and_the_builder_of_its_name(path: Path) -> None:
    config = load(path).config

    assert (config.environment.type, config.builder.type) == BUILDERS[path.stem]
    assert config.builder.destination


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if "wandb" not in path.stem], ids=lambda path: path.stem
)
def test_example_has_no_warnings(path: Path) -> None:
    assert load(path).warnings == ()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_opens_with_a_comment_and_is_listed_in_the_readme(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert f"[{path.name}]({path.name})" in README


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_means_the_same_with_underscores(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    keys = (f"{section}.{key}" for section in ("builder", "registry") for key in KNOWN[section])
    names = {key.partition(".")[2] for key in keys}
    for name in names:
        text = re.sub(rf"^( *){name.replace('_', '-')}:", rf"\1{name}:", text, flags=re.MULTILINE)
    copy = tmp_path / path.name
    copy.write_text(text, encoding="utf-8")

    assert load(copy).config == load(path).config


def test_every_builder_of_the_examples_is_there() -> None:
    assert {path.stem for path in EXAMPLES} == set(BUILDERS)


def test_there_is_an_example_for_each_cloud_with_each_builder() -> None:
    assert {
        (cloud, builder) for cloud in ("aws", "gcp", "azure") for builder in ("docker", "kaniko")
    } <= set(BUILDERS.values())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_an_example_needs_can_be_granted(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["permissions", "--config", str(path)], standalone_mode=False)
    shown = capsys.readouterr().out
    config = load(path).config
    clouds = {
        "aws": "# AWS, for the worker",
        "gcp": "# Google Cloud, for the worker",
        "azure": "# Azure, for the worker",
    }
    assert clouds.get(config.environment.type, f"# {config.builder.destination}: ") in shown
    assert ("# Kubernetes, for the worker" in shown) == (config.builder.type == "kaniko")
    pod = any(need.party == "build-pod" for need in needs(config))
    assert ("for the build pod" in shown) == pod


def test_coreweave_has_the_bucket_in_the_host() -> None:
    builder = example("coreweave-kaniko").config.builder

    assert builder.type == "kaniko"
    variables = {
        entry["name"]: entry.get("value") for entry in executor(builder.kaniko_config)["env"]
    }
    assert (variables["S3_ENDPOINT"], variables["S3_FORCE_PATH_STYLE"]) == (
        "http://cwlota.com",
        "false",
    )


@pytest.mark.parametrize("section", ["environment", "builder", "registry"])
def test_readme_explains_every_key(section: str) -> None:
    table = README.partition("## Keys")[2]

    for key in KNOWN[section]:
        assert f"`{section}.{key.replace('_', '-')}`" in table


def test_readme_has_the_defaults_of_the_model() -> None:
    builder = example("wandb-agent-registry").config.builder

    assert builder.type == "kaniko"
    assert f"default `{builder.build_job_name}`" in README
    assert f"default `{builder.kaniko_image}`" in README


def test_wandb_agent_file_is_read_unchanged_and_its_own_keys_are_named_once() -> None:
    loaded = example("wandb-agent")

    assert loaded.warnings == (
        f"{loaded.path}:4: entity: the W&B agent's own keys are not used here: "
        "entity, max_jobs, max_schedulers, queues, secure_mode, stopped_run_timeout, verbosity",
    )
    assert loaded.config.builder.build_context_store == "s3://example-bucket/build-contexts"


def test_older_registry_section_becomes_the_destination_with_a_warning() -> None:
    loaded = example("wandb-agent-registry")
    destination = "123456789012.dkr.ecr.us-east-1.amazonaws.com/launch"

    assert loaded.config.builder.destination == destination
    assert loaded.warnings[1] == (
        f"{loaded.path}:10: registry: an older way to say builder.destination; write builder.destination: {destination}"
    )


def test_another_spelling_of_the_destination_needs_no_warning() -> None:
    loaded = example("gcp-docker")

    assert (
        loaded.config.builder.destination
        == "us-central1-docker.pkg.dev/example-project/models/training"
    )
    assert loaded.warnings == ()

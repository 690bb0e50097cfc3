"""The command `kaniko job`: the Job that a build would run as, to be read before anything runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagemill.cli.options import image_options, launch_config_options

if TYPE_CHECKING:
    from imagemill.config import KanikoBuilder, Loaded
    from imagemill.ports import BuildInputs

_BUILD_TIMEOUT = 1800.0
"""Seconds that a build may take on a worker where nothing else is set."""


@click.group(short_help="Show what Kaniko would be told.")
def kaniko() -> None:
    """Builds with Kaniko, in Kubernetes."""


@kaniko.command(short_help="Print the Kubernetes Job of a build.")
@click.argument("source", metavar="SRC")
@click.option("--config", metavar="FILE", help="Launch config with builder.type kaniko.")
@click.option("--destination", "-d", metavar="REPOSITORY", help="Where to push.  [default: the config's]")
@image_options
@click.option("--timeout", type=float, metavar="SECONDS", default=_BUILD_TIMEOUT, help="How long the build may take.")
@click.option("--s3-endpoint", envvar=["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"], hidden=True)
@launch_config_options
def job(
    source: str,
    *,
    config: str | None,
    default_config: Path | None,
    timeout: float,
    s3_endpoint: str | None,
    **given: Any,
) -> None:
    """Print the Job that a build of SRC would run as, as YAML. Nothing is created, and no cluster is asked.

    Secrets are in it by their names only.
    """
    import yaml

    from imagemill.adapters import Adapter, load
    from imagemill.builders.kaniko.credentials import needs_docker_secret
    from imagemill.builders.kaniko.job import Circumstances, build_secret_name, docker_secret_name, job_name
    from imagemill.cli.requests import check_config

    loaded = check_config(config, default_config)
    section, environment = _section(loaded), loaded.config.environment
    inputs = _inputs(source, section, **given)
    name = job_name(section, inputs.source_hash)
    circumstances = Circumstances(
        environment=environment,
        deadline=timeout,
        endpoint=s3_endpoint if section.build_context_store.startswith("s3:") else None,
        docker_secret=docker_secret_name(name) if needs_docker_secret(section, environment, inputs.image) else None,
        build_secrets=build_secret_name(name) if inputs.secrets else None,
    )
    # By the table's way, since Kubernetes' client may not be installed.
    valid_job = load(
        {"kaniko": Adapter("imagemill.builders.kaniko.validation", "valid_job", "kaniko")}, "kaniko", "builder"
    )
    uri = f"{section.build_context_store}/{inputs.source_hash}.tar.gz"
    yaml.safe_dump(valid_job(section, inputs, uri, circumstances), sys.stdout, sort_keys=False, width=sys.maxsize)


def _section(loaded: "Loaded") -> "KanikoBuilder":
    from imagemill.config import KanikoBuilder
    from imagemill.errors import UserError

    builder = loaded.config.builder
    if isinstance(builder, KanikoBuilder):
        return builder
    where = f"In {loaded.path}" if loaded.path else "Without a launch config"
    raise UserError(
        f"{where}, builder.type is {builder.type}, which makes no Job", "give --config FILE, with builder.type kaniko"
    )


def _inputs(
    source: str,
    section: "KanikoBuilder",
    *,
    destination: str | None,
    dockerfile: str | None,
    platform: str | None,
    labels: dict[str, str],
    secrets: dict[str, Path | None],
    **others: Any,
) -> "BuildInputs":
    """What the builder would be told by the steps before it."""
    from imagemill import context
    from imagemill.builders.labels import labels as all_labels
    from imagemill.cli.checkout import Checkout, checkout
    from imagemill.cli.requests import located
    from imagemill.cli.sources import fetched
    from imagemill.ports import BuildInputs, Quiet
    from imagemill.reference import ImageReference

    with fetched(source) as folder:
        manifest = context.manifest(folder, dockerfile, Quiet())
    platform = platform or section.platform
    source_hash = context.source_hash(manifest, platform=platform, labels=labels, secrets=secrets, **others)
    place = Path(located(source))
    known = checkout(place) if place.is_dir() else Checkout()
    return BuildInputs(
        image=ImageReference.parse_destination(destination or section.destination).with_tag(source_hash),
        platform=platform,
        labels=all_labels(source_hash, known.revision, known.url, labels),
        secrets={name: path or Path(name) for name, path in secrets.items()},
        source_hash=source_hash,
        build_id="printed",
        **others,
    )

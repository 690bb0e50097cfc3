"""The command `dockerfile`: what a build would go by where a project has no Dockerfile, to be read
or kept.
"""

from pathlib import Path
from typing import Any

import click

from imagemill.cli.options import Command, generation_options, launch_config_options


@click.command(cls=Command, short_help="Print the Dockerfile of a project without one.")
@click.argument("source", metavar="SRC")
@generation_options
@click.option(
    "--uv",
    metavar="IMAGE|pip|base",
    help="Where uv comes from, which installs.  [default: the config's]",
)
@click.option(
    "--cache-mounts/--no-cache-mounts",
    default=None,
    help="Whether the builder has BuildKit's cache mounts.  [default: by the config's builder]",
)
@click.option("--config", metavar="FILE", help="Launch config, for its builder.")
@launch_config_options
def dockerfile(
    source: str,
    *,
    base_image: str | None,
    uv: str | None,
    cache_mounts: bool | None,
    config: str | None,
    default_config: Path | None,
    **wished: Any,
) -> None:
    """Print the Dockerfile that is generated for SRC: save it as Dockerfile to keep and change it.

    It comes from what the project has: uv.lock, poetry.lock, environment.yml, requirements.txt,
    pyproject.toml, setup.py, setup.cfg or a script alone. A Dockerfile that SRC has already is not
    looked at.
    """
    from imagemill.cli import terminal
    from imagemill.cli.requests import check_config
    from imagemill.cli.sources import fetched
    from imagemill.context.dockerfile import OTHER_NAMES
    from imagemill.dockerfile import generate

    builder = check_config(config, default_config).config.builder
    wishes = generate.Wishes(
        base=base_image,
        **wished,
        index=builder.package_index,
        cache_mounts=builder.type != "kaniko" if cache_mounts is None else cache_mounts,
        uv=uv or builder.uv_image or generate.UV,
    )
    with fetched(source) as folder:
        names = () if (folder / "Dockerfile").exists() or wishes.named else OTHER_NAMES
        if other := next((name for name in names if (folder / name).is_file()), None):
            terminal.say(f"The source has no Dockerfile: it is built by its {other}")
            click.echo((folder / other).read_bytes(), nl=False)
            return
        made = wishes.generated(folder)
        click.echo(made.dockerfile, nl=False)
        for warning in made.warnings:
            terminal.warn(warning)

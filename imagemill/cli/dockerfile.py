"""The command `dockerfile`: what a build would go by where a project has no Dockerfile, to be read or kept."""

import shlex

import click

from imagemill.cli.options import Command, Misuse


def _words(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    try:
        return None if value is None else tuple(shlex.split(value))
    except ValueError:
        raise Misuse(
            f"A quotation in {value!r} has no end", "quote the whole once: --entrypoint 'python x.py'"
        ) from None


@click.command(cls=Command, short_help="Print the Dockerfile of a project without one.")
@click.argument("source", metavar="SRC")
@click.option("--base", metavar="IMAGE", help="Base image.  [default: python:VERSION-slim]")
@click.option("--python", metavar="VERSION", help="Version of Python.  [default: the project's]")
@click.option("--entrypoint", metavar="COMMAND", callback=_words, help="What the image runs.  [default: found]")
@click.option("--accelerator", metavar="NAME|IMAGE", help="cuda, cuda12.4 …, or a base image for it.")
@click.option("--uv", metavar="IMAGE|pip|base", help="Where uv comes from, which installs.  [default: its own image]")
@click.option("--cache-mounts/--no-cache-mounts", default=True, help="Whether the builder has BuildKit's cache mounts.")
def dockerfile(
    source: str,
    *,
    base: str | None,
    python: str | None,
    entrypoint: tuple[str, ...] | None,
    accelerator: str | None,
    uv: str | None,
    cache_mounts: bool,
) -> None:
    """Print the Dockerfile that is generated for SRC: save it as Dockerfile to keep and change it.

    It comes from what the project has: uv.lock, poetry.lock, environment.yml, requirements.txt, pyproject.toml,
    setup.py, setup.cfg or a script alone. A Dockerfile that SRC has already is not looked at.
    """
    from imagemill import dockerfiles
    from imagemill.cli.sources import fetched

    wishes = dockerfiles.Wishes(python, base, accelerator, entrypoint, cache_mounts, uv or dockerfiles.UV)
    with fetched(source) as folder:
        click.echo(dockerfiles.generate(folder, wishes), nl=False)

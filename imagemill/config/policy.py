"""The policy of a launch config: who may have what built from what, and where to.

    policy:
      destinations: [registry.example.com/shared/**]
      tenants:
        team-a:
          destinations: [registry.example.com/team-a/**]
          secrets: [npm]

A key that is not there limits nothing; an empty list allows nothing. What stands beside `tenants`
holds for everybody, what stands below a tenant's name for that tenant besides. Where there are
tenants, nobody else is served.
"""

import re
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from imagemill.config.faults import Fault, fault_error, mismatch
from imagemill.config.section import Section, whole_number
from imagemill.grammar import TENANT

_LONGEST = 500


def _pattern(value: str) -> str:
    if not value.isprintable() or not 0 < len(value) <= _LONGEST or value != value.strip():
        raise mismatch(value, "text, with * for a part of a name and ** for any number of names")
    return value


def _listed(value: object) -> object:
    """One entry may stand without its list."""
    return [value] if isinstance(value, str) else value


def _tenants(value: dict[str, Any]) -> dict[str, Any]:
    # A document's keys have underscores in place of hyphens, which no tenant's name has.
    named = {name.replace("_", "-"): rules for name, rules in value.items()}
    if wrong := [name for name in named if not TENANT.fits(name)]:
        raise fault_error(
            *(
                Fault((name,), f"found a key that is not {TENANT.article}", TENANT.form)
                for name in wrong
            )
        )
    return named


Pattern = Annotated[str, AfterValidator(_pattern)]
Patterns = Annotated[tuple[Pattern, ...] | None, BeforeValidator(_listed)]
Number = Annotated[int | None, whole_number(15, "a number, without a unit")]


class Rules(Section):
    """What is allowed to all, or to one tenant. None: anything."""

    destinations: Patterns = Field(
        None, description="repositories that images may go to, REGISTRY/REPOSITORY"
    )
    tags: Patterns = Field(None, description="tags that may be added beside the source hash")
    sources: Patterns = Field(
        None, description="what may be built, without a ref: git+https://HOST/PATH, /PATH, s3://…"
    )
    base_images: Patterns = Field(
        None, description="images that Dockerfiles may begin from, copy from or be read by"
    )
    secrets: Patterns = Field(None, description="ids of build secrets")
    ssh: Patterns = Field(None, description="ids of SSH keys that builds may use")
    configs: Patterns = Field(None, description="names of configs that requests may give")
    build_args: Patterns = Field(None, description="names of build arguments")
    platforms: Patterns = Field(None, description="target platforms that requests may name")
    max_seconds: Number = Field(None, description="seconds that a build may take")
    max_source_bytes: Number = Field(None, description="bytes that a source may take")
    concurrent_builds: Number = Field(None, description="builds of a tenant that run at a time")
    daily_builds: Number = Field(None, description="builds of a tenant that begin in a day (UTC)")


def _flag(value: object) -> object:
    if value in (True, "true", False, "false"):
        return value in (True, "true")
    raise mismatch(value, "true or false")


class TenantRules(Rules):
    """The rules of one tenant."""

    own_queue: Annotated[bool, BeforeValidator(_flag)] = Field(
        False,
        description="whether what comes through the queue imagemill.tenant.NAME is the tenant's,"
        " without a signature",
    )


class Policy(Rules):
    """The rules for all, and those of the tenants."""

    tenants: Annotated[dict[str, TenantRules], AfterValidator(_tenants)] | None = Field(
        None, description="rules by the tenant's name; where it is given, nobody else is served"
    )


def allows(patterns: tuple[str, ...] | None, text: str) -> bool:
    """Return whether a list of patterns has one for the text; no list has one for any.

    `*` stands for characters of one name, `**` for any characters, also `/`. A pattern is an
    operator's, a text anybody's: RE2 takes linear time for both.
    """
    return patterns is None or any(_compiled(each).fullmatch(text) for each in patterns)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Any:
    # Here, since clients read no policy, and have no RE2.
    import re2  # type: ignore[import-untyped]

    parts = (
        ".*" if part == "**" else "[^/]*" if part == "*" else re2.escape(part)
        for part in re.split(r"(\*\*|\*)", pattern)
    )
    return re2.compile(f"(?s){''.join(parts)}")

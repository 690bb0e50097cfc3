"""The builders that a service of these runs may have: what its configuration says, which steps a
build goes through, and how their work is seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Builder:
    """One way in which images are made, or refused."""

    steps: tuple[str, ...]
    """Of a build that is made, in their order."""
    config: str = ""
    """The launch config's text; `{registry}` and `{store}` are filled in."""
    pool: str | None = None
    """Of the workers that build; None: light workers do."""
    code_last: bool = False
    """Whether the project's code is copied last, so that a change of it needs no builder."""
    expected: str = "succeeded"


_BEFORE = ("build_image", "load_config", "hash_source", "check_registry")
_MADE = (*_BEFORE, "graft", "upload_context", "build", "verify", "report")

KANIKO = """\
builder:
  type: kaniko
  destination: {registry}/image
  build-context-store: {store}
  context-volume-claim: contexts
"""
"""The launch config of a service that builds in a cluster, whose contexts lie on a shared volume."""

BUILDERS: Mapping[str, Builder] = MappingProxyType(
    {
        "docker": Builder(_MADE, pool="docker"),
        "kaniko": Builder(_MADE, KANIKO, pool="kaniko"),
        # The first image of a project is docker's, all others are made of that.
        "graft": Builder((*_BEFORE, "graft", "verify", "report"), pool="docker", code_last=True),
        "noop": Builder(
            (*_BEFORE, "build", "report"), "builder:\n  type: noop\n", expected="failed"
        ),
    }
)

"""What clouds have in common: grants as data, and policies made of them, ready to be pasted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from imagemill.config import LaunchConfig
from imagemill.permissions.needs import OPTIONAL, Need, Party, Use


@dataclass(frozen=True)
class Grant:
    """Actions on one resource that a party is allowed, in the cloud's own names."""

    need: Need
    actions: tuple[str, ...]
    resource: str
    """The name by which the cloud's policies know it: an ARN, a bucket's URI, a resource's path."""

    @property
    def party(self) -> Party:
        return self.need.party

    @property
    def use(self) -> Use:
        return self.need.use

    @property
    def only(self) -> str:
        """What this is for, where builds can do without it."""
        return OPTIONAL.get(self.use, "")


@dataclass(frozen=True)
class Block:
    """Something to be pasted as a whole; its comments, if the language has any, are part of it."""

    title: str
    text: str


@dataclass(frozen=True)
class PolicyDocument:
    """All that one party is to be granted in one cloud."""

    cloud: str
    party: Party
    blocks: tuple[Block, ...]
    data: Any
    """The same as JSON-able data."""


class Cloud(Protocol):
    """What the module of each cloud can do."""

    def grants(self, needs: Sequence[Need], config: LaunchConfig) -> tuple[Grant, ...]:
        """Return what has to be granted there; nothing for needs that are another cloud's."""

    def policy(self, party: Party, grants: Sequence[Grant]) -> PolicyDocument:
        """One party's grants as this cloud wants them written: the least, and apart from it what is
        optional.
        """

    def line(self, grant: Grant, actions: Sequence[str], who: str) -> str:
        """Return the shortest piece of a policy that grants these actions of the grant.

        `who` is the party as the cloud knows it; empty: a shell variable stands for it.
        """


def least(grants: Sequence[Grant]) -> list[Grant]:
    """Return the grants that all builds need."""
    return [grant for grant in grants if not grant.only]


def optional(grants: Sequence[Grant]) -> Mapping[str, list[Grant]]:
    """Return the other grants, by what they are for."""
    found: dict[str, list[Grant]] = {}
    for grant in grants:
        if grant.only:
            found.setdefault(grant.only, []).append(grant)
    return found


def identifier(text: str) -> str:
    """Words as one, each with a capital: what clouds accept as a name."""
    return "".join(word.capitalize() for word in text.replace("-", " ").split())


def words(party: Party) -> str:
    """Return the party as a sentence has it."""
    return party.replace("-", " ")


def folded(command: str, option: str) -> str:
    """Return a shell command on two lines, of which the second begins with this option."""
    return command.replace(f" {option}", f" \\\n  {option}")


def variable(party: Party) -> str:
    """Return the shell variable that stands for the party's identity, which no config names."""
    return party.upper().replace("-", "_")


def merged(grants: Sequence[Grant]) -> tuple[str, ...]:
    """Return the actions of all grants, each once, in order."""
    return tuple(dict.fromkeys(action for grant in grants for action in grant.actions))

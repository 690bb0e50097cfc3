"""The least that has to be granted for a launch config, as data and as policies that can be pasted.

Nothing is asked of any cloud: what is granted follows from the config alone.

needs        what is done by whom, in no cloud's words
notes        what no policy can say
policy       grants and policies: what clouds have in common
aws, gcp, azure, kubernetes
             the same needs in each cloud's words
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from imagemill.config import LaunchConfig
from imagemill.permissions import aws, azure, gcp, kubernetes
from imagemill.permissions.needs import Need, Party, Use, needs, pushing_party, takes_push_role
from imagemill.permissions.notes import notes
from imagemill.permissions.policy import Block, Cloud, Grant, PolicyDocument

__all__ = [
    "Block",
    "Grant",
    "Need",
    "Party",
    "Permissions",
    "PolicyDocument",
    "Use",
    "permissions",
    "pushing_party",
    "takes_push_role",
]

CLOUDS: Mapping[str, Cloud] = MappingProxyType(
    {"aws": aws, "gcp": gcp, "azure": azure, "kubernetes": kubernetes}
)
"""Where something can be granted."""


@dataclass(frozen=True)
class Permissions:
    """All that has to be granted for a config."""

    grants: Mapping[str, tuple[Grant, ...]]
    """By cloud."""
    notes: tuple[str, ...]
    """What else has to be seen to, in words."""

    def policies(self) -> Iterator[PolicyDocument]:
        """Yield the policies, one for each cloud and party."""
        for name, grants in self.grants.items():
            for party in Party:
                if own := _without_repetition([grant for grant in grants if grant.party is party]):
                    yield CLOUDS[name].policy(party, own)

    def actions(self, refused: str, uses: Sequence[Use]) -> tuple[str, ...]:
        """Which of the actions that the worker is granted for these uses were refused: those that
        the text names.

        Where it names none, all that these uses need.
        """
        return tuple(
            dict.fromkeys(
                action for _, _, actions in self._refused(refused, uses) for action in actions
            )
        )

    def lines(
        self, refused: str, uses: Sequence[Use], who: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[str]:
        """Yield the pieces of a policy that grant the worker these actions.

        `who` is the worker as each cloud knows it; where one does not, a shell variable stands for
        the worker.
        """
        for name, grant, actions in self._refused(refused, uses):
            yield CLOUDS[name].line(grant, actions, who.get(name, ""))

    def _refused(self, text: str, uses: Sequence[Use]) -> list[tuple[str, Grant, tuple[str, ...]]]:
        own = [
            (name, grant)
            for name, grants in self.grants.items()
            for grant in grants
            if grant.party is Party.WORKER and grant.use in uses
        ]
        named = [
            (name, grant, actions)
            for name, grant in own
            if (actions := _named(grant.actions, text))
        ]
        return named or [(name, grant, grant.actions) for name, grant in own]


def permissions(config: LaunchConfig) -> Permissions:
    """Return what has to be granted for builds with this config."""
    needed = needs(config)
    grants = {name: cloud.grants(needed, config) for name, cloud in CLOUDS.items()}
    granted = {grant.need for own in grants.values() for grant in own}
    return Permissions(
        {name: own for name, own in grants.items() if own}, tuple(notes(config, needed, granted))
    )


def _named(actions: Sequence[str], text: str) -> tuple[str, ...]:
    return tuple(action for action in actions if re.search(rf"{re.escape(action)}(?!\w)", text))


def _without_repetition(grants: Sequence[Grant]) -> list[Grant]:
    """Return the grants of one party; what is optional for one use is left out where all builds
    need it for another.
    """
    always = {
        (grant.resource, action) for grant in grants if not grant.only for action in grant.actions
    }
    kept = [
        replace(
            grant,
            actions=tuple(
                action for action in grant.actions if (grant.resource, action) not in always
            ),
        )
        if grant.only
        else grant
        for grant in grants
    ]
    return [grant for grant in kept if grant.actions]

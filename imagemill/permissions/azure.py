"""Microsoft Azure: assignments of built-in roles for Blob Storage and the container registry.

Roles: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/storage and
…/containers.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from urllib.parse import urlsplit

from imagemill.clouds.hosts import ACR
from imagemill.config import LaunchConfig
from imagemill.permissions.needs import Need, Party, Use
from imagemill.permissions.policy import (
    Block,
    Grant,
    PolicyDocument,
    folded,
    least,
    optional,
    variable,
)
from imagemill.reference import ImageReference

_BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
_REGISTRIES = "Microsoft.ContainerRegistry/registries"

_ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Storage Blob Data Contributor": (f"{_BLOBS}/read", f"{_BLOBS}/write", f"{_BLOBS}/delete"),
        "AcrPull": (f"{_REGISTRIES}/pull/read",),
        "AcrPush": (f"{_REGISTRIES}/pull/read", f"{_REGISTRIES}/push/write"),
    }
)
"""Built-in roles, and what of each is used."""

_USES = {
    Use.KEEP_CONTEXTS: "Storage Blob Data Contributor",
    Use.FIND_IMAGES: "AcrPull",
    Use.PUSH_IMAGES: "AcrPush",
    Use.ADD_TAGS: "AcrPush",
    Use.GRAFT: "AcrPush",
    Use.CACHE_LAYERS: "AcrPush",
}


def grants(needs: Sequence[Need], config: LaunchConfig) -> tuple[Grant, ...]:
    """Return what has to be granted on containers of Blob Storage and on registries."""
    return tuple(grant for need in needs for grant in _grants(need))


def _grants(need: Need) -> Iterator[Grant]:
    resource = _registry(need.repository) if need.repository else _container(need.where)
    if resource and need.use in _USES:
        yield Grant(need, _ROLES[_USES[need.use]], resource)


def _container(uri: str) -> str | None:
    """`storageAccounts/ACCOUNT/CONTAINER`; None for what is none."""
    parts = urlsplit(uri)
    if parts.scheme != "https":
        return None
    return f"storageAccounts/{parts.netloc.partition('.')[0]}/{parts.path.split('/')[1]}"


def _registry(reference: ImageReference) -> str | None:
    """`registries/NAME`; None for what is none. The name is the host's without the label of its
    domain name.
    """
    host = ACR.fullmatch(reference.registry)
    return f"registries/{host['name']}" if host else None


def policy(party: Party, grants: Sequence[Grant]) -> PolicyDocument:
    """Return the commands that assign the roles to the party, and apart from them those for each
    optional use.
    """
    needed = least(grants)
    commands = _commands(
        [grant for grant in needed if not any(_covers(other, grant) for other in needed)]
    )
    more = {only: _commands(own) for only, own in optional(grants).items()}
    blocks = [
        _script(
            f"role assignments; {variable(party)} is the object id or the client id",
            party,
            commands,
        )
    ]
    blocks += [_script(f"role assignments, only {only}", party, own) for only, own in more.items()]
    data = {"commands": commands, "optional": more}
    return PolicyDocument("azure", party, tuple(blocks if commands else blocks[1:]), data)


def _covers(other: Grant, grant: Grant) -> bool:
    """Whether the role for the other grant holds all of this one's and more."""
    return other.resource == grant.resource and set(grant.actions) < set(other.actions)


def _commands(grants: Sequence[Grant]) -> list[str]:
    return list(dict.fromkeys(_command(grant) for grant in grants))


def _script(title: str, party: Party, commands: Sequence[str]) -> Block:
    lines = [folded(command, "--scope") for command in commands]
    return Block(title, "\n".join([f"{variable(party)}=ID", *lines]))


def line(grant: Grant, actions: Sequence[str], who: str) -> str:
    """Return the command that assigns the role in which the actions are."""
    return _command(grant, who)


def _command(grant: Grant, who: str = "") -> str:
    kind, name, *container = grant.resource.split("/")
    show = f"az {'acr' if kind == 'registries' else 'storage account'} show --name {name} --query id --output tsv"
    scope = f"$({show})" + "".join(f"/blobServices/default/containers/{name}" for name in container)
    assignee = shlex.quote(who) if who else f'"${variable(grant.party)}"'
    return f'az role assignment create --assignee {assignee} --role "{_USES[grant.use]}" --scope "{scope}"'

"""Microsoft Azure: assignments of built-in roles for Blob Storage and the container registry.

Roles: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/storage and …/containers.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from urllib.parse import urlsplit

from imagemill.config import LaunchConfig
from imagemill.hosts import ACR
from imagemill.permissions.needs import Need, Party, Use
from imagemill.permissions.policy import Block, Grant, Policy, folded, variable
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
    Use.CACHE_LAYERS: "AcrPush",
}


def grants(needs: Sequence[Need], config: LaunchConfig) -> tuple[Grant, ...]:
    """What has to be granted on containers of Blob Storage and on registries."""
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
    """`registries/NAME`; None for what is none."""
    host = ACR.fullmatch(reference.registry)
    return f"registries/{host[1]}" if host else None


def policy(party: Party, grants: Sequence[Grant]) -> Policy:
    """The commands that assign the roles to the party."""
    enough = [grant for grant in grants if not any(_covers(other, grant) for other in grants)]
    title = f"role assignments; {variable(party)} is the object id or the client id"
    script = "\n".join([f"{variable(party)}=ID", *dict.fromkeys(map(_for_people, enough))])
    commands = {_command(grant): grant.only for grant in enough}
    data = {"commands": list(commands), "optional": {command: only for command, only in commands.items() if only}}
    return Policy("azure", party, (Block(title, script),), data)


def _covers(other: Grant, grant: Grant) -> bool:
    """Whether the role for the other grant, which all builds need, holds all of this one's and more."""
    return not other.only and other.resource == grant.resource and set(grant.actions) < set(other.actions)


def line(grant: Grant, actions: Sequence[str], who: str) -> str:
    """The command that assigns the role in which the actions are."""
    return _command(grant, who)


def _for_people(grant: Grant) -> str:
    comment = f"  # only {grant.only}" if grant.only else ""
    return folded(_command(grant), "--scope") + comment


def _command(grant: Grant, who: str = "") -> str:
    kind, name, *container = grant.resource.split("/")
    show = f"az {'acr' if kind == 'registries' else 'storage account'} show --name {name} --query id --output tsv"
    scope = f"$({show})" + "".join(f"/blobServices/default/containers/{name}" for name in container)
    assignee = who or f"${variable(grant.party)}"
    return f'az role assignment create --assignee "{assignee}" --role "{_USES[grant.use]}" --scope "{scope}"'

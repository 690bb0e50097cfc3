"""Google Cloud: custom roles for Cloud Storage and Artifact Registry, and the commands that create
and bind them.

Roles are bound on the bucket and the repository alone, never on the whole project. A custom role
can only be bound within the project that it is in, so it is created in its resource's project.
Permissions: https://cloud.google.com/storage/docs/access-control/iam-permissions and
https://cloud.google.com/artifact-registry/docs/access-control.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from imagemill.clouds.hosts import ARTIFACT_REGISTRY
from imagemill.config import GcpEnvironment, LaunchConfig
from imagemill.permissions.needs import Need, Party, Use
from imagemill.permissions.policy import (
    Block,
    Grant,
    PolicyDocument,
    folded,
    identifier,
    least,
    merged,
    optional,
    variable,
    words,
)
from imagemill.reference import ImageReference

_PULL = ("artifactregistry.repositories.downloadArtifacts",)
_PUSH = (*_PULL, "artifactregistry.repositories.uploadArtifacts")
_REPOSITORY = {
    Use.FIND_IMAGES: _PULL,
    Use.PUSH_IMAGES: _PUSH,
    Use.ADD_TAGS: _PUSH,
    Use.GRAFT: _PUSH,
    Use.CACHE_LAYERS: _PUSH,
}
_BUCKET = {
    Use.KEEP_CONTEXTS: (
        "storage.buckets.get",
        "storage.objects.create",
        "storage.objects.delete",
        "storage.objects.get",
    ),
    Use.READ_CONTEXTS: ("storage.objects.get",),
}
_PROJECT = "PROJECT"
"""Stands for a project that the config does not name."""


@dataclass(frozen=True)
class _Role:
    """A custom role of one party, for buckets or for repositories; the same in each project that
    has some.
    """

    party: Party
    kind: str

    @classmethod
    def of(cls, grant: Grant) -> "_Role":
        return cls(grant.party, "Contexts" if "/buckets/" in grant.resource else "Images")

    @property
    def id(self) -> str:
        return f"imagemill{identifier(self.party)}{self.kind}"

    def definition(self, permissions: Sequence[str]) -> dict[str, Any]:
        title = f"Imagemill {words(self.party)}, {self.kind.lower()}"
        return {"title": title, "stage": "GA", "includedPermissions": list(permissions)}

    def creation(self, resource: str) -> str:
        """Return the command that creates it, of the file with its definition."""
        return f"gcloud iam roles create {self.id} --project={_project(resource)} --file={self.id}.yaml"

    def creation_with(self, permissions: Sequence[str], resource: str) -> str:
        """Return the command that creates it with these permissions."""
        title = shlex.quote(self.definition(())["title"])
        to = f"--project={_project(resource)} --title={title} --stage=GA"
        return f"gcloud iam roles create {self.id} {to} --permissions={','.join(permissions)}"

    def extension(self, permissions: Sequence[str], resource: str) -> str:
        """Return the command that adds these permissions to it."""
        to = f"--project={_project(resource)} --add-permissions={','.join(permissions)}"
        return f"gcloud iam roles update {self.id} {to}"

    def binding(self, resource: str, who: str = "") -> str:
        """Return the command that binds it on the resource to an address, or to the shell variable
        that stands for one.
        """
        kind = "serviceAccount" if not who or who.endswith("gserviceaccount.com") else "user"
        member = shlex.quote(f"{kind}:{who}") if who else f'"{kind}:${variable(self.party)}"'
        to = f"--member={member} --role=projects/{_project(resource)}/roles/{self.id}"
        *_, name = parts = resource.split("/")
        if self.kind == "Contexts":
            return f"gcloud storage buckets add-iam-policy-binding gs://{name} {to}"
        where = f"--project={_project(resource)} --location={parts[3]}"
        return f"gcloud artifacts repositories add-iam-policy-binding {name} {where} {to}"


def _project(resource: str) -> str:
    return resource.split("/")[1]


def grants(needs: Sequence[Need], config: LaunchConfig) -> tuple[Grant, ...]:
    """Return what has to be granted on buckets of Cloud Storage and repositories of Artifact
    Registry.
    """
    environment = config.environment
    project = environment.project if isinstance(environment, GcpEnvironment) else _PROJECT
    return tuple(grant for need in needs for grant in _grants(need, project))


def _grants(need: Need, project: str) -> Iterator[Grant]:
    if need.where.startswith("gs://"):
        yield Grant(
            need, _BUCKET[need.use], f"projects/{project}/buckets/{urlsplit(need.where).netloc}"
        )
    elif need.use in _REPOSITORY and need.repository and (repository := _path(need.repository)):
        yield Grant(need, _REPOSITORY[need.use], repository)


def _path(reference: ImageReference) -> str | None:
    """Return the resource's path of a repository of Artifact Registry; None for what is none."""
    host = ARTIFACT_REGISTRY.fullmatch(reference.registry)
    # A project `example.com:name` is written as example.com/name.
    path = re.fullmatch(
        r"(?P<project>[^/.]+\.[^/]+/[^/]+|[^/]+)/(?P<repository>[^/]+)/.+", reference.path
    )
    if host is None or path is None:
        return None
    project = path["project"].replace("/", ":")
    return f"projects/{project}/locations/{host['region']}/repositories/{path['repository']}"


def policy(party: Party, grants: Sequence[Grant]) -> PolicyDocument:
    """Definitions of roles, and the commands that create them and bind them to the party's service
    account.

    What is optional is added to them, or comes in roles of its own, by commands apart.
    """
    needed = least(grants)
    roles = {role: role.definition(merged(own)) for role, own in _by_role(needed).items()}
    commands = list(dict.fromkeys([*map(_creation, needed), *map(_binding, needed)]))
    more = {only: [*_additions(own, commands)] for only, own in optional(grants).items()}
    blocks = [
        Block(f"custom role, {role.id}.yaml", yaml.safe_dump(definition, sort_keys=False).rstrip())
        for role, definition in roles.items()
    ]
    if commands:
        title = f"commands that create and bind the roles; {variable(party)} is the service account"
        blocks.append(_script(title, party, commands))
    blocks += [_script(f"commands, only {only}", party, own) for only, own in more.items()]
    definitions = {role.id: definition for role, definition in roles.items()}
    return PolicyDocument(
        "gcp", party, tuple(blocks), {"roles": definitions, "commands": commands, "optional": more}
    )


def _by_role(grants: Sequence[Grant]) -> dict[_Role, list[Grant]]:
    roles: dict[_Role, list[Grant]] = {}
    for grant in grants:
        roles.setdefault(_Role.of(grant), []).append(grant)
    return roles


def _creation(grant: Grant) -> str:
    return _Role.of(grant).creation(grant.resource)


def _binding(grant: Grant) -> str:
    return _Role.of(grant).binding(grant.resource)


def _additions(grants: Sequence[Grant], commands: Sequence[str]) -> Iterator[str]:
    """Yield the commands that grant these as well, where the others have been run."""
    for grant in grants:
        role = _Role.of(grant)
        add = role.extension if _creation(grant) in commands else role.creation_with
        yield add(grant.actions, grant.resource)
        if _binding(grant) not in commands:
            yield _binding(grant)


def _script(title: str, party: Party, commands: Sequence[str]) -> Block:
    binds = any(f"${variable(party)}" in command for command in commands)
    account = [f"{variable(party)}=NAME@PROJECT.iam.gserviceaccount.com"] if binds else []
    return Block(
        title, "\n".join([*account, *(folded(command, "--member") for command in commands)])
    )


def line(grant: Grant, actions: Sequence[str], who: str) -> str:
    """Return the commands that add the permissions to the role, and bind it.

    Who is known by no address, such as a federated identity, is left to be filled in.
    """
    role = _Role.of(grant)
    binding = role.binding(grant.resource, who if "@" in who else "")
    return f"{role.extension(actions, grant.resource)}\n{binding}"

"""Google Cloud: custom roles for Cloud Storage and Artifact Registry, and the commands that create and bind them.

Roles are bound on the bucket and the repository alone, never on the whole project. A custom role can only be bound
within the project that it is in, so it is created in its resource's project.
Permissions: https://cloud.google.com/storage/docs/access-control/iam-permissions and
https://cloud.google.com/artifact-registry/docs/access-control.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from imagemill.config import GcpEnvironment, LaunchConfig
from imagemill.hosts import ARTIFACT_REGISTRY
from imagemill.permissions.needs import Need, Party, Use
from imagemill.permissions.policy import Block, Grant, Policy, folded, identifier, merged, variable, words
from imagemill.reference import ImageReference

_PULL = ("artifactregistry.repositories.downloadArtifacts",)
_PUSH = (*_PULL, "artifactregistry.repositories.uploadArtifacts")
_REPOSITORY = {
    Use.FIND_IMAGES: _PULL,
    Use.PUSH_IMAGES: _PUSH,
    Use.ADD_TAGS: _PUSH,
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
    """A custom role of one party, for buckets or for repositories; the same in each project that has some."""

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
        return f"gcloud iam roles create {self.id} --project={_project(resource)} --file={self.id}.yaml"

    def binding(self, resource: str, member: str = "") -> str:
        member = member or f"serviceAccount:${variable(self.party)}"
        to = f'--member="{member}" --role=projects/{_project(resource)}/roles/{self.id}'
        *_, name = parts = resource.split("/")
        if self.kind == "Contexts":
            return f"gcloud storage buckets add-iam-policy-binding gs://{name} {to}"
        where = f"--project={_project(resource)} --location={parts[3]}"
        return f"gcloud artifacts repositories add-iam-policy-binding {name} {where} {to}"


def _project(resource: str) -> str:
    return resource.split("/")[1]


def grants(needs: Sequence[Need], config: LaunchConfig) -> tuple[Grant, ...]:
    """What has to be granted on buckets of Cloud Storage and repositories of Artifact Registry."""
    environment = config.environment
    project = environment.project if isinstance(environment, GcpEnvironment) else _PROJECT
    return tuple(grant for need in needs for grant in _grants(need, project))


def _grants(need: Need, project: str) -> Iterator[Grant]:
    if need.where.startswith("gs://"):
        yield Grant(need, _BUCKET[need.use], f"projects/{project}/buckets/{urlsplit(need.where).netloc}")
    elif need.use in _REPOSITORY and need.repository and (repository := _path(need.repository)):
        yield Grant(need, _REPOSITORY[need.use], repository)


def _path(reference: ImageReference) -> str | None:
    """The resource's path of a repository of Artifact Registry; None for what is none."""
    host = ARTIFACT_REGISTRY.fullmatch(reference.registry)
    # A project `example.com:name` is written as example.com/name.
    path = re.fullmatch(r"(?P<project>[^/.]+\.[^/]+/[^/]+|[^/]+)/(?P<repository>[^/]+)/.+", reference.path)
    if host is None or path is None:
        return None
    project = path["project"].replace("/", ":")
    return f"projects/{project}/locations/{host['region']}/repositories/{path['repository']}"


def policy(party: Party, grants: Sequence[Grant]) -> Policy:
    """Definitions of roles, and the commands that create them and bind them to the party's service account."""
    roles: dict[_Role, list[Grant]] = {}
    for grant in grants:
        roles.setdefault(_Role.of(grant), []).append(grant)
    resources = [(role, grant.resource) for role, own in roles.items() for grant in own]
    creations = dict.fromkeys(role.creation(resource) for role, resource in resources)
    commands = [*creations, *dict.fromkeys(role.binding(resource) for role, resource in resources)]
    blocks = [Block(f"custom role, {role.id}.yaml", _yaml(role, own)) for role, own in roles.items()]
    lines = [folded(command, "--member") for command in commands]
    script = "\n".join([f"{variable(party)}=NAME@PROJECT.iam.gserviceaccount.com", *lines])
    blocks.append(Block(f"commands that create and bind the roles; {variable(party)} is the service account", script))
    definitions = {role.id: role.definition(merged(own)) for role, own in roles.items()}
    data = {"roles": definitions, "commands": commands, "optional": _optional(grants)}
    return Policy("gcp", party, tuple(blocks), data)


def _yaml(role: _Role, grants: Sequence[Grant]) -> str:
    """The definition, with a comment behind each permission that not all builds need."""
    only = _optional(grants)
    head = yaml.safe_dump(role.definition(()), sort_keys=False).replace(" []", "").rstrip()
    return "\n".join(
        [head, *(f"- {name}" + (f"  # only {only[name]}" if name in only else "") for name in merged(grants))]
    )


def _optional(grants: Sequence[Grant]) -> dict[str, str]:
    """The permissions that not all builds need, and which builds do."""
    always = merged([grant for grant in grants if not grant.only])
    return {action: grant.only for grant in grants for action in grant.actions if action not in always}


def line(grant: Grant, actions: Sequence[str], who: str) -> str:
    """The role's permissions, and the command that binds the role."""
    role = _Role.of(grant)
    member = who and f"{'serviceAccount' if who.endswith('gserviceaccount.com') else 'user'}:{who}"
    return f"{role.id}.yaml: includedPermissions: [{', '.join(actions)}]\n{role.binding(grant.resource, member)}"

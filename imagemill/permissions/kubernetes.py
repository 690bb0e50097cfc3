"""Kubernetes: the Role with which a worker runs Kaniko's Jobs in one namespace."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from imagemill.builders.kaniko.permissions import PERMISSIONS
from imagemill.config import LaunchConfig
from imagemill.permissions.needs import Need, Party, Use
from imagemill.permissions.policy import Block, Grant, PolicyDocument, optional

_NAME = "imagemill-worker"


def grants(needs: Sequence[Need], config: LaunchConfig) -> tuple[Grant, ...]:
    """Return what has to be granted in the cluster."""
    return tuple(
        Grant(need, verbs, resource)
        for need in needs
        for resource, verbs in _verbs(need.use).items()
    )


def _verbs(use: Use) -> Mapping[str, tuple[str, ...]]:
    """Return API group and resource → the verbs on it that are for this use."""
    verbs: dict[str, tuple[str, ...]] = {}
    for permission in PERMISSIONS:
        if use is (Use.RUN_JOBS if permission.needed else Use.READ_EVENTS):
            resource = f"{permission.group}/{permission.resource}"
            verbs[resource] = (*verbs.get(resource, ()), permission.verb)
    return verbs


def policy(party: Party, grants: Sequence[Grant]) -> PolicyDocument:
    """Return a Role, to be bound to the worker's service account; what is optional has a comment,
    and can be left out.
    """
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": _NAME},
        "rules": [_rule(grant) for grant in grants],
    }
    more = {only: [_rule(grant) for grant in own] for only, own in optional(grants).items()}
    binding = f"kubectl create rolebinding {_NAME} --role={_NAME} --serviceaccount=NAMESPACE:SERVICE_ACCOUNT"
    blocks = (
        Block("Role in the namespace of the Jobs", _yaml(role, [grant.only for grant in grants])),
        Block("command that binds it", f"{binding} --namespace=NAMESPACE"),
    )
    data = {"role": role, "commands": [f"{binding} --namespace=NAMESPACE"], "optional": more}
    return PolicyDocument("kubernetes", party, blocks, data)


def line(grant: Grant, actions: Sequence[str], who: str) -> str:
    """Return a rule of the Role."""
    group, _, resource = grant.resource.partition("/")
    return rule(group, resource, actions)


def rule(group: str, resource: str, verbs: Sequence[str]) -> str:
    """Return the line of a Role that grants these verbs on the resource."""
    return f"- {_flow({'apiGroups': [group], 'resources': [resource], 'verbs': list(verbs)})}"


def _rule(grant: Grant) -> dict[str, Any]:
    group, _, resource = grant.resource.partition("/")
    return {"apiGroups": [group], "resources": [resource], "verbs": list(grant.actions)}


def _yaml(role: Mapping[str, Any], marks: Sequence[str]) -> str:
    """Return the Role with a line for each rule, as people write it, and a comment behind those
    that are optional.
    """
    text = yaml.safe_dump({**role, "rules": None}, sort_keys=False).replace(" null", "").rstrip()
    rules = [
        f"- {_flow(rule)}" + (f"  # only {only}" if only else "")
        for rule, only in zip(role["rules"], marks, strict=True)
    ]
    return "\n".join([text, *rules])


def _flow(rule: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(rule, default_flow_style=True, sort_keys=False, width=1000)
    return text.rstrip().replace("''", '""')

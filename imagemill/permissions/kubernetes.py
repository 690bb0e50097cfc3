"""Kubernetes: the Role with which a worker runs Kaniko's Jobs in one namespace.

Verbs: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import yaml

from imagemill.config import LaunchConfig
from imagemill.permissions.needs import Need, Party, Use
from imagemill.permissions.policy import Block, Grant, Policy

_NAME = "imagemill-worker"
_RULES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "batch/jobs": ("create", "get", "list", "watch", "delete"),
        "/pods": ("get", "list", "watch"),
        "/pods/log": ("get",),
        "/secrets": ("create", "get", "delete"),
        "/events": ("get", "list", "watch"),
    }
)
"""API group and resource → verbs. Events say why a pod does not start."""


def grants(needs: Sequence[Need], config: LaunchConfig) -> tuple[Grant, ...]:
    """What has to be granted in the cluster."""
    return tuple(
        Grant(need, verbs, resource) for need in needs if need.use is Use.RUN_JOBS for resource, verbs in _RULES.items()
    )


def policy(party: Party, grants: Sequence[Grant]) -> Policy:
    """A Role, to be bound to the worker's service account."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": _NAME},
        "rules": [_rule(grant, grant.actions) for grant in grants],
    }
    binding = f"kubectl create rolebinding {_NAME} --role={_NAME} --serviceaccount=NAMESPACE:SERVICE_ACCOUNT"
    blocks = (
        Block("Role in the namespace of the Jobs", _yaml(role)),
        Block("command that binds it", f"{binding} --namespace=NAMESPACE"),
    )
    return Policy("kubernetes", party, blocks, {"role": role, "commands": [f"{binding} --namespace=NAMESPACE"]})


def line(grant: Grant, actions: Sequence[str], who: str) -> str:
    """A rule of the Role."""
    group, _, resource = grant.resource.partition("/")
    return rule(group, resource, actions)


def rule(group: str, resource: str, verbs: Sequence[str]) -> str:
    """The line of a Role that grants these verbs on the resource."""
    return f"- {_flow({'apiGroups': [group], 'resources': [resource], 'verbs': list(verbs)})}"


def _rule(grant: Grant, verbs: Sequence[str]) -> dict[str, Any]:
    group, _, resource = grant.resource.partition("/")
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


def _yaml(role: Mapping[str, Any]) -> str:
    """The Role with a line for each rule, as people write it."""
    text = yaml.safe_dump({**role, "rules": None}, sort_keys=False).replace(" null", "").rstrip()
    return "\n".join([text, *(f"- {_flow(rule)}" for rule in role["rules"])])


def _flow(rule: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(rule, default_flow_style=True, sort_keys=False, width=1000)
    return text.rstrip().replace("''", '""')

"""What a Kubernetes API server says when it says no, told apart by who can mend it.

The words are those of Kubernetes 1.27 to 1.36; a Job's controller hands on the same ones in its
events when its pod is refused. Status documents:
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/.
"""

import json
import re
from typing import Any, NamedTuple

from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.place import machine
from imagemill.text import shortened

_CANNOT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
)
_QUOTA = re.compile(r"exceeded quota: (?P<quota>[^,]+), (?P<figures>requested: .*)", re.DOTALL)
_QUOTA_WANTS = re.compile(r"failed quota: (?P<quota>[^:]+): must specify (?P<what>.*)", re.DOTALL)
_ADMISSION = re.compile(
    r"admission webhook \"(?P<webhook>[^\"]+)\" denied the request(?:: | without explanation)(?P<reason>.*)"
    r"|ValidatingAdmissionPolicy '(?P<policy>[^']+)'.* denied request: (?P<rule>.*)"
    r"|violates PodSecurity \"(?P<level>[^\"]+)\": (?P<violation>.*)",
    re.DOTALL,
)
_LIMIT_RANGE = re.compile(
    r"(?:maximum|minimum) (?:cpu|memory|ephemeral-storage|\S+) (?:usage|limit)|limit to request ratio"
)
_NO_ACCOUNT = re.compile(r"service ?account \"?(?P<account>[^\s\"]+)\"? (?:was )?not found")
_NO_PRIORITY = re.compile(r"no PriorityClass with name (?P<name>\S+) was found")
_TERMINATING = re.compile(r"because it is being terminated")
_WEBHOOK_AWAY = re.compile(r"failed calling webhook \"(?P<webhook>[^\"]+)\"")


class ApiRequest(NamedTuple):
    """What was asked of the API server."""

    host: str
    verb: str
    resource: str
    """As RBAC writes it, with its group: `jobs.batch`, `pods/log`."""
    namespace: str
    name: str = ""

    @property
    def what(self) -> str:
        """The resource, in words for a message."""
        return f"{self.resource} {self.name}".strip()


def refusal(
    code: int, body: bytes, question: ApiRequest, retry_after: float | None = None
) -> ImagemillError:
    """Return the error for an answer that is none of the expected ones. `body` may be anything, as
    proxies answer too.
    """
    status = _status(body)
    said = shortened(str(status.get("message") or "")) or f"HTTP {code}"
    if code == 401:
        return PermissionDenied(
            f"The Kubernetes API at {question.host} does not accept {machine()}'s credentials: {said}",
            f"in a cluster, see that {machine()}'s service account exists; elsewhere renew the login in KUBECONFIG",
        )
    if code == 429:
        hint = "it limits how often it is asked; if this lasts, see its flow schemas (API priority and fairness)"
        return TransientError(
            f"The Kubernetes API at {question.host} has too much to do: {said}", hint, retry_after
        )
    if found := admission(str(status.get("message") or "")):
        return found
    if code == 403:
        return _forbidden(said, question)
    if code in (400, 413, 422):
        return _invalid(status, said, question)
    if code == 404 and (status.get("details") or {}).get("kind") == "namespaces":
        return OperatorError(
            f"The namespace {question.namespace} does not exist in the cluster at {question.host}",
            f"kubectl create namespace {question.namespace}, or name another one in the kubeconfig's context",
        )
    if code == 409 or code >= 500:
        hint = "see how the control plane is: kubectl get --raw '/readyz?verbose'"
        return ServiceUnreachable(
            f"The Kubernetes API at {question.host} answers: {said}", hint, retry_after
        )
    return OperatorError(
        f"The Kubernetes API at {question.host} refuses to {question.verb} {question.what}: {said}",
        "see that the address in KUBECONFIG is that of a Kubernetes API server",
    )


def admission(text: str) -> ImagemillError | None:
    """Return the error for what admission says of a Job or of its pod, if the text is of that kind."""
    for rule in _RULES:
        if error := rule(text):
            return error
    return None


def reason(body: bytes) -> str:
    """Return the machine-readable reason of a Status, such as `AlreadyExists`; empty if there is
    none.
    """
    return str(_status(body).get("reason") or "")


def _status(body: bytes) -> dict[str, Any]:
    try:
        status = json.loads(body)
    except ValueError:
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def _forbidden(said: str, question: ApiRequest) -> ImagemillError:
    found = _CANNOT.search(said)
    user = found["user"] if found else f"{machine()}'s user"
    verb, resource = question.verb, question.resource
    if found:
        verb, resource = found["verb"], ".".join(filter(None, (found["resource"], found["group"])))
    return PermissionDenied(
        f"No permission to {verb} {resource} in the namespace {question.namespace}: {said}",
        f'give {user} a Role that allows the verb "{verb}" on the resource "{resource}"; `imagemill doctor` lists all',
        verb,
        resource,
    )


def _invalid(status: dict[str, Any], said: str, question: ApiRequest) -> ImagemillError:
    """Name each field, without what is in it: it may be anything that a kaniko-config holds."""
    causes = (status.get("details") or {}).get("causes") or []
    faults = [
        f"{cause.get('field')}: {shortened(str(cause.get('message')), 200)}" for cause in causes
    ]
    return UserError(
        f"Kubernetes does not accept the {question.what}: {'; '.join(faults) or said}",
        "mend these fields of builder.kaniko-config; `imagemill kaniko job` prints the whole Job",
    )


def _quota(text: str) -> ImagemillError | None:
    if found := _QUOTA.search(text):
        return OperatorError(
            f"The namespace's quota {found['quota']} is exceeded: {shortened(found['figures'])}",
            "wait for other pods to end, lower builder.kaniko-config's resources, or raise the ResourceQuota",
        )
    if found := _QUOTA_WANTS.search(text):
        return OperatorError(
            f"The namespace's quota {found['quota']} wants to be told {shortened(found['what'])}",
            "set them under resources of the container in builder.kaniko-config",
        )
    return None


def _policy(text: str) -> ImagemillError | None:
    found = _ADMISSION.search(text)
    if not found:
        return None
    if found["webhook"]:
        who, why = (
            f"The admission webhook {found['webhook']}",
            found["reason"] or "without a reason",
        )
    elif found["policy"]:
        who, why = f"The admission policy {found['policy']}", found["rule"]
    else:
        who, why = f"Pod security ({found['level']})", found["violation"]
    hint = "do as it says in builder.kaniko-config, or have the namespace exempted from the policy"
    if found["level"] == "restricted":
        hint = (
            "Kaniko has to be root, which this level does not allow: let the build pods run in a namespace of the"
            " level baseline (pod-security.kubernetes.io/enforce)"
        )
    return OperatorError(f"{who} does not admit the build: {shortened(why)}", hint)


def _limit_range(text: str) -> ImagemillError | None:
    if not _LIMIT_RANGE.search(text):
        return None
    return OperatorError(
        f"The namespace's LimitRange does not admit the build: {shortened(text)}",
        "keep the resources in builder.kaniko-config within these limits",
    )


def _lacking(text: str) -> ImagemillError | None:
    """Return the error for what the pod names and the cluster does not have."""
    if found := _NO_ACCOUNT.search(text):
        return OperatorError(
            f"The build's service account {found['account'].rpartition('/')[2]} does not exist in the namespace",
            f"kubectl create serviceaccount {found['account'].rpartition('/')[2]}, or change builder.kaniko-config",
        )
    if found := _NO_PRIORITY.search(text):
        return OperatorError(
            f"The cluster has no priority class {found['name']}",
            "change priorityClassName in builder.kaniko-config",
        )
    return None


def _terminating(text: str) -> ImagemillError | None:
    if not _TERMINATING.search(text):
        return None
    return OperatorError(
        f"The namespace is being deleted: {shortened(text)}",
        f"let {machine()} use another namespace",
    )


def _webhook_away(text: str) -> ImagemillError | None:
    found = _WEBHOOK_AWAY.search(text)
    if not found:
        return None
    return ServiceUnreachable(
        f"The admission webhook {found['webhook']} does not answer: {shortened(text)}",
        "see that its service runs",
    )


_RULES = (_quota, _policy, _limit_range, _lacking, _terminating, _webhook_away)

"""Who is let in, who may do what, and what admission refuses: in Kubernetes' own order and words.

Everything is allowed until a test denies it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from kubernetes_server import status
from kubernetes_server.resources import (
    ACCESS_REVIEWS,
    NAMESPACES,
    PODS,
    QUOTAS,
    SERVICE_ACCOUNTS,
    Resource,
    Target,
)
from kubernetes_server.status import ApiError, Cause, Object
from kubernetes_server.store import Store

ANONYMOUS = "system:anonymous"


@dataclass(frozen=True)
class Rule:
    """What is not allowed: `resource` is as RBAC writes it (`jobs`, `pods/log`); `*` and an empty
    namespace are all.
    """

    verb: str
    resource: str
    namespace: str = ""

    def covers(self, verb: str, resource: str, namespace: str) -> bool:
        return (
            self.verb in ("*", verb)
            and self.resource in ("*", resource)
            and self.namespace in ("", namespace)
        )


@dataclass(frozen=True)
class Webhook:
    """A validating admission webhook that denies the creation of a resource."""

    name: str
    resource: str
    message: str
    code: int


@dataclass
class Fault:
    """An answer that takes the place of the right one, some times."""

    matches: Callable[[str, Target], bool]
    error: ApiError | None
    times: int


@dataclass
class Access:
    """Authentication, authorization, rate limits and admission of one server."""

    token: str
    user: str
    denied: set[Rule] = field(default_factory=set)
    webhooks: list[Webhook] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    starting: bool = False
    """Whether the server has just started and has not read its Roles yet: it refuses everything."""
    lost_answers: list[Fault] = field(default_factory=list)
    """Requests that are carried out, but whose connection breaks before the answer."""

    def authenticate(self, authorization: str | None, impersonated: str | None) -> str:
        """The user whom the headers name; 401 for a token that is not known.

        https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
        """
        if not authorization:
            return ANONYMOUS
        if authorization != f"Bearer {self.token}":
            raise status.unauthorized()
        return impersonated or self.user

    def allowed(self, user: str, verb: str, resource: str, namespace: str) -> bool:
        """Whether RBAC lets the user do it: only the server's own user is granted anything, but for
        asking that.
        """
        granted = user == self.user or (user != ANONYMOUS and resource == ACCESS_REVIEWS.plural)
        granted = granted and not self.starting
        return granted and not any(rule.covers(verb, resource, namespace) for rule in self.denied)

    def authorize(self, user: str, verb: str, target: Target) -> None:
        """Raise the 403 of an API server whose RBAC grants nothing that fits."""
        resource = target.resource
        named = f"{resource.plural}/{target.subresource}" if target.subresource else resource.plural
        if self.allowed(user, verb, named, target.namespace):
            return
        where = (
            f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        )
        why = f'User "{user}" cannot {verb} resource "{named}" in API group "{resource.group}" {where}'
        raise status.forbidden(resource, target.name, why)

    def answer_with_fault(self, verb: str, target: Target) -> None:
        """Raise what a test wants instead of the answer, if it wants anything."""
        fault = _take(self.faults, verb, target)
        if fault is not None and fault.error is not None:
            raise fault.error

    def drops(self, verb: str, target: Target) -> bool:
        """Whether a test wants the answer to this request to be lost."""
        return _take(self.lost_answers, verb, target) is not None

    def admit(self, resource: Resource, created: Object, store: Store) -> None:
        """Validating admission of a new object: webhooks, then quotas."""
        self._ask_webhooks(resource, created["metadata"].get("name", ""))
        self._check_quotas(resource, created["metadata"], store)

    def _ask_webhooks(self, resource: Resource, name: str) -> None:
        for webhook in self.webhooks:
            if webhook.resource in ("*", resource.plural):
                message = (
                    f'admission webhook "{webhook.name}" denied the request: {webhook.message}'
                )
                reason = "Forbidden" if webhook.code == 403 else "BadRequest"
                raise ApiError(webhook.code, reason, message)

    def _check_quotas(self, resource: Resource, metadata: Object, store: Store) -> None:
        """Object counts;
        https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-on-object-count
        """
        namespace = metadata.get("namespace", "")
        for quota in store.select(QUOTAS, namespace) if resource.namespaced else []:
            hard = quota["status"]["hard"]
            counted = [
                key for key in (f"count/{resource.qualified}", resource.plural) if key in hard
            ]
            over = [(key, store.count(key, namespace)) for key in counted]
            over = [(key, count) for key, count in over if count >= int(hard[key])]
            if over:
                requested = ",".join(f"{key}=1" for key, _ in over)
                used = ",".join(f"{key}={count}" for key, count in over)
                limited = ",".join(f"{key}={hard[key]}" for key, _ in over)
                counts = f"requested: {requested}, used: {used}, limited: {limited}"
                why = f"exceeded quota: {quota['metadata']['name']}, {counts}"
                raise status.forbidden(resource, metadata["name"], why)


def check_namespace(store: Store, resource: Resource, created: Object) -> None:
    """NamespaceLifecycle: nothing is created in a namespace that is not there, or is on its way
    out.
    """
    metadata = created["metadata"]
    if not resource.namespaced:
        return
    namespace = store.get(NAMESPACES, "", metadata["namespace"])
    if namespace is None:
        raise status.not_found(NAMESPACES, metadata["namespace"])
    if "deletionTimestamp" in namespace["metadata"]:
        name = metadata["namespace"]
        why = f"unable to create new content in namespace {name} because it is being terminated"
        error = status.forbidden(resource, metadata.get("name", ""), why)
        cause = Cause(
            "NamespaceTerminating", "metadata.namespace", f"namespace {name} is being terminated"
        )
        error.details = (error.details or {}) | {"causes": [vars(cause)]}
        raise error


def check_service_account(store: Store, pod: Object) -> None:
    """ServiceAccount: a pod's account has to be there, which is asked before the pod is looked at."""
    namespace, name = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
    if store.get(SERVICE_ACCOUNTS, namespace, name) is None:
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise status.forbidden(PODS, pod["metadata"]["name"], why)


def _take(faults: list[Fault], verb: str, target: Target) -> Fault | None:
    """The first fault that fits, which has happened once more by that."""
    fault = next((fault for fault in faults if fault.matches(verb, target)), None)
    if fault is not None:
        fault.times -= 1
        if not fault.times:
            faults.remove(fault)
    return fault

"""What a worker may have to do in the namespace of the Jobs; it is asked for here, and granted by a
Role.

Verbs:
https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb.
"""

from typing import NamedTuple


class Permission(NamedTuple):
    """A verb on a resource that the worker needs in its namespace."""

    verb: str
    resource: str
    group: str = ""
    needed: bool = True
    """False: builds work without it, but are told less."""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{self.group and f'.{self.group}'}"


PERMISSIONS = (
    *(Permission(verb, "jobs", "batch") for verb in ("create", "get", "list", "watch", "delete")),
    *(Permission(verb, "pods") for verb in ("list", "watch")),
    Permission("get", "pods/log"),
    *(Permission(verb, "secrets") for verb in ("create", "delete")),
    *(Permission(verb, "events", needed=False) for verb in ("list", "watch")),
)
"""All that is ever asked for, in this order."""

"""What the parts of the server that tests call have in common."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from kubernetes_server.access import Access
from kubernetes_server.api import Api
from kubernetes_server.http import Frontend
from kubernetes_server.resources import Resource
from kubernetes_server.status import Object
from kubernetes_server.store import Store

T = TypeVar("T")


class Running(Protocol):
    """A server that runs: its parts, to be touched on its loop only."""

    namespace: str
    pace: float
    store: Store
    access: Access
    api: Api
    frontend: Frontend

    def _call(self, act: Callable[[], T]) -> T: ...

    def _insert(self, resource: Resource, created: Object) -> Object: ...

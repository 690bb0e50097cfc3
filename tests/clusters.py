"""The cluster that a contract test runs on: the API server of the tests, or the real one that the
environment names.

`make test-cluster` names one, by IMAGEMILL_TEST_KUBECONFIG; no other variable does, so that a test
never touches a cluster that somebody merely works with.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch

from kubernetes_server.server import KubernetesServer

KUBECONFIG = "IMAGEMILL_TEST_KUBECONFIG"


@dataclass(frozen=True)
class Cluster:
    """A cluster to reach by its kubeconfig, and a namespace in it.

    The client's methods take plain dicts and return models, which its type hints do not say: hence
    `Any`.
    """

    kubeconfig: Path
    namespace: str
    api: Any
    """An ApiClient."""

    @property
    def core(self) -> Any:
        return client.CoreV1Api(self.api)

    @property
    def batch(self) -> Any:
        return client.BatchV1Api(self.api)

    @property
    def authorization(self) -> Any:
        return client.AuthorizationV1Api(self.api)


def real_cluster() -> Path | None:
    """The kubeconfig of the real cluster that the environment names, if it does."""
    named = os.environ.get(KUBECONFIG)
    return Path(named) if named else None


@contextmanager
def any_cluster(folder: Path) -> Iterator[Path]:
    """The kubeconfig of the real cluster, if one is named, else of a server of our own while the
    block lasts.
    """
    if named := real_cluster():
        yield named
        return
    with KubernetesServer(folder, controls_jobs=True) as server:
        yield server.kubeconfig


@contextmanager
def fresh_namespace(kubeconfig: Path) -> Iterator[Cluster]:
    """A namespace of its own on the cluster, with all that a cluster puts into it; deleted with all
    that is in it.
    """
    with connected(kubeconfig) as api:
        core: Any = client.CoreV1Api(api)
        name = core.create_namespace(
            {"metadata": {"generateName": "imagemill-test-"}}
        ).metadata.name
        try:
            # Without its account no pod can be created; the other would come in the middle of a
            # test.
            _wait_for(core.list_namespaced_service_account, name, "default")
            _wait_for(core.list_namespaced_config_map, name, "kube-root-ca.crt")
            yield Cluster(kubeconfig, name, api)
        finally:
            core.delete_namespace(name)


@contextmanager
def connected(kubeconfig: Path) -> Iterator[Any]:
    """A client of the cluster, closed with all its connections when the block ends."""
    api: Any = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    try:
        yield api
    finally:
        api.close()
        api.rest_client.pool_manager.clear()


def _wait_for(listing: Any, namespace: str, name: str) -> None:
    """Wait for what a controller puts into each new namespace."""
    watching: Any = watch.Watch()  # type: ignore[no-untyped-call]
    found = watching.stream(
        listing, namespace, field_selector=f"metadata.name={name}", timeout_seconds=60
    )
    next(found)
    found.close()

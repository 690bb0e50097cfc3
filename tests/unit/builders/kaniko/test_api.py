"""Where the Kaniko builder finds its cluster: in a pod by the pod's service account, whatever a
kubeconfig says.
"""

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from kubernetes.config import incluster_config

from imagemill.builders.kaniko.api import JOBS, connect
from web import Response, Web, serve


@pytest.fixture
def api(certificate: Path) -> Iterator[Web]:
    """An API server that has whatever Job it is asked for, over TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serve(lambda _: Response(body=b'{"kind": "Job"}'), tls) as web:
        yield web


@pytest.fixture
def account(tmp_path: Path, certificate: Path) -> Path:
    """The folder of a service account, as the kubelet mounts it."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("first")
    (folder / "namespace").write_text("builds\n")
    (folder / "ca.crt").write_bytes(certificate.read_bytes())
    return folder


@pytest.fixture
def environment(tmp_path: Path, api: Web) -> dict[str, str]:
    """The environment of a pod that has a kubeconfig of another cluster, too."""
    kubeconfig = tmp_path / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "other", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "other", "user": {"token": "other"}}],
        "contexts": [
            {
                "name": "other",
                "context": {"cluster": "other", "user": "other", "namespace": "elsewhere"},
            }
        ],
        "current-context": "other",
    }
    kubeconfig.write_text(yaml.safe_dump(content))
    host, port = api.address.split(":")
    return {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "KUBECONFIG": str(kubeconfig),
    }


def tokens(api: Web) -> list[str]:
    return [request.headers["authorization"].lower() for request in api.requests]


def test_in_a_pod_it_is_the_service_accounts_cluster_and_namespace(
    environment: dict[str, str], account: Path, api: Web
) -> None:
    cluster = connect(environment, account)
    assert cluster.get(JOBS, "build-1") == {"kind": "Job"}
    assert (cluster.namespace, cluster.host) == ("builds", api.address)
    assert [request.path for request in api.requests] == [
        "/apis/batch/v1/namespaces/builds/jobs/build-1"
    ]
    assert tokens(api) == ["bearer first"]


def test_jobs_may_be_in_another_namespace_than_the_worker(
    environment: dict[str, str], account: Path, api: Web
) -> None:
    cluster = connect(environment | {"KUBERNETES_NAMESPACE": "image-builds"}, account)
    cluster.get(JOBS, "build-1")
    assert cluster.namespace == "image-builds"
    assert [request.path for request in api.requests] == [
        "/apis/batch/v1/namespaces/image-builds/jobs/build-1"
    ]


@pytest.mark.parametrize("missing", ["token", "KUBERNETES_SERVICE_HOST"])
def test_elsewhere_it_is_that_of_the_kubeconfig(
    environment: dict[str, str], account: Path, missing: str
) -> None:
    environment.pop(missing, None)
    (account / missing).unlink(missing_ok=True)
    cluster = connect(environment, account)
    assert (cluster.namespace, cluster.host) == ("elsewhere", "127.0.0.1:9")


def test_a_token_that_the_kubelet_renewed_is_used(
    environment: dict[str, str], account: Path, api: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = connect(environment, account)
    cluster.get(JOBS, "build-1")
    (account / "token").write_text("second")
    monkeypatch.setattr(incluster_config, "datetime", SimpleNamespace(datetime=TwoMinutesLater))
    cluster.get(JOBS, "build-1")
    assert connect(environment, account) is cluster
    assert tokens(api) == ["bearer first", "bearer second"]


class TwoMinutesLater(datetime.datetime):
    """A clock that is ahead: Kubernetes' client reads the token again after a minute."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "TwoMinutesLater":
        return super().now(tz) + datetime.timedelta(minutes=2)

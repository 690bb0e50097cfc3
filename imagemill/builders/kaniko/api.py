"""The connection to a Kubernetes cluster: where it is, and what is asked of it.

The official client brings the settings (service account, kubeconfig, TLS, tokens that are renewed).
Objects are plain JSON: its models cost time and memory with hundreds of builds, and its calls lack
`sinceTime` for log streams. So do its connections, and `imagemill.http` adds the limit in time: whom
to trust, whom to be and by which proxy to go is the kubeconfig's to say, not the environment's, and
the API is asked in more than one try, never by a redirect. API conventions:
https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from kubernetes import config as kubeconfig
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config.incluster_config import InClusterConfigLoader
from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from imagemill import http
from imagemill.builders.kaniko.api_errors import ApiRequest, reason, refusal
from imagemill.builders.kaniko.permissions import PERMISSIONS, Permission
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
)
from imagemill.place import machine
from imagemill.retry_after import retry_after_seconds

Object = dict[str, Any]
"""A Kubernetes object, as its JSON."""

NAMESPACE = "KUBERNETES_NAMESPACE"
"""The variable that names the namespace of the Jobs, where that is not the worker's own."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its service account: token, ca.crt and namespace."""

CONNECTIONS = 16
"""Connections for questions that all builds of a process share; a question waits for a free one."""

STREAMS = 64
"""Streams that are expected at most: three watches, and the logs that are followed
(`logs.FOLLOWERS`).
"""

REFUSALS = 30.0
"""Seconds for which the API server may refuse what it has allowed before: see `Grants`."""

_ANOTHER_TIME = 60.0  # seconds without a refusal, after which the next one is the first again

_SILENCE = 30.0
_TIMEOUT = Timeout(connect=10, read=_SILENCE)
_RETRIES = 3
"""How often a question is asked again after a broken connection, or a 429 that says when; all of
ours may be.
"""

_LONGEST_WAIT = 5.0
"""Seconds for which such a 429 is waited for here, where nobody can stop the build meanwhile."""

_INTERVALS = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
_KEEP_ALIVE = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # Linux's own names; elsewhere the system's intervals hold.
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _INTERVALS
        if hasattr(socket, name)
    ),
]


P = ParamSpec("P")
T = TypeVar("T")


def shared(make: Callable[P, T]) -> Callable[P, T]:
    """Make a thing once for all threads that ask for it in the same words. `lru_cache` alone may
    make it twice.
    """
    lock, cached = threading.Lock(), lru_cache(maxsize=8)(make)

    @wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> T:
        with lock:
            return cached(*args, **kwargs)  # type: ignore[arg-type]

    return get


class Resource(NamedTuple):
    """A kind of object: where it is in the API."""

    path: str
    plural: str
    group: str = ""

    @property
    def qualified(self) -> str:
        """As RBAC and the API's messages write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


JOBS = Resource("apis/batch/v1", "jobs", "batch")
PODS = Resource("api/v1", "pods")
SECRETS = Resource("api/v1", "secrets")
EVENTS = Resource("api/v1", "events")
_LOGS = Resource("api/v1", "pods/log")
_REVIEWS = "apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Expired(Exception):  # noqa: N818 (the API's own name for it)
    """The resource version that was asked for is too old: 410 Gone."""


class Absent(Exception):  # noqa: N818 (an answer)
    """There is no log: the container has not begun, or is gone with its pod."""


class _Retries(Retry):
    """Waits as a server says, for `_LONGEST_WAIT` at most."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """See `Retry.get_retry_after`."""
        said = retry_after_seconds(response.headers.get("Retry-After"))
        return None if said is None else min(said, _LONGEST_WAIT)


class ApiResponse(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes


class Grants:
    """What the API server has allowed, and when it began to refuse that.

    An API server that has just started refuses for a moment what it allows, until it has read its
    Roles. So what was allowed before is not taken for forbidden at once, nor for ever.
    """

    def __init__(self) -> None:
        self._allowed: set[tuple[str, str]] = set()
        self._refused: dict[tuple[str, str], tuple[float, float]] = {}

    def allowed(self, question: ApiRequest) -> None:
        """Take note that the question was answered."""
        key = (question.verb, question.resource)
        self._allowed.add(key)
        self._refused.pop(key, None)

    def judged(self, error: ImagemillError, question: ApiRequest) -> ImagemillError:
        """Return the error, or, where it refuses what was allowed within `REFUSALS` seconds, one
        that time may mend.
        """
        key, now = (question.verb, question.resource), time.monotonic()
        if not isinstance(error, PermissionDenied) or key not in self._allowed:
            return error
        first, last = self._refused.get(key, (now, now))
        if now - last > _ANOTHER_TIME:
            first = now
        self._refused[key] = (first, now)
        if now - first >= REFUSALS:
            return error
        return ServiceUnreachable(
            f"The Kubernetes API at {question.host} refuses what it has allowed: {error.message}",
            f"it may be starting; if this lasts, see the Role of {machine()}'s account: `imagemill doctor`",
        )


class Cluster:
    """One namespace of a cluster, as the worker may use it. Safe to be used by many threads.

    Errors are the API server's, translated (`api_errors.refusal`), or `ServiceUnreachable` where
    there is no answer.
    """

    def __init__(self, configuration: Configuration, namespace: str) -> None:
        configuration.socket_options = _KEEP_ALIVE
        self.namespace = namespace
        self._grants = Grants()
        self._configuration = configuration
        # A question ends in time, as all that `http` asks; a stream has no end to be in time for.
        self._questions = http.timed(_pool(configuration, CONNECTIONS, block=True))
        self._streams = _pool(configuration, STREAMS, block=False)

    @property
    def host(self) -> str:
        """Host and port of the API server."""
        return urlsplit(self._configuration.host).netloc.rpartition("@")[2]

    def create(self, resource: Resource, body: Object, *, dry_run: bool = False) -> Object | None:
        """Return the object as it was created; None if there is one of that name. Unknown fields
        are an error. `dry_run`: as it would be, and nothing is.
        """
        question = self._question("create", resource, body["metadata"]["name"])
        query = {"fieldValidation": "Strict", "dryRun": "All" if dry_run else ""}
        answer = self._ask("POST", self._path(resource), question, query, body)
        if answer.status == 409 and reason(answer.body) == "AlreadyExists":
            return None
        return self._object(answer, question)

    def get(self, resource: Resource, name: str) -> Object | None:
        """Return the object; None if there is none of that name."""
        question = self._question("get", resource, name)
        answer = self._ask("GET", self._path(resource, name), question)
        return None if _is_absent(answer) else self._object(answer, question)

    def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> Object:
        """Return the list of all objects that fit the selectors, with the `resourceVersion` that it
        is of.
        """
        question = self._question("list", resource)
        query = {"labelSelector": labels, "fieldSelector": fields}
        return self._object(self._ask("GET", self._path(resource), question, query), question)

    def delete(self, resource: Resource, name: str, uid: str = "") -> None:
        """Delete the object and, before a Job goes, all that it owns; no error if it, or the one of
        `uid`, is gone.

        What owns nothing goes at once: in the foreground it would keep its name until the garbage
        collector has come by.
        """
        question = self._question("delete", resource, name)
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground" if resource is JOBS else "Background",
        }
        if uid:
            options["preconditions"] = {"uid": uid}
        answer = self._ask("DELETE", self._path(resource, name), question, {}, options)
        if not _is_absent(answer) and not (uid and answer.status == 409):
            self._object(answer, question)

    @contextmanager
    def log(self, pod: str, container: str, since: str = "") -> Iterator[BaseHTTPResponse]:
        """Open the stream of a container's log so far, each line after its time; from the second of
        `since` on.

        `Absent` if it has not begun, or is gone with its pod.
        """
        question = self._question("get", _LOGS, pod)
        path = f"{self._path(PODS, pod)}/log"
        with self._stream(
            self._questions, path, question, _log_query(container, since), _SILENCE
        ) as stream:
            yield stream

    @contextmanager
    def follow(
        self, pod: str, container: str, since: str, silence: float
    ) -> Iterator[BaseHTTPResponse]:
        """As `log`, until the container ends; `TransientError` after `silence` seconds without a
        line.
        """
        question = self._question("get", _LOGS, pod)
        query = {**_log_query(container, since), "follow": "true"}
        with self._stream(
            self._streams, f"{self._path(PODS, pod)}/log", question, query, silence
        ) as stream:
            yield stream

    @contextmanager
    def watch(
        self,
        resource: Resource,
        version: str,
        seconds: int,
        silence: float,
        *,
        labels: str = "",
        fields: str = "",
    ) -> Iterator[BaseHTTPResponse]:
        """Open the stream of what changes after `version`, a JSON document a line; `Expired` if
        that is too old.
        """
        question = self._question("watch", resource)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            "labelSelector": labels,
            "fieldSelector": fields,
        }
        with self._stream(self._streams, self._path(resource), question, query, silence) as stream:
            yield stream

    def missing_permissions(self) -> tuple[Permission, ...]:
        """Those of `PERMISSIONS` that the cluster does not grant the worker, by a
        SelfSubjectAccessReview each.
        """
        return tuple(permission for permission in PERMISSIONS if not self._is_allowed(permission))

    def _is_allowed(self, permission: Permission) -> bool:
        resource, _, subresource = permission.resource.partition("/")
        attributes = {
            "namespace": self.namespace,
            "verb": permission.verb,
            "group": permission.group,
            "resource": resource,
            "subresource": subresource,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        question = ApiRequest(
            self.host, "create", "selfsubjectaccessreviews.authorization.k8s.io", self.namespace
        )
        return bool(
            self._object(self._ask("POST", _REVIEWS, question, {}, review), question)["status"][
                "allowed"
            ]
        )

    def _question(self, verb: str, resource: Resource, name: str = "") -> ApiRequest:
        return ApiRequest(self.host, verb, resource.qualified, self.namespace, name)

    def _path(self, resource: Resource, name: str = "") -> str:
        path = f"{resource.path}/namespaces/{quote(self.namespace, safe='')}/{resource.plural}"
        return f"{path}/{quote(name, safe='')}" if name else path

    def _ask(
        self,
        method: str,
        path: str,
        question: ApiRequest,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> ApiResponse:
        retries = _Retries(
            _RETRIES, backoff_factor=0.1, allowed_methods=None, redirect=0, raise_on_status=False
        )
        with _reached(self.host), http.in_time(self._configuration.host):
            response = self._questions.request(
                method,
                self._url(path, query or {}),
                body=json.dumps(body) if body is not None else None,
                headers=self._headers(),
                timeout=_TIMEOUT,
                retries=retries,
            )
        if response.status == 429 or response.status >= 500:
            raise refusal(
                response.status,
                response.data,
                question,
                retry_after_seconds(response.headers.get("Retry-After")),
            )
        return ApiResponse(response.status, response.data)

    @contextmanager
    def _stream(
        self,
        pool: PoolManager,
        path: str,
        question: ApiRequest,
        query: Mapping[str, str],
        silence: float,
    ) -> Iterator[BaseHTTPResponse]:
        with _reached(self.host):
            with http.in_time(self._configuration.host, is_large=True):
                response = pool.request(
                    "GET",
                    self._url(path, query),
                    headers=self._headers(),
                    timeout=Timeout(connect=10, read=silence),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
            try:
                try:
                    _check_stream(response, question)
                except ImagemillError as error:
                    raise self._grants.judged(error, question) from None
                self._grants.allowed(question)
                yield response
            finally:
                response.close()
                response.release_conn()

    def _url(self, path: str, query: Mapping[str, str]) -> str:
        given = urlencode({key: value for key, value in query.items() if value})
        return f"{self._configuration.host.rstrip('/')}/{path}{given and f'?{given}'}"

    def _headers(self) -> dict[str, str]:
        """With the credentials as they are now: the client renews tokens when it is asked for
        them.
        """
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": http.USER_AGENT,
        }
        settings: Mapping[str, Any] = self._configuration.auth_settings()
        for setting in settings.values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        return headers

    def _object(self, answer: ApiResponse, question: ApiRequest) -> Object:
        if answer.status not in (200, 201, 202):
            raise self._grants.judged(refusal(answer.status, answer.body, question), question)
        self._grants.allowed(question)
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ServiceUnreachable(
                f"{question.host} does not answer as a Kubernetes API server does",
                "check KUBECONFIG",
            )
        return found


def connect(environment: Mapping[str, str], service_account: Path = SERVICE_ACCOUNT) -> Cluster:
    """Return the cluster that the worker is in, else that of its kubeconfig; one and the same for
    all builds of a process.

    Nothing is asked of it yet. `OperatorError` if there is none, or the kubeconfig cannot be used.
    """
    if environment.get("KUBERNETES_SERVICE_HOST") and (service_account / "token").exists():
        address = (
            environment["KUBERNETES_SERVICE_HOST"],
            environment.get("KUBERNETES_SERVICE_PORT") or "443",
        )
        return _in_cluster(*address, service_account, environment.get(NAMESPACE) or "")
    home = Path(environment.get("HOME") or Path.home())
    paths = [Path(path) for path in (environment.get("KUBECONFIG") or "").split(":") if path] or [
        home / ".kube/config"
    ]
    files = tuple((path, path.stat().st_mtime_ns) for path in paths if path.is_file())
    if not files:
        raise OperatorError(
            f"{machine().capitalize()} is not in a Kubernetes cluster, and there is no kubeconfig at"
            f" {':'.join(map(str, paths))}",
            "run in a cluster with a service account, or set KUBECONFIG",
        )
    return _by_kubeconfig(files)


@shared
def _in_cluster(host: str, port: str, service_account: Path, namespace: str) -> Cluster:
    configuration = Configuration()
    loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
        token_filename=str(service_account / "token"),
        cert_filename=str(service_account / "ca.crt"),
        environ={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port},
    )
    try:
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        namespace = namespace or (service_account / "namespace").read_text().strip()
    except (kubeconfig.ConfigException, OSError) as error:
        raise OperatorError(
            f"{machine().capitalize()}'s service account cannot be used: {error}",
            f"see what is mounted at {service_account}",
        ) from None
    return Cluster(configuration, namespace)


@shared
def _by_kubeconfig(files: tuple[tuple[Path, int], ...]) -> Cluster:
    """Read again only when a file has changed."""
    names = ":".join(str(path) for path, _ in files)
    configuration = Configuration()
    try:
        kubeconfig.load_kube_config(  # type: ignore[no-untyped-call]
            names, client_configuration=configuration, persist_config=False
        )
        _, context = kubeconfig.list_kube_config_contexts(names)  # type: ignore[no-untyped-call]
    except kubeconfig.ConfigException as error:
        raise OperatorError(
            f"The kubeconfig {names} cannot be used: {error}", "try kubectl with it"
        ) from None
    return Cluster(configuration, context["context"].get("namespace") or "default")


def _pool(configuration: Configuration, size: int, *, block: bool) -> PoolManager:
    """Return the client's connections, of which there are never more than `size` if `block`."""
    configuration.connection_pool_maxsize = size
    pool = RESTClientObject(configuration).pool_manager
    pool.connection_pool_kw["block"] = block
    return pool


def _check_stream(response: BaseHTTPResponse, question: ApiRequest) -> None:
    if response.status == 410:
        raise Expired
    if response.status in (400, 404) and question.resource == _LOGS.qualified:
        raise Absent
    if response.status != 200:
        raise refusal(
            response.status,
            response.data,
            question,
            retry_after_seconds(response.headers.get("Retry-After")),
        )


def _log_query(container: str, since: str) -> dict[str, str]:
    return {"container": container, "timestamps": "true", "sinceTime": since}


def _is_absent(answer: ApiResponse) -> bool:
    """Whether the object itself is not there, and not its namespace or the whole API."""
    if answer.status != 404:
        return False
    details = (
        json.loads(answer.body).get("details") or {} if reason(answer.body) == "NotFound" else {}
    )
    return bool(details.get("name")) and details.get("kind") != "namespaces"


@contextmanager
def _reached(host: str) -> Iterator[None]:
    """Translate what urllib3 says where there is no answer. Its texts have the URL in them, which
    is of no use.
    """
    try:
        yield
    except HTTPError as error:
        raise _no_answer(host, error) from error


def _no_answer(host: str, error: HTTPError) -> ImagemillError:
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    if isinstance(cause, SSLError):
        return OperatorError(
            f"The certificate of the Kubernetes API at {host} is not trusted: {cause}",
            "set certificate-authority-data in the kubeconfig to the authority that signed it",
        )
    why = str(cause).rpartition(": ")[2] or type(cause).__name__
    return ServiceUnreachable(
        f"The Kubernetes API at {host} does not answer: {why}",
        "check the cluster, and the network to it",
    )

"""The server itself: a thread with an event loop on a free port, a kubeconfig for it, and its end.

Everything happens on that loop. What a test plays is handed to the loop and waited for, so it is
done, watches included, when the call returns.
"""

import asyncio
import base64
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import yaml
from aiohttp import web

from kubernetes_server import defaults
from kubernetes_server.access import Access
from kubernetes_server.api import Api
from kubernetes_server.control import Control
from kubernetes_server.controllers import Controllers
from kubernetes_server.http import Frontend
from kubernetes_server.job_controller import JobController
from kubernetes_server.resources import NAMESPACES, Resource
from kubernetes_server.status import Object
from kubernetes_server.store import Store

T = TypeVar("T")
_STARTS_WITHIN = 30.0
_ANSWERS_WITHIN = 120.0
_TURNS = 8


class KubernetesServer(JobController, Control):
    """An API server on 127.0.0.1 while the `with` block lasts; `kubeconfig` says how to reach it.

    It lets in one user, a service account of `namespace`, by a bearer token, and allows it
    everything at first. With `controls_jobs` it also has the Jobs' controller of a real cluster,
    whose part a test plays otherwise.
    """

    def __init__(
        self,
        folder: Path,
        namespace: str = "builds",
        *,
        controls_jobs: bool = False,
        pace: float = 0.05,
        certificate: Path | None = None,
    ) -> None:
        """`certificate`: a PEM file with a key and a certificate for 127.0.0.1, to speak TLS;
        without one it is plain HTTP.

        `pace`: seconds between what kubelet, controllers and garbage collector do one after the
        other.
        """
        self.folder, self.namespace = folder, namespace
        self.kubeconfig = folder / "kubeconfig.yaml"
        self.token = secrets.token_urlsafe(24)
        self.user = f"system:serviceaccount:{namespace}:worker"
        self.url = ""
        self.certificate = certificate
        self.pace = pace
        self.store = Store()
        self.access = Access(self.token, self.user)
        self.api = Api(self.store, self.access)
        self.api.garbage.pace = pace
        self.controllers = Controllers(self.store)
        self.frontend = Frontend(self.api)
        if controls_jobs:
            self._watch_jobs()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubernetes-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_STARTS_WITHIN):
            raise TimeoutError(f"the API server did not start within {_STARTS_WITHIN:.0f} s")
        self._call(self._populate)
        self._write_kubeconfig()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop.close()

    def create_namespace(self, name: str) -> None:
        """Make a namespace, with the service account that every namespace has."""
        self._call(lambda: self._insert(NAMESPACES, {"metadata": {"name": name}}))

    def _call(self, act: Callable[[], T]) -> T:
        """Do it on the server's loop, and return what it returns."""

        async def acted() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(acted(), self._loop).result(_ANSWERS_WITHIN)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        application = web.Application(client_max_size=3 * 1024**2)
        application.router.add_route("*", "/{path:.*}", self.frontend.handle)
        runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=0.05
        )
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        await web.SockSite(runner, listening, ssl_context=self._tls()).start()
        host, port = listening.getsockname()
        self.url = f"http{'s' if self.certificate else ''}://{host}:{port}"
        self._ready.set()
        await self._stopping.wait()
        for watch in self.api.watches:
            watch.close()
        # First no more connections, then the end of those that there are: asyncio loses one that
        # has been accepted, but not yet taken up, when its server is closed
        # (https://github.com/python/cpython/issues/109564).
        self._loop.remove_reader(listening)
        await _settled()
        assert runner.server is not None
        for transport in list(
            runner.server._connections.values()
        ):  # a handler forgets its own before it has ended
            transport.abort()
        await runner.cleanup()
        await _settled()

    def _tls(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        return context

    def _populate(self) -> None:
        for name in sorted({"default", self.namespace}):
            self._insert(NAMESPACES, {"metadata": {"name": name}})

    def _insert(self, resource: Resource, created: Object) -> Object:
        """Create an object as the cluster itself does, past all admission."""
        head: Object = {"kind": resource.kind, "apiVersion": resource.api_version}
        return self.api.insert(resource, defaults.prepare(resource, head | created))

    def _write_kubeconfig(self) -> None:
        context = {"cluster": "tests", "user": "tests", "namespace": self.namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": self._reached()}],
            "users": [{"name": "tests", "user": {"token": self.token}}],
            "contexts": [{"name": "tests", "context": context}],
            "current-context": "tests",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def _reached(self) -> Object:
        """Where the server is, and whom to trust for it."""
        where: Object = {"server": self.url}
        if self.certificate is not None:
            begin = b"-----BEGIN CERTIFICATE-----"
            own = begin + self.certificate.read_bytes().partition(begin)[2]
            where["certificate-authority-data"] = base64.b64encode(own).decode()
        return where


async def _settled() -> None:
    """Let the loop do what it has put off: it takes up and ends a connection in several turns."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)

"""The API over HTTP: from a request to a verb, and from its answer, error or stream to a
response.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from kubernetes_server import access, logs, resources, status
from kubernetes_server.api import Api, Call
from kubernetes_server.logs import Log, Wanted
from kubernetes_server.resources import PODS, Target
from kubernetes_server.store import Change
from kubernetes_server.watches import Watch

_BODIES = ("application/json", "application/yaml")
_HEALTH = ("/healthz", "/livez", "/readyz")


class Frontend:
    """Answers requests with what the API does."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.delay = 0.0
        """Seconds that each request waits for its answer."""
        self.logs: dict[tuple[str, str], Log] = {}
        """Logs by the pod's uid and the container's name."""
        self._following: dict[int, web.Request] = {}
        api.store.subscribers.add(self._end_logs_of_deleted)

    @property
    def followers(self) -> int:
        """How many logs are being followed."""
        return len(self._following)

    def cut_logs(self) -> None:
        """Break the connections of all logs that are followed."""
        for request in self._following.values():
            if request.transport is not None:
                request.transport.abort()

    def log(self, uid: str, container: str) -> Log:
        return self.logs.setdefault((uid, container), Log())

    def end_logs(self, pod: status.Object) -> None:
        """The pod's containers write no more: whoever follows them comes to the end."""
        spec = pod["spec"]
        for container in spec["containers"] + spec.get("initContainers", []):
            self.log(pod["metadata"]["uid"], container["name"]).end()

    def _end_logs_of_deleted(self, change: Change) -> None:
        if change.resource == PODS and change.type == "DELETED":
            self.end_logs(change.object)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        try:
            return await self._answer(request)
        except status.ApiError as error:
            return _error(error)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        user = self.api.access.authenticate(
            request.headers.get("Authorization"), request.headers.get("Impersonate-User")
        )
        if request.path in _HEALTH:
            return web.Response(text="ok")
        document = resources.discovery(request.path)
        if document is not None:
            return _json(_readable(user, request.path, document))
        await asyncio.sleep(self.delay)
        target = resources.target(request.path)
        verb = _verb(request, target)
        self.api.access.answer_with_fault(verb, target)
        self.api.access.authorize(user, verb, target)
        _check_accept(request)
        # A body that does not say what it is is taken for the first that the server knows, which is
        # JSON.
        content_type = (
            request.content_type if "Content-Type" in request.headers else "application/json"
        )
        call = Call(target, dict(request.query), user, await request.read(), content_type)
        if verb == "watch":
            return await self._watch(request, call)
        if target.subresource == "log":
            return await self._log(request, call)
        return self._once(request, verb, call)

    def _once(self, request: web.Request, verb: str, call: Call) -> web.Response:
        api = self.api
        verbs: dict[str, Any] = {
            "delete": api.delete,
            "deletecollection": api.delete_collection,
            "get": api.get,
            "list": api.listing,
            "patch": api.patch,
            "update": api.update,
        }
        if verb in ("create", "update") and call.content_type not in _BODIES:
            raise status.unsupported_media_type([*_BODIES, "application/vnd.kubernetes.protobuf"])
        code, answer = api.create(call) if verb == "create" else (200, verbs[verb](call))
        if api.access.drops(verb, call.target):
            assert request.transport is not None
            request.transport.abort()
        response = _json(answer, code)
        for warning in call.warnings:
            response.headers.add("Warning", f"299 - {json.dumps(warning)}")
        return response

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        watch = self.api.watch(call)
        watch.transport = request.transport
        self.api.subscribe(watch)
        try:
            seconds = float(call.query.get("timeoutSeconds") or 3600)
            return await self._stream(request, "application/json", self._lines(watch, seconds))
        finally:
            self.api.unsubscribe(watch)

    async def _lines(self, watch: Watch, seconds: float) -> AsyncIterator[bytes]:
        """The watch's lines until it is closed or its time is up; before that comes a bookmark."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (line := await watch.lines.get()) is not None:
                    yield line
                return
        watch.bookmark(self.api.store.revision)
        while not watch.lines.empty() and (line := watch.lines.get_nowait()) is not None:
            yield line

    async def _log(self, request: web.Request, call: Call) -> web.StreamResponse:
        pod = self.api.existing(call.target)
        container = logs.container_of(pod, call.query.get("container", ""))
        wanted = Wanted.of(call.query)
        if call.query.get("previous") in ("true", "1"):
            name = call.target.name
            raise status.bad_request(
                f'previous terminated container "{container}" in pod "{name}" not found'
            )
        if not pod["spec"].get("nodeName"):
            return web.Response(status=204)
        logs.check_started(pod, container)
        if wanted.follow:
            self._following[id(request)] = request
        try:
            lines = wanted.read(self.log(pod["metadata"]["uid"], container))
            return await self._stream(request, "text/plain", lines)
        finally:
            self._following.pop(id(request), None)

    async def _stream(
        self, request: web.Request, kind: str, pieces: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        response.enable_chunked_encoding()
        await response.prepare(request)
        # A client that went away ends the stream, which is nobody's fault.
        with contextlib.suppress(ConnectionResetError):
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        return response


def _verb(request: web.Request, target: Target) -> str:
    """The verb of RBAC that a request means; 405 if the resource does not have it.

    https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
    """
    one = bool(target.name)
    watches = request.query.get("watch", "").lower() in ("1", "true")
    verb = {
        "GET": "get" if one else "watch" if watches else "list",
        "POST": "create" if not one else "",
        "PUT": "update" if one else "",
        "PATCH": "patch" if one else "",
        "DELETE": "delete" if one else "deletecollection",
    }.get(request.method, "")
    allowed = {"log": ("get",), "status": ("get", "patch", "update")}
    if verb not in allowed.get(target.subresource, target.resource.verbs):
        raise status.method_not_allowed()
    return verb


def _check_accept(request: web.Request) -> None:
    accepted = request.headers.get("Accept", "*/*")
    if not any(kind in accepted for kind in ("application/json", "*/*", "application/*")):
        raise status.not_acceptable()


def _readable(user: str, path: str, document: status.Object) -> status.Object:
    """Discovery is for those who have said who they are; the version is for all."""
    if user == access.ANONYMOUS and path != "/version":
        message = f'forbidden: User "{user}" cannot get path "{path}"'
        raise status.ApiError(403, "Forbidden", message, {})
    return document


def _error(error: status.ApiError) -> web.Response:
    if error.code == 429:
        # Priority and fairness answers in plain text.
        return web.Response(status=429, text=f"{error.message}\n", headers=error.headers)
    return _json(error.status(), error.code, error.headers)


def _json(
    document: status.Object, code: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    body = json.dumps(document).encode()
    return web.Response(body=body, status=code, headers=headers, content_type="application/json")

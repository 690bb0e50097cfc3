"""The Secrets of a build: they belong to its Job, and so go with it.

The Job comes first and names them; its pod waits for them. So there is none without an owner, at
whatever moment a worker dies, and whoever adopts the Job makes them anew.
"""

import base64
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from imagemill.builders.kaniko.api import SECRETS, Cluster, Object
from imagemill.builders.kaniko.context_access import URL_KEY, kaniko_url
from imagemill.builders.kaniko.job import (
    SLACK,
    build_secret_name,
    certificates_name,
    context_secret_name,
    docker_secret_name,
    own_secrets,
)
from imagemill.builders.kaniko.pod_credentials import DOCKER_CONFIG_KEY
from imagemill.builders.kaniko.task import Task
from imagemill.builders.kaniko.trust import secret_data
from imagemill.errors import OperatorError, ServiceUnreachable, TransientError
from imagemill.place import machine
from imagemill.ports import Credentials, SignedUrl
from imagemill.registries.docker_config import auths

LEAD = 300.0
"""Seconds before their end at which credentials are renewed: the kubelet takes a minute or two to
bring new ones.
"""

RENEW_AGAIN = 20.0
"""Seconds after which a login is renewed that could not be."""

_PAUSES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds after each deletion of a Secret that has the name: whoever holds it may need a moment."""


def docker_secret(job: Object, logins: Mapping[str, Credentials]) -> Object:
    """Return the Secret with docker's `config.json` for these logins, as a Job's own."""
    data = {DOCKER_CONFIG_KEY: json.dumps({"auths": auths(logins)}).encode()}
    return _secret(
        docker_secret_name(job["metadata"]["name"]), "kubernetes.io/dockerconfigjson", job, data
    )


def build_secret(job: Object, values: Mapping[str, bytes]) -> Object:
    """Return the Secret with the values of build secrets by their ids, as a Job's own."""
    return _secret(build_secret_name(job["metadata"]["name"]), "Opaque", job, values)


def context_secret(job: Object, signed: SignedUrl) -> Object:
    """Return the Secret with the signed URL of a Job's context, as its own."""
    data = {URL_KEY: kaniko_url(signed.text).encode()}
    return _secret(context_secret_name(job["metadata"]["name"]), "Opaque", job, data)


def certificates_secret(job: Object, certificates: Mapping[str, bytes]) -> Object:
    """Return the Secret with what a Job's pod is to trust, as its own."""
    name = certificates_name(job["metadata"]["name"])
    return _secret(name, "Opaque", job, secret_data(certificates))


def values(files: Mapping[str, Path]) -> dict[str, bytes]:
    """Return the values of build secrets, by their ids; `OperatorError` if a file cannot be read."""
    try:
        return {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:
        raise OperatorError(
            f"The build secret {Path(error.filename).name} cannot be read: {error.strerror}",
            f"see {machine()}'s folder of build secrets",
        ) from None


def put(cluster: Cluster, secret: Object) -> None:
    """Create the Secret, in the place of one that has its name: pods that run read the new one
    after a while.
    """
    name = secret["metadata"]["name"]
    for pause in _PAUSES:
        if cluster.create(SECRETS, secret) is not None:
            return
        cluster.delete(SECRETS, name)
        time.sleep(pause)
    raise ServiceUnreachable(
        f"The Secret {name} cannot be replaced: it is still there after it was deleted",
        f"see what keeps it, or makes it again: kubectl get secret {name} -o yaml",
    )


def renewal(expires: float | None) -> float:
    """When what ends at `expires` is to be renewed, in seconds since 1970: some time before."""
    return math.inf if expires is None else max(expires - LEAD, (time.time() + expires) / 2)


def _login_renewal(login: Credentials) -> float:
    """When a login is to be renewed: a build's own while half of it is left, since nobody asks for
    another while a push goes on.
    """
    if login.is_narrow and login.expires is not None:
        return (time.time() + login.expires) / 2
    return renewal(login.expires)


def _secret(name: str, kind: str, job: Object, data: Mapping[str, bytes]) -> Object:
    metadata = job["metadata"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "labels": metadata["labels"], "ownerReferences": [owner]},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


class JobSecrets:
    """The Secrets that the pod of a Job waits for."""

    def __init__(self, task: Task, job: Object) -> None:
        self._task, self._job, self._own = task, job, own_secrets(job)
        self._name = job["metadata"]["name"]
        self._renewal = self._url_renewal = math.inf

    def bring(self) -> None:
        """Make them, or, of an adopted Job, make them anew."""
        self._renewal, self._url_renewal = self._bring_login(), self._bring_url()
        if certificates_name(self._name) in self._own:
            put(self._task.cluster, certificates_secret(self._job, self._task.certificates))
        if build_secret_name(self._name) in self._own:
            put(self._task.cluster, build_secret(self._job, values(self._task.inputs.secrets)))

    def renew(self, *, has_started: bool) -> None:
        """Bring a new login before the old one ends, and a new URL of the context while no pod has
        read it; where that cannot be had just now, try again in a while.
        """
        now = time.time()
        if now >= self._renewal:
            self._renewal = self._again("login", self._bring_login)
        if has_started:
            self._url_renewal = math.inf
        elif now >= self._url_renewal:
            self._url_renewal = self._again("URL of the context", self._bring_url)

    def _again(self, what: str, bring: Callable[[], float]) -> float:
        """When to renew it next."""
        try:
            return bring()
        except TransientError as error:
            self._task.progress.log(
                f"The pod's {what} could not be renewed, which is tried again: {error}"
            )
            return time.time() + RENEW_AGAIN

    def _bring_login(self) -> float:
        if docker_secret_name(self._name) not in self._own:
            return math.inf
        logins = self._task.logins.find()
        if not logins:
            return math.inf
        put(self._task.cluster, docker_secret(self._job, logins))
        return min(map(_login_renewal, logins.values()))

    def _bring_url(self) -> float:
        """Bring a URL that is good for as long as the Job may run."""
        if context_secret_name(self._name) not in self._own or self._task.signer is None:
            return math.inf
        signed = self._task.signer(self._task.progress.remaining() + SLACK)
        put(self._task.cluster, context_secret(self._job, signed))
        return renewal(signed.expires)

"""A cluster for Kaniko: the API server and the Jobs' controller of the tests, and here the kubelet,
what Kaniko does in its pods, and the controller that removes what has been there for long enough.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from urllib3.exceptions import HTTPError

from chaos.history import Left
from imagemill.reference import ImageReference
from images import Pusher, RefusedError
from kubernetes_server import KubernetesServer, clock
from kubernetes_server.resources import PODS, SECRETS

LOOK = 0.1
"""Seconds between two looks at what has changed."""

TRIES, PAUSE = 4, 1.0
"""How often Kaniko pushes, and seconds between two tries: `--push-retry=3`."""

Object = dict[str, Any]


class Cluster:
    """Runs each pod for `seconds`, and pushes an image where its Job says."""

    def __init__(self, server: KubernetesServer, seconds: float = 0.5) -> None:
        self.server = server
        self._seconds = seconds
        self._known: set[str] = set()
        self._closed = threading.Event()
        pool = ThreadPoolExecutor(1)
        self.playing = pool.submit(self._run)
        """Ends with `close`, or with what went wrong."""
        pool.shutdown(wait=False)

    def close(self) -> None:
        """Play no more; pods that run are left where they are."""
        self._closed.set()
        wait([self.playing])

    def at_work(self) -> Iterator[tuple[str, str]]:
        """The last word of the repository, and the name, of each pod that runs."""
        for pod in self.server.objects(PODS):
            if pod["status"]["phase"] == "Running":
                job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
                with contextlib.suppress(LookupError):
                    image = _image(self.server.job(job))
                    yield image.path.rpartition("/")[2], pod["metadata"]["name"]

    def left_over(self) -> Iterator[Left]:
        """What is there still, but for Jobs that have failed, which go when their time is up."""
        now = time.time()
        for job in self.server.jobs():
            if not _finished(job) or "ttlSecondsAfterFinished" not in job["spec"]:
                yield Left(now, "Job", job["metadata"]["name"])
        for secret in self.server.objects(SECRETS):
            yield Left(now, "Secret", secret["metadata"]["name"])

    def _run(self) -> None:
        while not self._closed.wait(LOOK):
            for pod in self.server.objects(PODS):
                if pod["metadata"]["uid"] not in self._known:
                    self._known.add(pod["metadata"]["uid"])
                    threading.Thread(target=self._play, args=[pod], daemon=True).start()
            for job in self.server.jobs():
                if _is_due(job):
                    with contextlib.suppress(LookupError):  # somebody has deleted it meanwhile
                        self.server.expire_job(job)

    def _play(self, pod: Object) -> None:
        """Be Kaniko in this pod; whoever deletes its Job ends it."""
        with contextlib.suppress(LookupError):
            job = self.server.job(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])
            self.server.run_pod(pod)
            self.server.log(pod, ["INFO[0000] Building"])
            time.sleep(self._seconds)
            self.server.pod(pod)
            self._push(pod, _image(job))

    def _push(self, pod: Object, image: ImageReference) -> None:
        why = ""
        for tried in range(TRIES):
            time.sleep(PAUSE if tried else 0)
            try:
                # No two builds of a source give the same bytes: there are times in them.
                pusher = Pusher(image.registry, image.path)
                digest = pusher.image(image.tag or "", label=pod["metadata"]["uid"])
            except RefusedError as error:
                code = HTTPStatus(error.status)
                why = f"unexpected status code {code.value} {code.phrase}"
            except HTTPError:
                why = "connection reset by peer"
            else:
                self.server.finish_pod(pod, 0, digest)
                return
        url = f"PUT http://{image.registry}/v2/{image.path}/manifests/{image.tag}"
        line = f"error pushing image: failed to push to destination {image}: {url}: {why}"
        self.server.log(pod, [line])
        self.server.finish_pod(pod, 1)


def _image(job: Object) -> ImageReference:
    return ImageReference.parse(job["metadata"]["annotations"]["dev.imagemill/image"])


def _finished(job: Object) -> str:
    """When the Job came to its end; nothing if it has not."""
    ends = [
        each["lastTransitionTime"]
        for each in job["status"].get("conditions", [])
        if each["type"] in ("Complete", "Failed") and each["status"] == "True"
    ]
    return ends[0] if ends else ""


def _is_due(job: Object) -> bool:
    """Whether its `ttlSecondsAfterFinished` are over."""
    ended, kept = _finished(job), job["spec"].get("ttlSecondsAfterFinished")
    if not ended or kept is None or "deletionTimestamp" in job["metadata"]:
        return False
    age = datetime.now(UTC) - clock.parse(ended)
    return age.total_seconds() > float(kept)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that plays while the block lasts."""
    folder.mkdir()
    with KubernetesServer(folder, controls_jobs=True) as server:
        made = Cluster(server)
        try:
            yield made
        finally:
            made.close()

"""Brings a source that only we can read to workers elsewhere: as an archive in a folder of their
context store.

The archive's name is its digest, which the request repeats. So what is there already is not sent
again, unless a build is forced, and nobody can put another source in its place. To the workers it
is an archive in a bucket like any other.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote

from imagemill import context
from imagemill.config import LaunchConfig
from imagemill.dockerfile.generate import chosen
from imagemill.errors import UserError
from imagemill.messages import BuildRequest, UploadPlan
from imagemill.objects import store_for
from imagemill.ports import ContextStore, Progress

FOLDER = "uploads"
"""Below the context store. Whoever uploads needs to write there alone; a life cycle rule removes
what is old.
"""


@dataclass(frozen=True)
class Upload:
    """The source of `request`, which goes where the service's `plan` says
    (`Client.plan_upload`).
    """

    request: BuildRequest
    plan: UploadPlan
    progress: Progress

    def bring(self, folder: Path) -> BuildRequest:
        """Return the request for the source, which is in the store by then; `folder` is its top,
        where it is here.
        """
        uri = self.plan.store_uri
        assert uri is not None
        builder = LaunchConfig.model_validate({"builder": self.plan.builder}).builder
        store = store_for(f"{uri}/{FOLDER}", region=self.plan.region)
        dockerfile = chosen(self.request, builder)
        digest = _Digest()
        context.bundle(folder, dockerfile, digest.stream, self.progress)
        name = f"{digest.hex}.tar.gz"
        if store.exists(name) and not self.request.force:
            self.progress.log(f"The source is in {uri} already")
        else:
            self.progress.log(f"Uploading the source to {uri}")
            self._store(store, name, folder, dockerfile)
        # Its top is the folder's, also where that has nothing but one folder in it.
        uploaded = f"{quote(store.uri(name), safe=':/')}#sha256={digest.hex}&subdirectory=."
        return self.request.model_copy(update={"source": uploaded})

    def _store(
        self, store: ContextStore, name: str, folder: Path, dockerfile: context.Choice
    ) -> None:
        with store.create(name) as out:
            digest = _Digest(out)
            context.bundle(folder, dockerfile, digest.stream, self.progress)
            if name != f"{digest.hex}.tar.gz":
                raise UserError(
                    f"The source {self.request.source} changed while it was packed",
                    "build from a source that is at rest, or build again",
                )


class _Digest:
    """The SHA-256 of what is written to a stream, which goes on to `out` if there is one."""

    def __init__(self, out: BinaryIO | None = None) -> None:
        self._sha256, self._out = hashlib.sha256(), out

    @property
    def stream(self) -> BinaryIO:
        return cast(BinaryIO, self)

    @property
    def hex(self) -> str:
        return self._sha256.hexdigest()

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        return self._out.write(data) if self._out else len(data)

    def flush(self) -> None:
        if self._out:
            self._out.flush()

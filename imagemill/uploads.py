"""Brings a source that only we can read to workers elsewhere: packed, into their context store, under its hash.

The worker that begins the build sees for itself that the hash is that of the context, so nobody has to be trusted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imagemill import context, hashing
from imagemill.build import BuildRequest, UploadPlan
from imagemill.context import Manifest
from imagemill.contexts import PackedContexts
from imagemill.dockerfiles import chosen
from imagemill.errors import UserError
from imagemill.ports import Progress
from imagemill.sources.packed import packed_source
from imagemill.stores import store_for

Plan = Callable[[BuildRequest, str | None], UploadPlan]
"""Asks the service; see `Client.plan_upload`."""


@dataclass(frozen=True)
class Upload:
    """The source of `request`, of which `plan` says where it is to go."""

    request: BuildRequest
    plan: Plan
    progress: Progress

    def bring(self, folder: Path) -> BuildRequest:
        """The request for what is in the store by then; the same request if the workers have no store to share."""
        plan = self.plan(self.request, None)
        uri = plan.builder.build_context_store
        if uri is None or uri.startswith("file:"):
            return self.request
        manifest = context.manifest(folder, chosen(self.request, plan.builder), self.progress)
        source_hash = hashing.source_hash(self.request, plan.builder, manifest)
        if self.plan(self.request, source_hash).wanted:
            self._store(folder, plan, uri, source_hash)
        found = {} if manifest.dockerfile.generated else {"dockerfile": manifest.dockerfile.path}
        return self.request.model_copy(update={"source": packed_source(source_hash), **found})

    def _store(self, folder: Path, plan: UploadPlan, uri: str, source_hash: str) -> None:
        contexts = PackedContexts(store_for(uri, region=plan.region))
        name = contexts.name(source_hash, "")
        if contexts.exists(name):
            self.progress.log(f"The context is in {uri} already")
            return

        def accept(packed: Manifest) -> None:
            if hashing.source_hash(self.request, plan.builder, packed) != source_hash:
                raise UserError(
                    f"The source {self.request.source} changed while it was packed",
                    "build from a source that is at rest, or build again",
                )

        self.progress.log(f"Uploading the context to {uri}")
        contexts.add(name, folder, chosen(self.request, plan.builder), accept, self.progress)

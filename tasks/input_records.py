"""What `imagemill why` is to know of a build: noted by the step that has seen what is in its
source.
"""

import time
from collections import deque

from imagemill.context import Manifest
from imagemill.errors import UserError
from imagemill.messages import Build
from tasks import workspace
from tasks.settings import Setup

_TRUSTED_SECONDS = 3600
"""How long a record that was there is taken to be there still: far less than
`names.BUILD_KEEP_SECONDS`.
"""

_used: deque[tuple[str, int]] = deque(maxlen=1000)
"""Source hash and hour of records that this process has used; most builds find their image, and
need not ask Redis for its record each time.
"""


def accept(setup: Setup, build: Build, manifest: Manifest) -> None:
    """Note the inputs; `UserError` if the source has another hash by now."""
    found = workspace.source_hash(build, manifest)
    if found != build.source_hash:
        workspace.forget_hash(setup, build)
        raise UserError(
            f"The source {build.request.source} changed between being hashed and being packed",
            "build from a source that is at rest, or build again",
        )
    note_inputs(setup, build, manifest, found)


def note_inputs(setup: Setup, build: Build, manifest: Manifest, source_hash: str) -> None:
    """Keep the record of the inputs, unless another build of the same has done so."""
    if not use_inputs(setup, source_hash):
        workspace.input_records(setup).keep(source_hash, workspace.input_record(build, manifest))


def use_inputs(setup: Setup, source_hash: str) -> bool:
    """Have the record of the inputs kept for longer; False if there is none (any more)."""
    use = source_hash, int(time.time() // _TRUSTED_SECONDS)
    if use in _used:
        return True
    known = workspace.input_records(setup).use(source_hash)
    if known:
        _used.append(use)
    return known

"""What `imagemill why` is to know of a build: noted by the step that has seen what is in its
source.
"""

import time
from collections import deque

from imagemill.context import Manifest
from imagemill.errors import UserError
from tasks.workspace import Workspace

_TRUSTED_SECONDS = 3600
"""How long a record that was there is taken to be there still: far less than
`names.BUILD_KEEP_SECONDS`.
"""

_used: deque[tuple[str, int]] = deque(maxlen=1000)
"""Source hash and hour of records that this process has used; most builds find their image, and
need not ask Redis for its record each time.
"""


def accept(work: Workspace, manifest: Manifest) -> None:
    """Note the inputs; `UserError` if the source has another hash by now."""
    if not work.is_as_hashed(manifest):
        work.forget_hash()
        raise UserError(
            f"The source {work.build.request.source} changed between being hashed and being packed",
            "build from a source that is at rest, or build again",
        )
    note_inputs(work, manifest, work.source_hash)


def note_inputs(work: Workspace, manifest: Manifest, source_hash: str) -> None:
    """Keep the record of the inputs, unless another build of the same has done so."""
    if not use_inputs(work, source_hash):
        work.input_records.keep(source_hash, work.input_record(manifest))


def use_inputs(work: Workspace, source_hash: str) -> bool:
    """Have the record of the inputs kept for longer; False if there is none (any more)."""
    use = source_hash, int(time.time() // _TRUSTED_SECONDS)
    if use in _used:
        return True
    known = work.input_records.use(source_hash)
    if known:
        _used.append(use)
    return known

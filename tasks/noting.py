"""What `imagemill why` is to know of a build: noted by the step that has seen what is in its source."""

from imagemill.build import Build
from imagemill.context import Manifest
from tasks import resolve
from tasks.setup import Setup


def note_inputs(setup: Setup, build: Build, manifest: Manifest, source_hash: str) -> None:
    """Keep the record of the inputs, unless another build of the same has done so."""
    records = resolve.input_records(setup)
    if not records.note(build.id, source_hash):
        records.keep(source_hash, resolve.input_record(build, manifest))

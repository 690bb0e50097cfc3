"""A source that is not what was hashed is not stored under that hash."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from imagemill.context.handover import Contexts, KeptContexts, PackedContexts
from imagemill.context.mirrors import Mirrors
from imagemill.errors import UserError
from imagemill.messages import Build, BuildRequest
from imagemill.objects.file import FileStore
from imagemill.ports import Quiet
from imagemill.sources.options import SourceOptions
from tasks.run import Run
from tasks.settings import Setup
from tasks.upload_context import store
from tasks.workspace import Workspace, launch_config


@pytest.mark.parametrize("packed", [True, False])
def test_a_source_that_changed_since_it_was_hashed_is_refused(tmp_path: Path, packed: bool) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch\n")
    setup = Setup(
        backend="redis://", state_dir=tmp_path / "state", sources=SourceOptions(roots=(source,))
    )
    quiet = Quiet()
    run = cast(Run, SimpleNamespace(setup=setup, log=quiet.log, check=quiet.check))
    request = BuildRequest(source=str(source))
    chosen = launch_config(setup, request, "docker").chosen
    build = Build(id="x", request=request, started=0, config=chosen, source_hash="0" * 64)
    folder = tmp_path / "store"
    contexts: Contexts = (
        PackedContexts(FileStore(folder.as_uri())) if packed else KeptContexts(Mirrors(folder))
    )

    with pytest.raises(UserError, match="changed between being hashed and being packed") as raised:
        store(contexts, run, Workspace(setup, build))

    assert "at rest" in raised.value.hint
    assert [path for path in folder.iterdir() if path.suffix != ".lock"] == []

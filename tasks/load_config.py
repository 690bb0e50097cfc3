"""First step: which launch config holds, what builds, and by when."""

import time

from imagemill.errors import UserError
from imagemill.messages import Build, State
from tasks.run import Run
from tasks.step import step
from tasks.workspace import Workspace, launch_config


@step(State.LOADING)
def load_config(run: Run, work: Workspace) -> Build:
    """Learn `config` and `deadline`."""
    build = work.build
    if build.config is not None:
        return build
    loaded = launch_config(run.setup, build.request)
    return build.knowing(
        config=loaded.config,
        deadline=time.time() + _timeout(build.request.timeout, run.setup.build_timeout),
        warnings=(*build.warnings, *loaded.warnings),
    )


def _timeout(wanted: float | None, most: float) -> float:
    if wanted is not None and wanted > most:
        raise UserError(
            f"A build may take {most:.0f} s here, and {wanted:.0f} s were asked for",
            "ask for less, or have the workers' IMAGEMILL_BUILD_TIMEOUT raised",
        )
    return wanted or most

"""First step: which launch config holds, what builds, and by when."""

import time

from imagemill.errors import UserError
from imagemill.messages import Build, State
from imagemill.policy import Permit
from tasks.run import Run
from tasks.step import step
from tasks.workspace import Workspace, launch_config


@step(State.LOADING)
def load_config(run: Run, work: Workspace) -> Build:
    """Learn `config` and `deadline`, if the policy allows what is asked for."""
    build = work.build
    if build.config is not None:
        return build
    loaded = launch_config(run.setup, build.request)
    work = work.knowing(config=loaded.config.model_copy(update={"policy": None}))
    most = _check(work, work.permit) or run.setup.build_timeout
    return build.knowing(
        config=work.config,
        deadline=time.time() + _timeout(build.request.timeout, min(most, run.setup.build_timeout)),
        warnings=(*build.warnings, *loaded.warnings),
    )


def _check(work: Workspace, permit: Permit) -> int | None:
    """Raise if the policy does not allow what is asked for; return the most seconds that it gives,
    if it says so.
    """
    permit.check_request(work.build.request)
    source = work.source
    permit.check_source(source.place)
    if source.image is None and (work.build.request.destination or work.config.builder.destination):
        permit.check_destination(work.destination)
    return permit.least("max_seconds")


def _timeout(wanted: float | None, most: float) -> float:
    if wanted is not None and wanted > most:
        raise UserError(
            f"A build may take {most:.0f} s here, and {wanted:.0f} s were asked for",
            "ask for less, or have the workers' IMAGEMILL_BUILD_TIMEOUT raised",
        )
    return wanted or most

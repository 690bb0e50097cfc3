"""First step: which launch config holds, what builds, and by when."""

import time

from imagemill.builders import check_builder
from imagemill.errors import UserError
from imagemill.messages import Build, State
from imagemill.policy import Permit
from tasks.pipeline import Next
from tasks.run import Run
from tasks.step import step
from tasks.workspace import Workspace, launch_config

ROUND = 2.0
"""Seconds, at most, for which a build is taken to run whose place in the line another one awaits."""

LONGEST_WAIT = 30.0
"""Seconds until a build that waits for many others of its tenant looks again."""


@step(State.LOADING)
def load_config(run: Run, work: Workspace) -> Build | Next:
    """Learn `config` and `deadline`, if the policy allows what is asked for."""
    build = work.build
    if build.config is not None:
        return build
    loaded = launch_config(run.setup, build.request)
    work = work.knowing(config=loaded.chosen)
    most = _check(work, work.permit) or run.setup.build_timeout
    most, wanted = min(most, run.setup.build_timeout), build.request.timeout
    if wanted is not None and wanted > most:
        raise UserError(
            f"A build may take {most:.0f} s here, and {wanted:.0f} s were asked for",
            "ask for less, or have the workers' IMAGEMILL_BUILD_TIMEOUT raised",
        )
    if wait := _wait(run, work, work.permit):
        return Next("load_config", build.knowing(in_line=True), wait)
    return build.knowing(
        config=loaded.chosen,
        in_line=work.permit.least("concurrent_builds") is not None,
        deadline=build.deadline or time.time() + (wanted or most),
        warnings=(*build.warnings, *loaded.warnings),
    )


def _wait(run: Run, work: Workspace, permit: Permit) -> float:
    """Return for how many seconds the build is to wait for others of its tenant; 0: not at all."""
    limit = permit.least("concurrent_builds")
    if limit is None:
        return 0
    before = work.quotas.place(work.build.tenant or "", work.build.id)
    if before < limit:
        return 0
    if not work.build.in_line:
        run.log(f"Waiting: {before} builds of this tenant are before it, and {limit} run at a time")
    rounds = (before - limit + 1) / max(limit, 1)
    return min(LONGEST_WAIT, min(ROUND, run.setup.wait_interval) * max(1.0, rounds))


def _check(work: Workspace, permit: Permit) -> int | None:
    """Raise if the policy does not allow what is asked for; return the most seconds that it gives,
    if it says so.
    """
    permit.check_request(work.build.request)
    check_builder(work.build.request, work.builder_type)
    if permit.least("daily_builds") is not None:
        permit.check_day(work.quotas.today(work.build.tenant or "", work.build.id))
    source = work.source
    permit.check_source(source.place)
    if source.image is None and (work.build.request.destination or work.config.builder.destination):
        permit.check_destination(work.destination)
    return permit.least("max_seconds")

"""Whether there is a service that takes builds: the workers behind a broker, or an embedded one."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from imagemill.client import Client, reach_broker
from imagemill.config import LaunchConfig
from imagemill.doctor.examination import Case
from imagemill.doctor.findings import Finding, Verdict, checked, failure
from imagemill.embedded import valkey_program, worker_code
from imagemill.errors import ImagemillError, UserError
from imagemill.names import LIGHT, POOLS, build_queue


def examine(case: Case) -> Iterator[Finding]:
    """All findings of the service."""
    if case.machine.client:
        yield from _service(case.machine.client, case.config.builder.type)
        yield policy(case.config)
    else:
        yield checked("embedded service", _embedded)


def _service(client: Client, builder: str) -> Iterator[Finding]:
    yield checked("backend", lambda: _backend(client))
    yield checked("broker", lambda: _broker(client))
    try:
        workers = client.workers()
    except ImagemillError as error:
        yield failure("workers", error)
        return
    yield _queue(workers, LIGHT)
    if builder == "auto":
        # What builds is up to the workers' config: one pool for builds is enough.
        queues = {
            queue
            for served in workers.values()
            for queue in served
            if queue.startswith(build_queue(""))
        }
        for queue in sorted(queues) or [build_queue("docker")]:
            yield _queue(workers, queue)
    else:
        yield _queue(workers, build_queue(builder))


def _backend(client: Client) -> Finding:
    with suppress(UserError):  # no such build: that is an answer
        client.status("doctor")
    return Finding("backend", Verdict.OK, "answers")


def _broker(client: Client) -> Finding:
    reach_broker(client)
    return Finding("broker", Verdict.OK, "answers")


def _queue(workers: Mapping[str, list[str]], queue: str) -> Finding:
    serving = sorted(worker for worker, queues in workers.items() if queue in queues)
    if serving:
        return Finding(f"queue {queue}", Verdict.OK, f"served by {', '.join(serving)}")
    pool = next((name for name, pool in POOLS.items() if queue in pool.queues), "all")
    return Finding(
        f"queue {queue}",
        Verdict.FAILED,
        "no worker answers that serves it, so builds wait",
        f"start one: imagemill worker --pool {pool}",
    )


def policy(config: LaunchConfig) -> Finding:
    """Return whether the config has a policy, and for whom."""
    if config.policy is None:
        return Finding(
            "policy",
            Verdict.OK,
            "there is none: whoever reaches the broker may have anything built, and pushed anywhere",
        )
    tenants = config.policy.tenants
    who = (
        "everybody" if tenants is None else f"the tenants {', '.join(sorted(tenants)) or '(none)'}"
    )
    return Finding("policy", Verdict.OK, f"its rules hold for {who}")


def _embedded() -> Finding:
    valkey_program()
    worker_code()
    return Finding("embedded service", Verdict.OK, "can be started, since no broker is configured")

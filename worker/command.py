"""A worker of one pool, as `imagemill worker` starts it; its arguments are the pool's name, and then
what Celery is told besides.
"""

import sys

from click import UsageError

from imagemill.errors import NotInstalled, UserError, end_process
from imagemill.extras import explained
from imagemill.names import POOLS


def arguments(pool: str, *given: str) -> list[str]:
    """Return what Celery is told of a pool; what is `given` comes last, and so wins."""
    queues, celery_pool, concurrency = POOLS[pool]
    told = ["worker", "--queues", ",".join(queues), "--hostname", f"{pool}@%h"]
    told += ["--pool", celery_pool]
    if concurrency is not None:
        told += ["--concurrency", str(concurrency)]
    return [*told, *given]


def main() -> None:
    """Run the worker to its end."""
    try:
        with explained():
            # Celery would look for it in the working folder first: it is here before that.
            import tasks.all  # noqa: F401
            from worker.app import app
    except NotInstalled as error:
        end_process(error)

    try:
        app.worker_main(arguments(*sys.argv[1:]))
    except UsageError as error:
        end_process(
            UserError(
                f"Celery's command worker: {error.format_message()}",
                "what follows the options is its own, after --: imagemill worker -- --help",
            )
        )

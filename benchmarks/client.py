"""What it costs to import the client, beside what Celery and redis-py cost that are imported alone."""

import os
import resource
import statistics
import subprocess
import sys

RUNS = 7

CELERY = "import celery, redis"
CLIENT = "from imagemill import Client"


def measure() -> dict[str, float]:
    """The CPU time of an import of ours ÷ that of theirs, each the median of some processes."""
    ours, theirs = [], []
    for _ in range(RUNS):  # in turns, so that whatever else the machine does is the same for both
        ours.append(cpu_seconds(CLIENT))
        theirs.append(cpu_seconds(CELERY))
    return {"client_import_vs_celery": statistics.median(ours) / statistics.median(theirs)}


def cpu_seconds(code: str) -> float:
    """Return the CPU time of a Python process that runs the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env={"PATH": os.environ["PATH"]}, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)

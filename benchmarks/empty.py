"""An empty task, for comparison: what Celery itself takes for a chain."""

from celery import shared_task


@shared_task(name="benchmarks.empty")
def empty(value: int) -> int:
    """Do nothing."""
    return value

"""The entry as a part of other services' Celery workflows, and what Flower sees of it: a task like
any other.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from celery.canvas import Signature
from celery.events.state import State as Monitor
from celery.result import AsyncResult

from imagemill.messages import BuildReport
from service import Service, service, until


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("canvas")
    config = folder / "launch-config.yaml"
    config.write_text("builder: {type: noop}\n")
    with service(redis_url, redis_url, "canvas:", folder, IMAGEMILL_CONFIG=str(config)) as workers:
        workers.start()
        yield workers


def image(running: Service, reference: str = f"localhost:1/x@sha256:{'0' * 64}") -> Signature:
    """A build that has nothing to do: an image that is pinned already."""
    arguments = {"request": {"source": f"docker-image://{reference}"}}
    return running.client.app.signature(
        "imagemill.build_image", kwargs=arguments, queue="imagemill"
    )


def collected(running: Service, **arguments: Any) -> Signature:
    """A task that gives back what it is given."""
    return running.client.app.signature("celery.accumulate", kwargs=arguments, queue="imagemill")


def result(running: Service, task: str) -> Any:
    return AsyncResult(task, app=running.client.app).get(timeout=30)


@pytest.mark.parametrize("ignored", [None, False])
def test_the_result_is_the_report(running: Service, ignored: bool | None) -> None:
    sent = image(running).set(ignore_result=ignored).apply_async()  # type: ignore[call-arg]
    seen = result(running, sent.id)

    assert BuildReport.load(seen).status == "succeeded"
    assert BuildReport.load(seen).id == sent.id


def test_a_callback_gets_the_report(running: Service) -> None:
    sent = image(running).apply_async(link=collected(running, index=0).set(task_id="callback"))
    seen = result(running, "callback")

    assert BuildReport.load(seen).id == sent.id


def test_the_next_task_of_a_chain_gets_the_report_once(running: Service) -> None:
    build = image(running).set(task_id="in-a-chain")
    sent = chain(build, collected(running, index=0), collected(running)).apply_async()

    assert [BuildReport.load(report).id for report in result(running, sent.id)] == ["in-a-chain"]


def test_a_chord_waits_for_all_its_builds(running: Service) -> None:
    builds = [f"of-a-chord-{number}" for number in range(3)]
    sent = chord(group(image(running).set(task_id=build) for build in builds))(collected(running))
    (reports,) = result(running, sent.id)

    assert {BuildReport.load(report).id for report in reports} == set(builds)


def test_a_failure_is_that_of_all_that_follows_too(running: Service) -> None:
    with running.monitored() as events:
        build = image(running, "nowhere.invalid/x y").set(task_id="fails")
        sent = chain(build, collected(running)).apply_async()
        for task in ("fails", sent.id):
            with pytest.raises(Exception, match="nowhere"):
                result(running, task)
        until(
            lambda: monitored(events, "fails") == "FAILURE",
            "the event of the failure",
            lambda: events,
        )
    assert {event["hostname"] for event in events} == {"all@test"}


def test_those_who_watch_the_workers_see_the_state_of_the_build(running: Service) -> None:
    with running.monitored() as events:
        build = image(running).apply_async().id
        until(lambda: monitored(events, build) == "SUCCESS", "the end of the build", lambda: events)

    monitor: Any = Monitor()
    states = []
    for event in events:
        monitor.event(event)
        task = monitor.tasks.get(build)
        if event.get("uuid") == build and task is not None and task.state not in states:
            states.append(task.state)
    seen = monitor.tasks[build]
    assert (seen.name, seen.worker.hostname) == ("imagemill.build_image", "all@test")
    assert f"localhost:1/x@sha256:{'0' * 64}" in seen.kwargs
    assert f"localhost:1/x@sha256:{'0' * 64}" in seen.result
    assert states == ["RECEIVED", "STARTED", "SUCCESS"]


def test_those_who_watch_the_workers_see_that_it_builds(running: Service, registry: str) -> None:
    """Until it is refused: by a builder that never builds."""
    project = running.folder / "project"
    project.mkdir()
    (project / "Dockerfile").write_text("FROM scratch\n")
    with running.monitored() as events:
        build = running.client.submit(source=str(project), destination=f"{registry}/canvas")
        until(lambda: monitored(events, build) == "FAILURE", "the end of the build", lambda: events)

    assert [event["type"] for event in events if event.get("uuid") == build] == [
        "task-received",
        "task-started",
        "task-building",
        "task-failed",
    ]


def monitored(events: list[dict[str, Any]], build: str) -> str | None:
    """The state of the build as Flower has it."""
    monitor: Any = Monitor()
    for event in list(events):
        monitor.event(event)
    task = monitor.tasks.get(build)
    return task.state if task else None

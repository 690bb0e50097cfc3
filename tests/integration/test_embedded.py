"""The embedded service by itself: what its worker does with builds that run when everything is to
end.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.contrib.testing.app import setup_default_app

from imagemill.cli.local_service import LocalService
from imagemill.context.index import AHEAD, GRAIN_NS
from imagemill.embedded import EmbeddedService
from imagemill.messages import BuildReport, State
from imagemill.state.journal import Journal
from service import until
from tasks.settings import Setup, journal
from trees import make
from unit.context import changes
from worker.embedded import Builds


@pytest.fixture
def records(redis_url: str, key_prefix: str) -> Iterator[Journal]:
    """The journal that tasks of this process would use."""
    app = Celery(backend=redis_url, set_as_current=False)
    app.conf.imagemill = Setup(backend=redis_url, key_prefix=key_prefix)
    with setup_default_app(app):
        app.set_default()  # also for other threads
        app.set_current()
        yield journal()


def begun(build: str) -> Builds:
    builds = Builds()
    builds.begin("task", SimpleNamespace(request=SimpleNamespace(root_id=build)))
    return builds


def test_builds_that_run_are_cancelled_and_waited_for(records: Journal) -> None:
    builds = begun("running")
    records.enter("running", State.BUILDING, time.time())
    cancelling = threading.Thread(target=builds.cancel)
    cancelling.start()
    until(lambda: records.is_cancelled("running"), "the wish to cancel")
    records.end("running", BuildReport(id="running", status="cancelled"))
    assert cancelling.is_alive()  # the step has not come to its end
    builds.end("task")
    cancelling.join(10)
    assert not cancelling.is_alive()


def test_builds_that_have_ended_are_left_in_peace(records: Journal) -> None:
    builds = begun("ended")
    records.end("ended", BuildReport(id="ended", status="succeeded"))
    builds.end("task")
    builds.cancel()
    assert not records.is_cancelled("ended")


def test_a_worker_that_has_begun_nothing_ends_at_once() -> None:
    Builds().cancel()


def test_the_service_builds_and_then_leaves_nothing(tmp_path: Path) -> None:
    with EmbeddedService(tmp_path / "state", {}, {}) as service:
        client = service.connect()
        report = client.wait(
            client.submit(source=str(tmp_path / "nothing"), destination="localhost:1/x")
        )
        assert report.status == "failed"
    assert list((tmp_path / "state").iterdir()) == []


class Local(LocalService):
    """The command line's service, in a process that has other children."""

    __enter__ = EmbeddedService.__enter__


def test_what_the_command_has_looked_at_its_worker_does_not_look_at_again(
    tmp_path: Path, registry: str
) -> None:
    cache, config = tmp_path / "cache", tmp_path / "config.yaml"
    config.write_text("builder: {type: noop}\n")
    source = make(tmp_path / "source", {"Dockerfile": "FROM scratch\nCOPY . /\n", "a": "one"})
    with Local(cache, {"IMAGEMILL_CONFIG": str(config)}, {}) as service:
        client = service.connect()

        def source_hash() -> str:
            build = client.submit(str(source), f"{registry}/ahead")
            found = client.wait(build, timeout=60).source_hash  # by which it has failed
            assert found
            return found

        changes.pass_time(source, GRAIN_NS)
        before = source_hash()
        [ahead] = [folder / AHEAD for folder in cache.glob("run-*")]
        service.look_ahead(str(source))
        until(ahead.exists, "that the command has looked")
        (source / "a").write_text("another")
        assert source_hash() == before
        assert source_hash() != before


def test_its_socket_is_private(tmp_path: Path) -> None:
    with EmbeddedService(tmp_path, {}, {}) as service:
        service.connect()
        socket = Path(service.broker.removeprefix("redis+socket://"))
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert socket.stat().st_mode & 0o777 == 0o700
    assert not socket.parent.exists()


def test_secrets_are_linked_and_pipes_copied(tmp_path: Path) -> None:
    file, (reader, writer) = tmp_path / "file", os.pipe()
    file.write_text("in a file")
    os.write(writer, b"in a pipe")
    os.close(writer)
    with EmbeddedService(
        tmp_path / "cache", {}, {"a": file, "b": Path(f"/dev/fd/{reader}")}
    ) as service:
        folder = Path(service.broker.removeprefix("redis+socket://")).parent / "secrets"
        assert (folder / "a").is_symlink()
        assert (folder / "a").read_text() == "in a file"
        assert (folder / "b").read_text() == "in a pipe"
        assert folder.stat().st_mode & 0o777 == 0o700
    os.close(reader)
    assert not folder.exists()


def test_what_a_crashed_machine_left_is_removed_after_a_day(tmp_path: Path) -> None:
    for name, age in (("run-old", 25 * 3600), ("run-new", 3600), ("other", 25 * 3600)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with EmbeddedService(tmp_path, {}, {}):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run-new"]

"""The client's parameters, its twin for asyncio, and its double for tests."""

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

import imagemill
from imagemill import AsyncClient, BuildFailed, BuildRequest, Client, UserError
from imagemill.errors import ServiceUnreachable
from imagemill.messages import BuildReport
from imagemill.testing import StubClient, failed, succeeded

DESTINATION = "registry.example.com/team/model"
BROKER = "redis://127.0.0.1:1/0"


# --- What is asked for ---


def test_each_field_of_a_request_is_a_parameter_and_is_described() -> None:
    parameters = [name for name in inspect.signature(Client.submit).parameters if name != "self"]
    assert sorted(parameters) == sorted(BuildRequest.model_fields)
    words = inspect.cleandoc(Client.submit.__doc__ or "").replace(",", " ").split()
    assert set(parameters) <= set(words)


@pytest.mark.parametrize("source", ["/src", Path("/src"), BuildRequest(source="/src")])
def test_a_source_is_a_text_a_path_or_a_whole_request(source: Any) -> None:
    client = StubClient()
    assert client.requests[client.submit(source)].source == "/src"


def test_the_parameters_are_the_request() -> None:
    client, given = StubClient(), {"tags": ("v1",), "build_args": {"A": "1"}, "timeout": 5.0}
    build = client.submit("/src", DESTINATION, force=True, **given)  # type: ignore[arg-type]
    assert client.requests[build] == BuildRequest.parse(
        {"source": "/src", "destination": DESTINATION, "force": True, **given}
    )


@pytest.mark.parametrize("wrong", [{"tags": ["no tag"]}, {"timeout": 0}, {"source": None}])
def test_what_is_wrong_is_refused_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    client = StubClient()
    with pytest.raises(UserError, match=next(iter(wrong))):
        client.submit(**{"source": "/src", **wrong})
    assert client.requests == {}


def test_a_request_and_parameters_beside_it_are_refused() -> None:
    with pytest.raises(UserError, match="tags"):
        StubClient().submit(BuildRequest(source="/src"), tags=["v1"])


# --- Where the service is ---


def test_in_a_program_with_django_celery_changes_nothing_on_behalf_of_the_client(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site.settings")
    Client(BROKER).close()
    assert not recwarn.list


def test_the_service_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_BROKER", "amqp://guest@localhost//")
    monkeypatch.setenv("IMAGEMILL_BACKEND", BROKER)
    monkeypatch.setenv("IMAGEMILL_KEY_PREFIX", "mine:")
    with Client() as client:
        assert client.app.conf.broker_url == "amqp://guest@localhost//"
        assert client.app.conf.result_backend == BROKER
        options = client.app.conf.result_backend_transport_options
        assert options["global_keyprefix"] == "mine:"


def test_a_broker_that_is_given_takes_no_backend_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGEMILL_BACKEND", "redis://other:6379/0")
    with Client(BROKER) as client:
        assert client.app.conf.result_backend == BROKER


def test_no_broker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEMILL_BROKER", raising=False)
    with pytest.raises(UserError, match="No broker is given") as raised:
        Client()
    assert "IMAGEMILL_BROKER" in raised.value.hint


# --- The twin for asyncio ---


def test_the_twin_has_the_same_methods_with_the_same_parameters() -> None:
    def public(client: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(getattr(client, name)).parameters)[1:]
            for name in vars(client)
            if not name.startswith("_")
        }

    ours, its = public(Client), public(AsyncClient)
    assert set(ours) - set(its) == {
        "plan_upload",
        "dead_letters",
        "dead_letter",
        "retry_dead_letter",
        "drop_dead_letter",
    }
    assert set(its) <= set(ours)


def test_builds_are_awaited() -> None:
    async def use() -> tuple[BuildReport, list[str]]:
        stub = StubClient()
        async with AsyncClient(client=stub) as client:
            build = await client.submit("/src", destination=DESTINATION)
            report = await client.wait(build, timeout=5)
            stub.log(build, "one", "two")
            assert (await client.status(build)).state == "SUCCEEDED"
            return report, [line async for line in client.logs(build)]

    report, lines = asyncio.run(use())
    assert report.status == "succeeded"
    assert lines == []  # the report is the last event


def test_whoever_stops_waiting_is_free_at_once() -> None:
    async def use() -> None:
        async with AsyncClient(client=StubClient(lambda build, request: None)) as client:
            build = await client.submit("/src")
            waiting = asyncio.create_task(client.wait(build))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(TimeoutError, match=build):
                await client.wait(build, timeout=0.01)

    asyncio.run(use())


# --- The double ---


def test_a_double_ends_each_build_with_its_answer() -> None:
    client = StubClient(lambda build, request: failed(build, "No Dockerfile", "write one"))
    report = client.wait(client.submit("/src"))
    with pytest.raises(BuildFailed, match="No Dockerfile"):
        report.raise_for_status()
    assert report.error is not None
    assert report.error.hint == "write one"


def test_a_doubles_build_goes_on_until_it_is_ended() -> None:
    client = StubClient(lambda build, request: None)
    build = client.submit("/src", DESTINATION)
    client.log(build, "a line")
    assert client.status(build).state == "QUEUED"
    with pytest.raises(TimeoutError):
        client.wait(build, timeout=0)
    assert list(client.logs(build)) == ["a line"]
    with pytest.raises(UserError, match="has no source hash"):
        client.source_hash(build)
    client.finish(build, succeeded(build, client.requests[build]))
    assert client.wait(build).image
    assert client.source_hash(build) == client.wait(build).source_hash


def test_a_doubles_build_is_cancelled_but_not_once_it_has_ended() -> None:
    client = StubClient(lambda build, request: None)
    build = client.submit("/src")
    client.cancel(build)
    assert client.status(build).state == "CANCELLED"
    done = StubClient()
    ended = done.submit("/src")
    done.cancel(ended)
    assert done.status(ended).state == "SUCCEEDED"


def test_a_doubles_builds_are_listed() -> None:
    client = StubClient(lambda build, request: None)
    first, second = client.submit("/a", DESTINATION), client.submit("/b", "h/r")
    client.finish(first, failed(first, "No Dockerfile"))
    assert [each.id for each in client.builds()] == [second, first]
    (found,) = client.builds(states=["FAILED"])
    assert (found.id, found.source, found.error) == (first, "/a", "No Dockerfile")
    assert [each.id for each in client.builds(destination="h/", most=1)] == [second]


def test_a_double_asks_nobody() -> None:
    real, stub = Client(BROKER), StubClient()
    with real, pytest.raises(ServiceUnreachable):
        real.status("x")
    for ask in (stub.status, stub.cancel, stub.source_hash, lambda build: list(stub.logs(build))):
        with pytest.raises(UserError, match="Nothing is known of a build x"):
            ask("x")
    assert stub.workers() == {}


# --- The package ---


def test_all_public_names_are_there() -> None:
    assert sorted(imagemill.__all__, key=str.lower) == sorted(dir(imagemill), key=str.lower)
    assert all(getattr(imagemill, name) is not None for name in imagemill.__all__)
    with pytest.raises(AttributeError, match="Clint"):
        imagemill.Clint  # noqa: B018


def test_all_errors_are_public() -> None:
    from imagemill import errors

    classes = {name for name, found in vars(errors).items() if inspect.isclass(found)}
    assert classes <= set(imagemill.__all__)

"""Messages that Celery cannot work with are refused before its main process tries to."""

import base64
import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagemill.messages import MOST_BYTES, MOST_DEPTH
from tasks import all as tasks
from worker import guard

STEP = "imagemill.load_config"
TASKS = {
    "imagemill.build_image": tasks.build_image.build_image,
    STEP: tasks.load_config.load_config,
}


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = {"a": value}
    return value


def message(
    body: Any = ([], {"request": {"source": "/x"}}, {}),
    task: str = "imagemill.build_image",
    text: bytes | None = None,
    content_type: str = "application/json",
    **headers: Any,
) -> Any:
    return SimpleNamespace(
        headers={"id": "b1", "task": task, **headers},
        properties={},
        delivery_info={},
        body=json.dumps(body).encode() if text is None else text,
        content_type=content_type,
        content_encoding="utf-8",
    )


def test_what_clients_and_steps_send_passes() -> None:
    canvas: dict[str, Any] = {"callbacks": [], "errbacks": None, "chain": None, "chord": None}
    guard.check(message([[], {"request": {"source": "/x"}}, canvas]), TASKS)
    guard.check(message([[{"id": "b1", "turn": 1}], {}, canvas], STEP), TASKS)
    guard.check(
        message(eta="2026-11-27T16:00:00+00:00", retries=2, timelimit=[None, 30], shadow=None),
        TASKS,
    )


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (message([[], {"request": {"source": "/x", "labels": nested(500)}}, {}]), "nested"),
        (message(text=b"[" * 100_000), "nested"),
        (message([]), "body"),
        (message({}), "body"),
        (message(None), "body"),
        (message([[], None, {}]), "body"),
        (message([[], {}, 5]), "body"),
        (message(text=b"{"), "JSON"),
        (message(text=b"\xff"), "UTF-8"),
        (message(text=b'"' + b"x" * MOST_BYTES + b'"'), "longer"),
        (message(content_type="application/x-python-serialize"), "JSON"),
        (message(timelimit="x"), "timelimit"),
        (message(timelimit=[1, 2, 3]), "timelimit"),
        (message(eta="yesterday"), "eta"),
        (message(eta="9999-12-31T23:59:59"), "eta"),
        (message(expires=5), "expires"),
        (message(retries="5"), "retries"),
        (message(argsrepr=5), "argsrepr"),
        (message(id=None), "id"),
        (message(id="a\nb"), "id"),
        (message(stamps=nested(100)), "nested"),
        (message([[{"id": "b1", "turn": "1"}], {}, {}], STEP), "body"),
        (message([[], {}, {}], STEP), "body"),
    ],
)
def test_what_celery_cannot_work_with_is_refused(refused: Any, why: str) -> None:
    with pytest.raises(guard.Refused, match=why):
        guard.check(refused, TASKS)


def test_a_request_may_be_nested_as_deep_as_is_said() -> None:
    guard.check(message([[], {"request": nested(MOST_DEPTH - 5)}, {}]), TASKS)


ENVELOPE: dict[str, Any] = {
    "body": base64.b64encode(b"[[], {}, {}]").decode(),
    "headers": {"id": "b1", "task": "imagemill.build_image"},
    "properties": {"delivery_info": {"routing_key": "imagemill"}, "body_encoding": "base64"},
    "content-type": "application/json",
    "content-encoding": "utf-8",
}


def test_an_envelope_is_read() -> None:
    assert guard.envelope(json.dumps(ENVELOPE)) == ENVELOPE


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "null", "[" * 100_000, '"x"'])
def test_what_is_no_envelope_is_refused(text: str) -> None:
    with pytest.raises(guard.Refused):
        guard.envelope(text)


@pytest.mark.parametrize("field", ["headers", "properties", "body"])
@pytest.mark.parametrize("value", [None, 5, "x!", [], nested(100)])
def test_an_envelope_with_something_else_in_it_is_refused(field: str, value: Any) -> None:
    broken = copy.deepcopy(ENVELOPE)
    broken[field] = value
    with pytest.raises(guard.Refused):
        guard.envelope(json.dumps(broken))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(body=JSON, headers=st.dictionaries(st.sampled_from(["id", "eta", "retries", "task"]), JSON))
def test_whatever_comes_is_let_pass_or_refused(body: Any, headers: dict[str, Any]) -> None:
    come = message(body)
    come.headers.update(headers)
    try:
        guard.check(come, TASKS)
    except guard.Refused:
        pass
    else:
        assert isinstance(body, list)
        assert len(body) == 3

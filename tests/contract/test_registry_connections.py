"""How often a request to a registry is sent when its connection breaks."""

import pytest

from imagemill.errors import ServiceUnreachable
from imagemill.http import request
from web import Application, Request, Response, Web, serve

HANG_UP = None
CUT = Response(200, {"Content-Length": "1000", "Connection": "close"}, b"{")


def answering(*answers: Response | None) -> Application:
    """A server that gives these answers, one after the other, and then hangs up."""
    left = list(answers)

    def answer(_: Request) -> Response | None:
        return left.pop(0) if left else HANG_UP

    return answer


def ask(web: Web) -> int:
    return request("GET", f"http://{web.address}/v2/", {}).status


def test_new_connection_that_breaks_is_not_tried_again() -> None:
    with serve(answering(HANG_UP)) as web:
        with pytest.raises(ServiceUnreachable, match="breaks off"):
            ask(web)
        assert len(web.requests) == 1


def test_kept_connection_that_breaks_is_replaced_and_the_request_sent_once_more() -> None:
    with serve(answering(Response(), HANG_UP, Response())) as web:
        assert ask(web) == 200
        assert ask(web) == 200
        ports = [each.port for each in web.requests]
    assert len(ports) == 3
    assert ports[0] == ports[1] != ports[2]


def test_connection_that_replaced_a_kept_one_is_not_replaced_again() -> None:
    with serve(answering(Response(), HANG_UP, HANG_UP)) as web:
        assert ask(web) == 200
        with pytest.raises(ServiceUnreachable, match="breaks off"):
            ask(web)
        assert len(web.requests) == 3


def test_answer_that_has_begun_is_not_asked_for_again() -> None:
    with serve(answering(Response(), CUT)) as web:
        assert ask(web) == 200
        with pytest.raises(ServiceUnreachable, match="breaks off"):
            ask(web)
        assert len(web.requests) == 2

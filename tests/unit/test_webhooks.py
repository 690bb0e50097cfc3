"""The event of a build's end, its signature, and what a receiver's answer means."""

import base64
import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event

from imagemill.addresses import LOCAL, Reach
from imagemill.errors import ImagemillError, OperatorError, PermissionDenied, TransientError
from imagemill.messages import BuildReport, Failure
from imagemill.webhooks import ENDED, PUBLISHED, deliver, event, key, signature
from webhook_receiver import Receiver

DIGEST = f"sha256:{'a' * 64}"
BUILT = BuildReport(
    id="b1",
    status="succeeded",
    image=f"registry.example.com/team/model@{DIGEST}",
    digest=DIGEST,
    built=True,
)
EXISTED = BUILT.model_copy(update={"built": False})
FAILED = BuildReport(id="b2", status="failed", error=Failure(kind="UserError", message="why"))


HERE = Reach(networks=LOCAL, plain=frozenset({"127.0.0.1"}))


@pytest.mark.parametrize(
    ("report", "kind"),
    [(BUILT, PUBLISHED), (EXISTED, f"{ENDED}.succeeded"), (FAILED, f"{ENDED}.failed")],
)
def test_an_event_is_one_that_the_sdk_reads(report: BuildReport, kind: str) -> None:
    written = json.dumps(event(report)).encode()
    message = HTTPMessage({"content-type": "application/cloudevents+json"}, written)
    read = from_structured_event(message)
    assert (read.get_type(), read.get_id()) == (kind, report.id)
    data: Any = read.get_data()
    assert BuildReport.load(data.get("customData", data)) == report


def test_a_published_image_is_named_by_its_package_url() -> None:
    subject = event(BUILT)["data"]["subject"]
    assert subject["type"] == "artifact"
    assert subject["id"] == (
        f"pkg:oci/model@sha256%3A{'a' * 64}?repository_url=registry.example.com%2Fteam%2Fmodel"
    )


def test_a_signature_is_that_of_the_standard() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks, libraries/python."""
    secret = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', secret)
    assert headers["Webhook-Signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("text", ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!", "whsec_YQ=="])
def test_a_secret_that_is_none_is_told_without_it(text: str) -> None:
    with pytest.raises(OperatorError) as caught:
        key(text)
    assert not text or text not in str(caught.value)


def test_an_event_arrives_with_its_signature(receiver: Receiver) -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    deliver(receiver.url, event(BUILT), secret, HERE)
    ((headers, body),) = receiver.received
    at = int(headers["Webhook-Timestamp"])
    assert headers["Content-Type"] == "application/cloudevents+json"
    assert headers["Webhook-Signature"] == signature("b1", at, body, secret)["Webhook-Signature"]
    assert json.loads(body)["type"] == PUBLISHED


@pytest.mark.parametrize(
    ("status", "kind"), [(503, TransientError), (429, TransientError), (410, OperatorError)]
)
def test_what_a_receiver_answers(
    receiver: Receiver, status: int, kind: type[ImagemillError]
) -> None:
    receiver.status = status
    with pytest.raises(kind, match=str(status)):
        deliver(receiver.url, event(BUILT), None, HERE)


def test_a_receiver_says_when_to_try_again(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "7"}
    with pytest.raises(TransientError) as caught:
        deliver(receiver.url, event(BUILT), None, HERE)
    assert caught.value.retry_after == 7


def test_a_receiver_on_this_machine_is_not_asked_unless_it_is_allowed(receiver: Receiver) -> None:
    plain = Reach(plain=frozenset({"127.0.0.1"}))
    with pytest.raises(PermissionDenied, match="not public"):
        deliver(receiver.url, event(BUILT), None, plain)
    assert receiver.received == []

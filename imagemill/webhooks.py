"""What is told to a web address when a build has ended: one CloudEvent, signed.

A pushed image is told as CDEvents has it (`dev.cdevents.artifact.published`,
https://cdevents.dev/docs/continuous-integration), every other end as an event of ours whose data is
the report. Signatures are those of Standard Webhooks (https://www.standardwebhooks.com), by which a
receiver knows that we sent it, and when.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from cloudevents.core.bindings.http import to_structured_event
from cloudevents.core.v1.event import CloudEvent

from imagemill import http
from imagemill.addresses import Reach
from imagemill.errors import OperatorError, TransientError
from imagemill.messages import BuildReport
from imagemill.reference import ImageReference

SOURCE = "/imagemill"
"""The context in which our events happen, as CloudEvents wants one."""

PUBLISHED = "dev.cdevents.artifact.published.0.2.0"
CDEVENTS = "0.4.1"
ENDED = "dev.imagemill.build"
"""What other types of events begin with; the report's status comes behind: `….build.failed`."""

_KEY_PREFIX = "whsec_"


def key(text: str) -> bytes:
    """Return the key that a secret in the form of Standard Webhooks (`whsec_` and base64) is;
    `OperatorError` if it is none.
    """
    try:
        found = base64.b64decode(text.strip().removeprefix(_KEY_PREFIX), validate=True)
    except binascii.Error:
        found = b""
    if not text.startswith(_KEY_PREFIX) or not 24 <= len(found) <= 64:
        raise OperatorError(
            "The secret that webhooks are signed with is none",
            "write whsec_ and 24 to 64 random bytes in base64:"
            ' echo "whsec_$(head -c 32 /dev/urandom | base64 -w0)"',
        )
    return found


def event(report: BuildReport) -> dict[str, Any]:
    """Return the event of a build's end as JSON: CloudEvents 1.0 in its structured mode."""
    published = report.status == "succeeded" and report.built
    attributes = {
        # The same for each try to deliver it, so that a receiver tells a second one from the first.
        "id": report.id,
        "source": SOURCE,
        "type": PUBLISHED if published else f"{ENDED}.{report.status}",
        "specversion": "1.0",
        "time": datetime.now(UTC),
        "subject": report.image or report.id,
        "datacontenttype": "application/json",
    }
    data = _published(report) if published else report.dump()
    written: dict[str, Any] = json.loads(to_structured_event(CloudEvent(attributes, data)).body)
    return written


def _published(report: BuildReport) -> dict[str, Any]:
    """Return the data of `artifact.published`; the report goes along as its `customData`."""
    name = package_url(ImageReference.parse(report.image or ""))
    return {
        "context": {
            "version": CDEVENTS,
            "id": report.id,
            "source": SOURCE,
            "type": PUBLISHED,
            "timestamp": datetime.now(UTC).isoformat(),
        },
        "subject": {"id": name, "source": SOURCE, "type": "artifact", "content": {}},
        "customData": report.dump(),
        "customDataContentType": "application/json",
    }


def package_url(image: ImageReference) -> str:
    """Return the image as a package URL of type `oci`
    (https://github.com/package-url/purl-spec, PURL-TYPES).
    """
    name = image.path.rpartition("/")[2]
    where = quote(f"{image.registry}/{image.path}", safe="")
    return f"pkg:oci/{name}@{quote(image.digest or '', safe='')}?repository_url={where}"


def deliver(url: str, content: dict[str, Any], secret: bytes | None, reach: Reach) -> None:
    """Send the event; `TransientError` if it is to be tried again, `OperatorError` if the receiver
    will not have it.

    `reach` says where receivers may be. What a receiver answers is told to nobody.
    """
    body = json.dumps(content, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/cloudevents+json"}
    if secret is not None:
        headers |= signature(str(content["id"]), int(time.time()), body, secret)
    answer = http.request("POST", url, headers, body, reach)
    where = http.host_of(url)
    if answer.status in (408, 425, 429) or answer.status >= 500:
        raise TransientError(
            f"The webhook at {where} answers {answer.status}",
            "see what its receiver says",
            answer.retry_after,
        )
    if not 200 <= answer.status < 300:
        raise OperatorError(
            f"The webhook at {where} answers {answer.status}", "see that its address is right"
        )


def signature(message: str, at: int, body: bytes, secret: bytes) -> dict[str, str]:
    """Return the headers by which a receiver checks who sent the body, and when; `at` is in seconds
    since 1970.
    """
    signed = f"{message}.{at}.".encode() + body
    digest = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return {
        "Webhook-Id": message,
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": f"v1,{digest}",
    }

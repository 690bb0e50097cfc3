"""Requests that a tenant signs."""

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest

from imagemill.errors import ImagemillError, OperatorError, PermissionDenied, UserError
from imagemill.names import BUILD_KEEP_SECONDS
from imagemill.tenants import CLOCKS, Tenants, signed

KEY = "k" * 40
REQUEST = {"source": "/src", "labels": {"ä": "\n"}}


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    (tmp_path / "team-a").write_text(f"{'n' * 32}\n{KEY}\n")
    (tmp_path / "team-b").write_text("b" * 32)
    return Tenants(tmp_path)


def made(**others: str) -> dict[str, str]:
    return {**signed(REQUEST, "id", "team-a", KEY), **others}


def test_what_a_tenant_signed_is_taken(tenants: Tenants) -> None:
    assert tenants.checked("id", **made()) == REQUEST


def test_the_scheme_is_the_one_that_is_documented(tenants: Tenants) -> None:
    text, issued = json.dumps(REQUEST), str(int(time.time()))
    lines = f"imagemill-request-v1\nteam-a\nid\n{issued}\n{text}"
    proof = hmac.new(KEY.encode(), lines.encode(), hashlib.sha256).hexdigest()
    assert tenants.checked("id", text, "team-a", issued, proof) == REQUEST


@pytest.mark.parametrize(
    ("build", "changed"),
    [
        ("other", {}),
        ("id", {"request": json.dumps({**REQUEST, "force": True})}),
        ("id", {"request": json.dumps(REQUEST) + " "}),
        ("id", {"tenant": "team-b"}),
        ("id", {"tenant": "nobody"}),
        ("id", {"issued": "1"}),
        ("id", {"signature": "0" * 64}),
        ("id", {"signature": ""}),
    ],
)
def test_what_it_did_not_sign_is_refused(
    tenants: Tenants, build: str, changed: dict[str, str]
) -> None:
    with pytest.raises(PermissionDenied):
        tenants.checked(build, **made(**changed))


@pytest.mark.parametrize("tenant", ["../team-a", "team-a/", "Team-A", "", "a\nb", "."])
def test_the_name_of_a_tenant_is_no_path(tenants: Tenants, tenant: str) -> None:
    with pytest.raises(UserError, match="is not the name of a tenant"):
        tenants.checked("id", **made(tenant=tenant))


@pytest.mark.parametrize("fields", [{"request": {}}, {"issued": 1}, {"signature": None}])
def test_fields_are_texts(tenants: Tenants, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="four texts"):
        tenants.checked("id", **made(**fields))


@pytest.mark.parametrize("ago", [BUILD_KEEP_SECONDS + 1, -CLOCKS - 60])
def test_a_signature_has_its_time(
    tenants: Tenants, ago: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now - ago)
        old = made()
    with pytest.raises(PermissionDenied, match="signed too long ago, or is yet to be"):
        tenants.checked("id", **old)


def test_without_keys_no_tenant_is_known() -> None:
    with pytest.raises(PermissionDenied, match="The workers have no key of a tenant team-a"):
        Tenants(None).checked("id", **made())


def test_a_short_key_signs_nothing() -> None:
    with pytest.raises(OperatorError, match="too short"):
        signed(REQUEST, "id", "team-a", "short")


def test_no_refusal_tells_a_key(tenants: Tenants) -> None:
    for changed in ({"signature": "x"}, {"tenant": "team-b"}, {"issued": "x"}):
        with pytest.raises(ImagemillError) as caught:
            tenants.checked("id", **made(**changed))
        assert KEY not in str(caught.value)

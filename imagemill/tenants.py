"""Who asks for a build: a tenant signs the request with a key of its own.

A signed request is the task `imagemill.build_image` with these keyword arguments:

    request     the request as JSON text (docs/schema/build-request.json), signed as it is written
    tenant      the tenant's name
    issued      when it was signed, in whole seconds since 1970, as text
    signature   in hex, HMAC-SHA-256 with the tenant's key over the lines
                    imagemill-request-v1
                    TENANT
                    ID, the task id, which is the build's
                    ISSUED
                    REQUEST

So a signature is good for one build. Sent again it asks for the same build, which has begun
already; and it is too old once builds are forgotten.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagemill.errors import PermissionDenied, UserError
from imagemill.files.own import own_file
from imagemill.grammar import TENANT
from imagemill.names import BUILD_KEEP_SECONDS
from imagemill.signing import Keys

PURPOSE = "imagemill-request-v1"

CLOCKS = 300
"""Seconds by which the clocks of a tenant and of a worker may differ."""

_HINT = "docs/security.md says how a request is signed; the tenant's key has to be the workers'"


def signed(request: dict[str, Any], build: str, tenant: str, key: str) -> dict[str, str]:
    """Return the keyword arguments of a signed request for the build with this id."""
    text, issued = json.dumps(request), str(int(time.time()))
    signature = Keys.of(key).sign(PURPOSE, TENANT.checked(tenant), build, issued, text)
    return {"request": text, "tenant": tenant, "issued": issued, "signature": signature}


@dataclass(frozen=True)
class Tenants:
    """The tenants' keys, as the workers have them: a file per tenant in `folder`, with its key, and
    in another line the one that it had before.
    """

    folder: Path | None

    def checked(
        self, build: str, request: object, tenant: object, issued: object, signature: object
    ) -> object:
        """Return the content of a signed request; `PermissionDenied` if the tenant has not signed
        just this one.
        """
        fields = [tenant, issued, request, signature]
        if not all(isinstance(each, str) and len(each) < 1 << 20 for each in fields):
            raise UserError("A signed request is four texts", _HINT)
        name, at, text, proof = map(str, fields)
        if not self._keys(TENANT.checked(name)).signed(proof, PURPOSE, name, build, at, text):
            raise PermissionDenied(
                f"The request is not signed with the key of the tenant {name}", _HINT
            )
        age = time.time() - int(at) if at.isascii() and at.isdecimal() and len(at) < 12 else None
        if age is None or not -CLOCKS < age < BUILD_KEEP_SECONDS:
            raise PermissionDenied(
                f"The request of the tenant {name} was signed too long ago, or is yet to be",
                "sign it when it is sent, and see that the clocks are right",
            )
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise UserError("The request that was signed is not JSON", _HINT) from None

    def _keys(self, tenant: str) -> Keys:
        content = own_file(self.folder / tenant) if self.folder else None
        if content is None:
            raise PermissionDenied(
                f"The workers have no key of a tenant {tenant}",
                "put it into a file of that name in IMAGEMILL_TENANT_KEYS_DIR",
            )
        return Keys.of(*content.decode(errors="replace").splitlines())

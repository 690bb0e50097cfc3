"""Brings a source that is here to a service elsewhere, where that is needed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from imagemill.cli.follow import waiting
from imagemill.messages import BuildRequest
from imagemill.sources.git.url import is_git

if TYPE_CHECKING:
    from imagemill.client import Client

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def uploaded(client: "Client", request: BuildRequest, say: Callable[[str], None]) -> BuildRequest:
    """Return the request for a source that is here, brought to where workers elsewhere can read it.

    Where the workers have no store that they share with us, the request stays as it is: they may
    share the disk.
    """
    if not _is_here(request.source):
        return request
    with waiting(client, say):
        plan = client.plan_upload(request)
    if plan.store_uri is None:
        return request
    from imagemill.cli.sources import Saying, fetched
    from imagemill.context.uploads import Upload

    with fetched(request.source) as folder:
        return Upload(request, plan, Saying(say)).bring(folder)


def _is_here(source: str) -> bool:
    if source.startswith("file:///"):
        source = unquote(urlsplit(source).path)
    return not (_KIND.match(source) or is_git(source)) and Path(source).exists()

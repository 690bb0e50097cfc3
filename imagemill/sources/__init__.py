"""Sources: where the code that is built comes from.

The text of a source says which adapter reads it: by its scheme, if it has one and is no git
repository; a source without a scheme is a path. To add one, write a module and add a line here.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from imagemill.adapters import Adapter, load
from imagemill.ports import Source
from imagemill.sources.git.url import is_git, parse
from imagemill.sources.options import SourceOptions

SOURCES: Mapping[str, Adapter] = MappingProxyType(
    {
        "file": Adapter("imagemill.sources.local", "LocalSource"),
        **dict.fromkeys(
            ("https", "http", "s3", "gs"),
            Adapter("imagemill.sources.artifact.source", "ArtifactSource"),
        ),
        "git": Adapter("imagemill.sources.git.source", "GitSource"),
        "docker-image": Adapter("imagemill.sources.image", "ImageSource"),
    }
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_source(text: str, options: SourceOptions) -> Source:
    """Return the source that `text` names: an absolute path or `file://` URI of a folder or an
    archive, a git repository as in `imagemill.sources.git.source.url`, an archive elsewhere as in
    `imagemill.sources.artifact.source.url`, or `docker-image://REFERENCE`.

    Nothing is read yet. `UserError` if the scheme is not known, or what follows is not right for
    it.
    """
    adapter = load(SOURCES, _kind(text), "kind of source")
    source: Source = adapter(text, options)
    return source


def origin(text: str) -> tuple[str | None, str | None]:
    """Revision and address of a source that is a commit in a repository, for the image's labels."""
    if not is_git(text):
        return None, None
    url = parse(text)
    return url.commit, str(url.remote)


def unversioned(text: str) -> str:
    """Return the source without the version that is asked for: what successive ones have in common."""
    return str(parse(text).at("")) if is_git(text) else text


def _kind(text: str) -> str:
    if is_git(text):
        return "git"
    scheme = _SCHEME.match(text)
    return scheme[1].lower() if scheme else "file"

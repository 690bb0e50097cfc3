"""The text of a code artifact: which archive or folder of objects it is, and what is known of its
content.

    https://HOST/PATH[#sha256=HEX][&subdirectory=FOLDER]      http://… where the operator allows the host
    s3://BUCKET/KEY…      gs://BUCKET/KEY…      https://ACCOUNT.blob.core.windows.net/CONTAINER/KEY…

A key that ends in `/`, or no key at all, is a folder: all objects below it. What `pinned` has found
is an option too: `etag=` of an object in S3 or Azure, `generation=` of one in Google Cloud. Keys
are percent-encoded, as Azure's are anyway: `%23` is a `#`. Nothing that may be a secret is taken,
since the text goes through logs and reports.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, unquote

from imagemill.clouds.hosts import AZURE_BLOB
from imagemill.errors import UserError
from imagemill.place import machine

DEFAULT_PORTS: Mapping[str, int] = MappingProxyType({"https": 443, "http": 80})

VERSIONS: Mapping[str, str] = MappingProxyType({"s3": "etag", "gs": "generation", "azure": "etag"})
"""Kind of bucket → the option that names one version of an object."""

_MAX_TEXT = 4096
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?",
    re.I,
)
_HOST = re.compile(r"\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?")
_ADDRESS = re.compile(r"(?P<host>.*[^:\[]|\[[^\]]*\]):(?P<port>\d{0,5})")
_BUCKETS = MappingProxyType(
    {
        "s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
        "gs": re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
        "azure": re.compile(r"\$(?:root|web)|[a-z0-9](?:-?[a-z0-9]){2,62}"),
    }
)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.I)
_VERSION = re.compile(r"[\x21-\x7e]{1,200}")
_ENCODED_SAFE = "%/~!$&'()*+,;=:@._-"
_KEY_SAFE = "/~!$'()*,;=:@._-"
_VALUE_SAFE = "/~!$'()*,:@._-"
_FORMS = (
    "https://HOST/PATH.tar.gz#sha256=HEX, s3://BUCKET/KEY.tar.gz, gs://BUCKET/KEY.tar.gz or"
    " https://ACCOUNT.blob.core.windows.net/CONTAINER/KEY.tar.gz"
)


class Server(NamedTuple):
    """Whom HTTP is spoken to."""

    scheme: str
    """https or http."""
    host: str
    """In lower case, an IPv6 address in brackets."""
    port: int

    @property
    def address(self) -> str:
        """`HOST`, or `HOST:PORT` where the port is not the scheme's own."""
        return self.host if self.port == DEFAULT_PORTS[self.scheme] else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ArtifactUrl:
    """An archive, or a folder of objects."""

    kind: str
    """`https`, `http`, `s3`, `gs` or `azure`."""
    host: str
    """The server's address for https and http, the account's host for azure; else empty."""
    bucket: str
    """The bucket or container; empty for https and http."""
    path: str
    """The object's key or the folder's prefix as it is; for https and http the path,
    percent-encoded.
    """
    sha256: str = ""
    """What the archive's bytes have to have, in lower case; empty: not said."""
    subdirectory: str = ""
    """The folder in the archive that is meant; `.` is its top, empty where the source begins."""
    version: str = ""
    """An object's entity tag (without quotes) or generation, which it has to have still; empty: not
    said.
    """

    @property
    def is_folder(self) -> bool:
        """Whether it is all that lies below a prefix, and not an archive."""
        return bool(self.bucket) and (not self.path or self.path.endswith("/"))

    @property
    def location(self) -> str:
        """Where it is, without its options: fit to be told."""
        if not self.bucket:
            return f"{self.kind}://{self.host}{self.path}"
        top = f"https://{self.host}" if self.kind == "azure" else f"{self.kind}:/"
        return f"{top}/{self.bucket}/{quote(self.path, safe=_KEY_SAFE)}"

    def at(self, version: str) -> "ArtifactUrl":
        """Return the same, of one version only."""
        return replace(self, version=version)

    def __str__(self) -> str:
        """Return the canonical text: the same for all spellings of one source."""
        values = {
            "sha256": self.sha256,
            "subdirectory": self.subdirectory,
            VERSIONS.get(self.kind, ""): self.version,
        }
        options = [
            f"{name}={quote(value, safe=_VALUE_SAFE)}" for name, value in values.items() if value
        ]
        return f"{self.location}{'#' if options else ''}{'&'.join(options)}"


def parse(text: str) -> ArtifactUrl:
    """Read the text of an artifact; `UserError` says what is wrong, and never repeats a password or
    a signature.
    """
    if len(text) > _MAX_TEXT or not text.isprintable():
        raise UserError(
            f"The source is longer than {_MAX_TEXT} characters, or has control characters in it",
            f"write {_FORMS}",
        )
    head, _, fragment = text.partition("#")
    url = _located(head)
    options = dict(_options(fragment, url))
    return replace(
        url,
        sha256=_sha256(options.get("sha256"), url),
        subdirectory=_folder(options.get("subdirectory", "")),
        version=_version(options.get(VERSIONS.get(url.kind, "")), url),
    )


def server_of(url: str) -> Server:
    """Return the server of an http or https URL; `UserError`, which does not repeat it, if it is
    none.
    """
    parts = _URL.match(url)
    if parts is None or parts["scheme"].lower() not in DEFAULT_PORTS:
        raise UserError("It is no http or https URL", f"write {_FORMS}")
    scheme, authority = parts["scheme"].lower(), parts["authority"].lower()
    if "@" in authority:
        raise UserError(
            "There are credentials in the URL of the source, where they end up in logs and in the image's history",
            f"leave out what is before the '@' of the host: {machine()} has its own credentials for each host",
        )
    found = _ADDRESS.fullmatch(authority)
    host, port = (found["host"], found["port"]) if found else (authority, "")
    if not _HOST.fullmatch(host) or (port and not 0 < int(port) < 65536):
        # It is not shown: it may be the first half of a password with a '/' in it.
        raise UserError(
            "The host of the source is not a host's name, nor that and a port", f"write {_FORMS}"
        )
    return Server(scheme, host, int(port) if port else DEFAULT_PORTS[scheme])


def _located(head: str) -> ArtifactUrl:
    parts = _URL.fullmatch(head)
    if parts is None:
        raise UserError("The text of the source is not an artifact's", f"write {_FORMS}")
    scheme, path = parts["scheme"].lower(), parts["path"]
    if scheme not in DEFAULT_PORTS and scheme not in _BUCKETS:
        raise UserError(f"There are no artifacts at {scheme}://", f"write {_FORMS}")
    if parts["query"] is not None and (scheme in DEFAULT_PORTS or parts["query"].strip("?")):
        raise UserError(
            "The URL of the source has a query, which may be a signature, and would end up in logs and reports",
            f"leave it out, and let {machine()} have credentials for the host; write %3F for a '?' in a name",
        )
    if scheme in _BUCKETS:
        return _in_bucket(scheme, "", _bare(parts["authority"]), path[1:])
    server = server_of(head)
    if server.scheme == "https" and AZURE_BLOB.fullmatch(server.address):
        container, _, key = path[1:].partition("/")
        return _in_bucket("azure", server.address, container, key)
    return ArtifactUrl(server.scheme, server.address, "", _path(path))


def _bare(authority: str) -> str:
    """Return a bucket's name; what stands before an `@` would be credentials."""
    if "@" in authority:
        raise UserError(
            "There are credentials in the source", f"write {_FORMS}: {machine()} has its own"
        )
    return authority


def _in_bucket(kind: str, host: str, bucket: str, key: str) -> ArtifactUrl:
    if not _BUCKETS[kind].fullmatch(bucket):
        what = "container" if kind == "azure" else "bucket"
        raise UserError(
            f"The source does not name a {what} as they can be called", f"write {_FORMS}"
        )
    decoded = _decoded(key)
    # A client may take '..' for the folder above, and so read from another bucket.
    if (
        not decoded.isprintable()
        or len(decoded.encode()) > 1024
        or {".", ".."} & set(decoded.split("/"))
    ):
        raise UserError(
            "The key of the source has control characters, '.' or '..' in it, or is longer than 1,024 bytes",
            f"write {_FORMS}",
        )
    return ArtifactUrl(kind, host, bucket, decoded)


def _path(path: str) -> str:
    """Return a URL's path, with what has to be percent-encoded so encoded."""
    if path in ("", "/") or any(unquote(name) in (".", "..") for name in path.split("/")):
        raise UserError(
            "The path of the source is empty, or has '.' or '..' in it", f"write {_FORMS}"
        )
    return re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", quote(path, safe=_ENCODED_SAFE))


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise UserError(
            "The percent-encoding of the source is not UTF-8", "encode its characters anew"
        ) from None


def _options(fragment: str, url: ArtifactUrl) -> Iterator[tuple[str, str]]:
    known = [name for name in ("sha256", "subdirectory", VERSIONS.get(url.kind, "")) if name]
    seen = set()
    for part in filter(None, fragment.split("&")):
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(
                "What stands after the '#' of the source is no option", "write #sha256=HEX"
            )
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(known)}"
            raise UserError(f"Such an artifact has no option {name!r}", hint)
        if name in seen:
            raise UserError(f"The source has {name} twice after its '#'", "name it once")
        seen.add(name)
        yield name, _decoded(value)


def _sha256(value: str | None, url: ArtifactUrl) -> str:
    """Return the digest to check, '' for none; an empty one is refused: `sha256=$SHA` means one."""
    if value is None:
        return ""
    if not _SHA256.fullmatch(value):
        raise UserError(
            f"{value!r} is not a SHA-256",
            "write sha256= and 64 hex digits, as sha256sum prints them",
        )
    if url.is_folder:
        raise UserError(
            f"{url.location} is a folder of objects, which has no SHA-256",
            "pack it into an archive, or leave it out",
        )
    return value.lower()


def _version(value: str | None, url: ArtifactUrl) -> str:
    if value is None:
        return ""
    name = VERSIONS[url.kind]
    if url.is_folder:
        raise UserError(
            f"{url.location} is a folder of objects, which has no {name}", "leave it out"
        )
    if not _VERSION.fullmatch(value) or (name == "generation" and not value.isdigit()):
        raise UserError(
            f"{value!r} is not the {name} of an object", "leave it out: it is found by itself"
        )
    return value


def _folder(value: str) -> str:
    names = [name for name in value.split("/") if name not in ("", ".")]
    if ".." in names or not value.isprintable():
        raise UserError(
            f"{value!r} is not a folder in an artifact", "write subdirectory=FOLDER, from its top"
        )
    return "/".join(names) or ("." if "." in value.split("/") else "")

"""Who vouches for the servers that we connect to: the one place that says so.

The system's authorities do, or those of SSL_CERT_FILE or SSL_CERT_DIR in their place; besides them
those of the file in IMAGEMILL_AUTHORITIES, and for one host docker's certs.d
(https://docs.docker.com/engine/security/certificates/). Our own connections take a `context`; the
clouds' SDKs, git, docker and redis-py take what `install` has put into the environment.
"""

import hashlib
import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from imagemill.environment import cache_folder, variable
from imagemill.errors import OperatorError

SETTING = "IMAGEMILL_AUTHORITIES"

HINT = f"name the file with the certificate of the authority that signed it in {SETTING}"

_FILE = "SSL_CERT_FILE"
_OTHERS = ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO")
"""Where those look that pass over `_FILE`: Azure's and Google's SDKs, Amazon's, git."""

_CERTS_D = (Path("/etc/docker/certs.d"), Path.home() / ".config/docker/certs.d")
_SYSTEMS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


class Certificates(NamedTuple):
    """What there is for one server, and when it was changed last: equal ones make equal contexts."""

    system: tuple[str, str]
    folders: tuple[tuple[Path, int], ...]

    @property
    def authorities(self) -> list[Path]:
        """Return the files with authorities for this server alone."""
        return [file for folder, _ in self.folders for file in sorted(folder.glob("*.crt"))]

    @property
    def own(self) -> list[tuple[Path, Path]]:
        """Return certificates and keys by which this server knows us."""
        found = [file for folder, _ in self.folders for file in sorted(folder.glob("*.cert"))]
        return [(file, file.with_suffix(".key")) for file in found]


def certificates(address: str) -> Certificates:
    """Return what there is for a server, `HOST` or `HOST:PORT`."""
    folders = []
    for folder in _CERTS_D:
        with suppress(OSError):
            path = folder / address
            folders.append((path, path.stat().st_mtime_ns))
    return Certificates((variable(_FILE) or "", variable("SSL_CERT_DIR") or ""), tuple(folders))


def context(found: Certificates) -> ssl.SSLContext:
    """Return whom a server has to be vouched for by, and who we are, if it wants to know that."""
    made = ssl.create_default_context()
    try:
        for file in found.authorities:
            made.load_verify_locations(file)
        for certificate, key in found.own:
            made.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        folders = ", ".join(str(folder) for folder, _ in found.folders)
        raise OperatorError(
            f"The certificates in {folders} cannot be used: {error.strerror}",
            "*.crt are authorities, *.cert and *.key a client's certificate, all in PEM",
        ) from None
    return made


def bundle(found: Certificates) -> bytes:
    """Return the authorities for a server in one text, for a program that takes one file."""
    files = [file for file in [_system_file()] if file]
    return b"\n".join(file.read_bytes() for file in (*files, *found.authorities))


def install() -> None:
    """Have all libraries and programs of this process trust the operator's authorities as well:
    where each looks, unless something else is set there.

    `OperatorError` if the file of IMAGEMILL_AUTHORITIES cannot be used.
    """
    if named := variable(SETTING):
        os.environ[_FILE] = str(_with_system(Path(named)))
    if file := variable(_FILE):
        for name in _OTHERS:
            os.environ.setdefault(name, file)


def _with_system(own: Path) -> Path:
    """Return a file with the system's authorities and those of a file; written if need be."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(own)
        system, ours = _system_file(), own.read_bytes()
        content = system.read_bytes() if system else b""
        if system and ours in content:  # who has started us has installed it
            return system
        content += b"\n" + ours
        name = f"authorities-{hashlib.sha256(content).hexdigest()[:16]}.pem"
        made = Path(variable("IMAGEMILL_STATE_DIR") or cache_folder(), name)
        if not made.exists():
            made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            making = made.with_suffix(f".{os.getpid()}")
            making.write_bytes(content)
            making.replace(made)
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(
            f"The authorities in {own} cannot be used: {error.strerror or 'it is no PEM'}",
            f"{SETTING} names a file with certificates in PEM",
        ) from None
    return made


def _system_file() -> Path | None:
    """Return the file with the system's authorities, or the one that is set in its place."""
    if not variable(_FILE) and variable("SSL_CERT_DIR"):
        return None  # which OpenSSL reads besides
    default = ssl.get_default_verify_paths()  # the file of SSL_CERT_FILE, where that is there
    places = map(Path, filter(None, (default.cafile, *_SYSTEMS)))
    return next((path for path in places if path.is_file()), None)

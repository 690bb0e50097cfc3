"""Real git servers, of the repositories in a folder: `git http-backend` with basic auth, `git
daemon` and an sshd.

The HTTP server keeps what it was asked and can be told to misbehave, so that tests see what goes
over the wire. It serves Git LFS too, since git itself has no server for that.
"""

import base64
import contextlib
import getpass
import json
import os
import shlex
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from servers import Server, free_port, program

_CHUNK = 65536


# --- HTTP ---


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    authorization: str
    body: bytes


@dataclass
class GitHttp:
    """A running server; what it has of settings may be changed while it runs."""

    url: str
    users: Mapping[str, str] = field(default_factory=dict)
    """User → password of who may read; none: everybody."""
    asked: list[Asked] = field(default_factory=list)
    old: bool = False
    """Speak version 0 of git's protocol only."""
    dumb: bool = False
    """Serve files, as a server does that knows nothing of git; after `git update-server-info`."""
    answer: tuple[int, str] | None = None
    """A status and a text to answer everything with."""
    lfs: bool = True
    """Whether those who may read may read LFS files, too."""
    refusal: str = ""
    """What is said to those who may not read; `{authorization}` in it is what they sent."""
    redirect: str = ""
    """URL that everything is redirected below."""
    moved: str = ""
    """URL that the LFS file `moved` is redirected to."""
    stall_after: int | None = None
    """Bytes of an answer after which no more come, until the client has gone."""
    stalled: threading.Event = field(default_factory=threading.Event)
    """An answer has been held up."""
    left: threading.Event = field(default_factory=threading.Event)
    """The client of that answer has gone."""

    @property
    def address(self) -> str:
        """`HOST:PORT`."""
        return urlsplit(self.url).netloc


@contextlib.contextmanager
def http(root: Path, tls: ssl.SSLContext | None = None) -> Iterator[GitHttp]:
    """Serve the repositories below `root` on a free port of 127.0.0.1 for the length of the
    block.
    """
    served = GitHttp("")

    class Handler(_Handler):
        folder, git = root, served

    with _QuietServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        served.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # clients that break off are part of the tests


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    git: GitHttp
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self._body()
        authorization = self.headers.get("Authorization", "")
        self.git.asked.append(Asked(self.command, self.path, authorization, body))
        if self.git.redirect:
            self._send(302, {"Location": self.git.redirect + self.path})
        elif self.git.answer:
            status, text = self.git.answer
            self._send(status, {"Content-Type": "text/plain"}, text.encode())
        elif not self._may_read(authorization) or ("/info/lfs/" in self.path and not self.git.lfs):
            headers = {"WWW-Authenticate": 'Basic realm="git"', "Content-Type": "text/plain"}
            self._send(401, headers, self.git.refusal.format(authorization=authorization).encode())
        elif "/info/lfs/" in self.path:
            self._lfs(body)
        else:
            self._backend(body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def _may_read(self, authorization: str) -> bool:
        known = {
            base64.b64encode(f"{user}:{word}".encode()).decode()
            for user, word in self.git.users.items()
        }
        return not known or authorization.removeprefix("Basic ") in known

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self._write(body)

    def _write(self, body: bytes) -> None:
        most = self.git.stall_after
        if most is None or len(body) <= most:
            self.wfile.write(body)
            return
        self.close_connection = True
        try:
            self.wfile.write(body[:most])
            self.git.stalled.set()
            self.rfile.read(1)  # nothing comes any more, but the end
        finally:
            self.git.left.set()

    def _backend(self, body: bytes) -> None:
        """git-http-backend(1), by the Common Gateway Interface (RFC 3875)."""
        url = urlsplit(self.path)
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": url.path,
            "QUERY_STRING": "" if self.git.dumb else url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": "" if self.git.old else self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": self.client_address[0],
        }
        done = subprocess.run(
            [program("git"), "http-backend"],
            env=environment,
            input=body,
            capture_output=True,
            check=False,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self._send(int(headers.pop("Status", "200").split()[0]), headers, content)

    def _lfs(self, body: bytes) -> None:
        """https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md, for downloads of what
        lies in `lfs`.
        """
        if self.path.endswith("/info/lfs/moved"):
            self._send(302, {"Location": self.git.moved})
            return
        if self.command == "GET":
            self._send(200, {}, (self.folder / "lfs" / Path(self.path).name).read_bytes())
            return
        base = f"{self.git.url}{self.path.removesuffix('/batch')}"
        objects = [self._lfs_object(base, wanted) for wanted in json.loads(body)["objects"]]
        answer = json.dumps({"transfer": "basic", "objects": objects}).encode()
        self._send(200, {"Content-Type": "application/vnd.git-lfs+json"}, answer)

    def _lfs_object(self, base: str, wanted: dict[str, object]) -> dict[str, object]:
        if not (self.folder / "lfs" / str(wanted["oid"])).exists():
            return {**wanted, "error": {"code": 404, "message": "Object does not exist"}}
        return {**wanted, "actions": {"download": {"href": f"{base}/{wanted['oid']}"}}}


# --- git:// ---


def daemon(root: Path, folder: Path) -> Server:
    """A `git daemon` of all repositories below `root`, at `url`."""
    port = free_port()
    command = [program("git"), "daemon", f"--base-path={root}", "--export-all", "--reuseaddr"]
    command += ["--listen=127.0.0.1", f"--port={port}", str(root)]
    url = f"git://127.0.0.1:{port}"
    asking = [program("git"), "ls-remote", f"{url}/no-such-repository"]

    def ready() -> bool:
        return b"not exported" in subprocess.run(asking, capture_output=True, check=False).stderr

    return Server("git-daemon", url, command, folder, ready)


# --- ssh ---


@dataclass(frozen=True)
class GitSsh:
    """What it takes to reach an sshd."""

    url: str
    """`ssh://USER@HOST:PORT`; paths are those of this machine."""
    key: Path
    """The private key that it lets in."""
    known_hosts: Path
    """Its own host key."""


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[GitSsh]:
    """An sshd on a private port that lets one deploy key in, as the user we are, for git alone."""
    found = program("sshd")  # by its whole path, since it starts itself again for each connection
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where its unprivileged half is shut in
    folder.mkdir(parents=True, exist_ok=True)
    host_key, key = new_key(folder / "host_key"), new_key(folder / "deploy_key")
    port = free_port()
    shell = shlex.quote(program("git-shell"))
    (folder / "authorized_keys").write_text(
        f'restrict,command="{shell} -c \\"$SSH_ORIGINAL_COMMAND\\"" {key.with_suffix(".pub").read_text()}'
    )
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {host_key.with_suffix('.pub').read_text()}")
    config = folder / "sshd_config"
    config.write_text(_SSHD.format(port=port, host_key=host_key, keys=folder / "authorized_keys"))
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
    with Server("sshd", url, [found, "-D", "-e", "-f", str(config)], folder, lambda: _greets(port)):
        yield GitSsh(url, key, known_hosts)


_SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey "{host_key}"
AuthorizedKeysFile "{keys}"
AcceptEnv GIT_PROTOCOL
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
StrictModes no
UsePAM no
PidFile none
"""


def new_key(path: Path) -> Path:
    """Make a key pair without a passphrase: `path`, and `path` with `.pub` behind it."""
    command = [
        program("ssh-keygen"),
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        path.name,
        "-f",
        str(path),
    ]
    subprocess.run(command, check=True)
    return path


def _greets(port: int) -> bool:
    """Whether a server introduces itself (RFC 4253, section 4.2)."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(4) == b"SSH-"

"""Archives behind URLs, on real servers: what is fetched, who is spoken to, with what, and what is
said of failures.
"""

import gzip
import hashlib
import io
import socket
import ssl
import tarfile
import threading
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import web
from certificates import write_with_key
from http_faults import FaultyProxy
from imagemill import http
from imagemill.errors import (
    BuildCancelled,
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.ports import Quiet
from imagemill.sources.artifact.source import ArtifactSource
from imagemill.sources.options import SourceOptions
from imagemill.sources.reach import reach
from servers import free_port
from web import Request, Response, Web

FILES = {
    "Dockerfile": b"FROM scratch\nCOPY . /\n",
    "app/main.py": b"print()\n",
    "app/data/part": bytes(300_000),
}
TOKEN = "s3cret-t0ken-of-the-tests"
LOOPBACK = ("127.0.0.1/32",)


def packed(files: Mapping[str, bytes] = FILES, mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return out.getvalue()


ARCHIVE = packed()
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


def contents(top: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_file()
    }


class Names:
    """The addresses of hosts, by their names; the last of several answers is given again."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.asked: list[str] = []
        self._answers = answers

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self._answers.get(host.partition(".")[0], [[host]] if host[:1].isdigit() else [])
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


HERE = [["127.0.0.1"]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key, and a certificate of it for the names of the tests."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    write_with_key(path, "archives.test", "mirror.test", "inner.test")
    return path


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server needs that the worker's system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class Site:
    """What a server answers by path; `/a.tar.gz` is the archive."""

    def __init__(self) -> None:
        self.answers: dict[str, Response | Callable[[Request], Response]] = {
            "/a.tar.gz": Response(body=ARCHIVE)
        }
        self.web: Web

    def __call__(self, request: Request) -> Response:
        answer = self.answers.get(urlsplit(request.path).path, Response(404))
        return answer(request) if callable(answer) else answer

    @property
    def port(self) -> str:
        return self.web.address.rpartition(":")[2]

    def url(self, path: str = "/a.tar.gz", host: str = "archives.test") -> str:
        return f"https://{host}:{self.port}{path}"

    def redirects(self, path: str, location: str, status: int = 302) -> None:
        self.answers[path] = Response(status, {"Location": location})


@pytest.fixture
def site(tls: ssl.SSLContext) -> Iterator[Site]:
    """A server of archives over TLS."""
    made = Site()
    with web.serve(made, tls) as made.web:
        yield made


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def source(text: str, names: Names | None = None, **options: Any) -> ArtifactSource:
    """The artifact for a worker that may read from this machine, by the names of the tests."""
    allowed = {"networks": LOOPBACK, **options}
    return ArtifactSource(
        text, SourceOptions(**allowed), resolve=names or Names(archives=HERE, mirror=HERE)
    )


def fails(made: ArtifactSource, scratch: Path, kind: type[ImagemillError]) -> ImagemillError:
    """The error of a fetch, of exactly this kind; no archive is left of it, and no secret is in
    what may be logged.
    """
    with pytest.raises(ImagemillError) as raised:
        made.fetch(scratch, Quiet())
    assert type(raised.value) is kind, raised.value
    assert list(scratch.glob("archive-*")) == []
    assert TOKEN not in "".join(traceback.format_exception(raised.value))
    return raised.value


class TestFetch:
    @pytest.mark.parametrize(
        "body", [packed(mode="w"), ARCHIVE, zipped()], ids=["tar", "tar.gz", "zip"]
    )
    def test_archive_is_fetched_with_nothing_beside_it(
        self, site: Site, scratch: Path, body: bytes
    ) -> None:
        site.answers["/download"] = Response(body=body)
        top = source(site.url("/download")).fetch(scratch, Quiet())
        assert contents(top) == FILES
        assert list(scratch.iterdir()) == [top]

    def test_archive_with_the_sha256_that_it_should_have_is_fetched(
        self, site: Site, scratch: Path
    ) -> None:
        assert (
            contents(source(site.url(f"/a.tar.gz#sha256={SHA256.upper()}")).fetch(scratch, Quiet()))
            == FILES
        )

    def test_archive_with_another_sha256_is_refused_and_not_unpacked(
        self, site: Site, scratch: Path
    ) -> None:
        error = fails(source(site.url(f"/a.tar.gz#sha256={'0' * 64}")), scratch, UserError)
        assert (
            error.message
            == f"The archive {site.url()} has the SHA-256 {SHA256}, and not {'0' * 64}"
        )
        assert error.hint.endswith("mend the sha256 in the source")
        assert contents(scratch) == {}

    def test_pinned_is_what_has_a_sha256_and_nobody_is_asked(self, site: Site) -> None:
        assert (
            source(site.url(f"/a.tar.gz#sha256={SHA256.upper()}")).pinned(Quiet())
            == f"{site.url()}#sha256={SHA256}"
        )
        assert source(site.url()).pinned(Quiet()) is None
        assert site.web.requests == []

    def test_subdirectory_is_the_top(self, site: Site, scratch: Path) -> None:
        top = source(site.url("/a.tar.gz#subdirectory=app")).fetch(scratch, Quiet())
        assert sorted(contents(top)) == ["data/part", "main.py"]

    @pytest.mark.parametrize(
        ("folder", "hint"),
        [
            ("ap", "there are app"),
            ("Dockerfile", "there are app"),
            ("app/datum", "there are data"),
            ("x", "there are app"),
        ],
    )
    def test_subdirectory_that_is_not_there_is_told_with_those_that_are(
        self, site: Site, scratch: Path, folder: str, hint: str
    ) -> None:
        with pytest.raises(UserError) as raised:
            source(site.url(f"/a.tar.gz#subdirectory={folder}")).fetch(scratch, Quiet())
        assert raised.value.message == f"There is no folder {folder!r} in {site.url()}"
        assert raised.value.hint == hint

    def test_subdirectory_is_not_reached_by_a_link(self, site: Site, scratch: Path) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            info = tarfile.TarInfo("elsewhere")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(info)
        site.answers["/link"] = Response(body=out.getvalue())
        with pytest.raises(UserError, match="There is no folder 'elsewhere' in"):
            source(site.url("/link#subdirectory=elsewhere")).fetch(scratch, Quiet())

    def test_bytes_are_taken_as_they_are_sent(self, site: Site, scratch: Path) -> None:
        body = gzip.compress(packed(mode="w"), mtime=0)
        site.answers["/encoded"] = Response(headers={"Content-Encoding": "gzip"}, body=body)
        made = source(site.url(f"/encoded#sha256={hashlib.sha256(body).hexdigest()}"))
        assert contents(made.fetch(scratch, Quiet())) == FILES
        assert site.web.requests[0].headers["accept-encoding"] == "identity"

    def test_server_is_asked_for_the_path_by_its_name(self, site: Site, scratch: Path) -> None:
        site.answers["/a%20b/%C3%A9"] = Response(body=ARCHIVE)
        source(site.url("/a b/é")).fetch(scratch, Quiet())
        assert site.web.requests[0].headers["host"] == f"archives.test:{site.port}"

    def test_next_address_is_tried_where_one_does_not_answer(
        self, site: Site, scratch: Path
    ) -> None:
        names = Names(archives=[["127.0.0.3", "127.0.0.1"]])
        made = source(site.url(), names, networks=("127.0.0.0/8",))
        assert contents(made.fetch(scratch, Quiet())) == FILES


class TestHostileArchives:
    def test_archive_that_leads_out_is_named_by_its_url(self, site: Site, scratch: Path) -> None:
        site.answers["/bad"] = Response(body=packed({"../out": b"x"}))
        error = fails(source(site.url("/bad")), scratch, UserError)
        assert error.message.startswith(f"The archive {site.url('/bad')} is not safe to unpack: ")
        assert not (scratch / "out").exists()

    def test_bomb_is_refused(self, site: Site, scratch: Path) -> None:
        site.answers["/bomb"] = Response(body=packed({"zeros": bytes(5 << 20)}))
        error = fails(source(site.url("/bomb"), max_bytes=1 << 20), scratch, UserError)
        assert (
            error.message == f"The archive {site.url('/bomb')} unpacks to more than 1,048,576 bytes"
        )

    def test_too_many_files_are_refused(self, site: Site, scratch: Path) -> None:
        error = fails(source(site.url(), max_files=2), scratch, UserError)
        assert error.message == f"The archive {site.url()} has more than 2 members"

    def test_archive_that_is_too_large_is_refused(self, site: Site, scratch: Path) -> None:
        site.answers["/large"] = Response(body=bytes(3 << 20))
        error = fails(source(site.url("/large"), max_bytes=2 << 20), scratch, UserError)
        assert error.message == f"{site.url('/large')} has more than 2,097,152 bytes"
        assert "IMAGEMILL_SOURCE_MAX_BYTES" in error.hint

    @pytest.mark.parametrize(
        "page",
        [b"<!DOCTYPE html><html>", b"\n  <HTML lang=en>", b"\xef\xbb\xbf<!doctype HTML PUBLIC"],
    )
    def test_page_to_sign_in_is_told_from_an_archive(
        self, site: Site, scratch: Path, page: bytes
    ) -> None:
        site.answers["/login"] = Response(
            headers={"Content-Type": "text/html"}, body=page + b"<form>"
        )
        site.redirects("/private", "/login")
        error = fails(source(site.url(f"/private#sha256={'0' * 64}")), scratch, UserError)
        assert (
            error.message
            == f"At {site.url('/private')} is a web page, such as one to sign in, and no archive"
        )
        assert "have the operator give the worker credentials" in error.hint

    def test_what_is_no_archive_is_told(self, site: Site, scratch: Path) -> None:
        site.answers["/text"] = Response(body=b"hello")
        error = fails(source(site.url("/text")), scratch, UserError)
        assert error.message.startswith(
            f"The archive {site.url('/text')} is damaged, or is no .tar, "
        )


NOT_PUBLIC = [
    "127.0.0.1",
    "10.1.2.3",
    "172.31.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fd00:ec2::254",
    "fe80::1%1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "::127.0.0.1",
    "fec0::1",
    "5f00::1",
    "3fff::1",
    "2002:7f00:1::",
    "ff02::1",
]


class TestPrivateAddresses:
    """A request does not make a worker read what only it can reach."""

    @pytest.mark.parametrize("address", NOT_PUBLIC)
    @pytest.mark.parametrize(
        "others", [[], ["93.184.215.14"]], ids=["alone", "beside a public one"]
    )
    def test_name_of_an_address_that_is_not_public_is_refused(
        self, site: Site, scratch: Path, address: str, others: list[str]
    ) -> None:
        made = source(site.url(), Names(archives=[[*others, address]]), networks=())
        error = fails(made, scratch, PermissionDenied)
        assert error.message.startswith(f"archives.test:{site.port} may not be asked: its address ")
        assert error.message.endswith(" is not public")
        assert error.hint.endswith("add its network to IMAGEMILL_SOURCE_NETWORKS")
        assert site.web.requests == []

    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "localhost",
            "2130706433",
            "0x7f.1",
            "127.1",
            "0",
            "169.254.169.254",
            "[::1]",
            "[::ffff:7f00:1]",
        ],
    )
    def test_every_spelling_of_such_an_address_is_refused(
        self, site: Site, scratch: Path, host: str
    ) -> None:
        made = ArtifactSource(site.url(host=host), SourceOptions())
        assert "is not public" in fails(made, scratch, PermissionDenied).message
        assert site.web.requests == []

    @pytest.mark.parametrize(
        "target",
        [
            "https://127.0.0.2:{port}/latest/meta-data",
            "https://169.254.169.254/latest/meta-data",
            "https://[fd00:ec2::254]/latest/meta-data",
            "https://metadata.google.internal/computeMetadata/v1",
            "//inner.test:{port}/",
        ],
    )
    def test_redirect_to_such_an_address_is_refused(
        self, site: Site, scratch: Path, target: str
    ) -> None:
        names = Names(archives=HERE, metadata=[["169.254.169.254"]], inner=[["127.0.0.2"]])
        names._answers["fd00:ec2::254"] = [["fd00:ec2::254"]]
        with silent("127.0.0.2") as inner:
            site.redirects("/a", target.format(port=inner.getsockname()[1]))
            error = fails(source(site.url("/a"), names), scratch, PermissionDenied)
            with pytest.raises(BlockingIOError):
                inner.accept()
        assert "IMAGEMILL_SOURCE_NETWORKS" in error.hint

    def test_plain_http_to_the_metadata_service_is_refused(self, site: Site, scratch: Path) -> None:
        site.redirects("/a", "http://169.254.169.254/latest/meta-data/iam")
        error = fails(
            source(site.url("/a"), insecure_hosts=frozenset({"169.254.169.254"})),
            scratch,
            PermissionDenied,
        )
        assert "its address 169.254.169.254 is not public" in error.message
        assert "without TLS" in fails(source(site.url("/a")), scratch, PermissionDenied).message

    def test_connection_is_made_to_the_address_that_was_looked_at(
        self, site: Site, scratch: Path
    ) -> None:
        """Whatever the name means a moment later: 127.0.0.2 is another machine as far as this is
        concerned.
        """
        names = Names(archives=[["127.0.0.1"], ["127.0.0.2"]])
        assert contents(source(site.url(), names).fetch(scratch, Quiet())) == FILES
        assert names.asked == ["archives.test"]
        fails(source(site.url(), names), scratch / "second", PermissionDenied)

    def test_name_that_means_another_address_after_a_redirect_is_looked_at_again(
        self, site: Site, scratch: Path
    ) -> None:
        site.redirects("/a", "/a.tar.gz")
        names = Names(archives=[["127.0.0.1"], ["127.0.0.2"]])
        assert (
            "127.0.0.2 is not public"
            in fails(source(site.url("/a"), names), scratch, PermissionDenied).message
        )
        assert [request.path for request in site.web.requests] == ["/a"]

    def test_network_that_the_operator_allows_may_be_read(self, site: Site, scratch: Path) -> None:
        names = Names(archives=[["::ffff:127.0.0.1"]])
        assert contents(source(site.url(), names).fetch(scratch, Quiet())) == FILES

    def test_person_at_a_terminal_may_name_a_private_server_which_may_lead_to_no_other(
        self, site: Site, scratch: Path
    ) -> None:
        made = source(site.url(), networks=(), attended=True)
        assert contents(made.fetch(scratch, Quiet())) == FILES
        site.redirects("/a", site.url(host="mirror.test"))
        made = source(site.url("/a"), networks=(), attended=True)
        assert "is not public" in fails(made, scratch, PermissionDenied).message

    def test_public_addresses_are_allowed(self) -> None:
        public = ["140.82.112.3", "2606:50c0:8000::153"]
        assert (
            len(reach(SourceOptions(), resolve=lambda *_: public).addresses("github.com", 443)) == 2
        )


class TestRedirects:
    def test_redirect_is_followed_to_another_server(self, site: Site, scratch: Path) -> None:
        site.redirects("/a", site.url("/b?signature=x%20y", host="mirror.test"), 307)
        site.redirects("/b", "a.tar.gz", 301)
        assert contents(source(site.url("/a")).fetch(scratch, Quiet())) == FILES
        assert [request.path for request in site.web.requests] == [
            "/a",
            "/b?signature=x%20y",
            "/a.tar.gz",
        ]

    @pytest.mark.parametrize("number", [5, 6])
    def test_at_most_five_are_followed(self, site: Site, scratch: Path, number: int) -> None:
        for step in range(number):
            site.redirects(f"/{step}", f"/{step + 1}")
        site.answers[f"/{number}"] = Response(body=ARCHIVE)
        made = source(site.url("/0"))
        if number == 5:
            assert contents(made.fetch(scratch, Quiet())) == FILES
        else:
            error = fails(made, scratch, UserError)
            assert error.message == f"archives.test:{site.port} redirects more than 5 times"

    @pytest.mark.parametrize(
        "location",
        ["ftp://host/", "file:///etc/passwd", f"https://user:{TOKEN}@mirror.test/", "https://[x/"],
    )
    def test_redirect_to_what_cannot_be_read_is_told(
        self, site: Site, scratch: Path, location: str
    ) -> None:
        site.redirects("/a", location)
        error = fails(source(site.url("/a")), scratch, UserError)
        assert f"archives.test:{site.port} redirects to what is no URL" in error.message

    def test_redirect_that_leaves_tls_is_refused(self, site: Site, scratch: Path) -> None:
        site.redirects("/a", "http://mirror.test/a")
        error = fails(source(site.url("/a")), scratch, PermissionDenied)
        assert error.message.endswith(" redirects to mirror.test without TLS")
        assert error.hint.endswith("add mirror.test to IMAGEMILL_SOURCE_INSECURE_HOSTS")

    @pytest.mark.parametrize("status", [403, 404, 429, 500, 418])
    def test_signature_in_a_redirect_is_not_told(
        self, site: Site, scratch: Path, status: int
    ) -> None:
        site.redirects("/a", site.url(f"/b?X-Amz-Signature={TOKEN}", host="mirror.test"))
        site.answers["/b"] = Response(status)
        with pytest.raises(ImagemillError, match=f"mirror.test:{site.port} ") as raised:
            source(site.url("/a")).fetch(scratch, Quiet())
        assert TOKEN not in "".join(traceback.format_exception(raised.value))
        if status == 403:
            assert raised.value.hint.endswith("no credentials go along with a redirect")


class TestCredentials:
    @pytest.fixture
    def folder(self, tmp_path: Path, site: Site) -> Path:
        """The operator's folder, with a token for the server, and one for the other."""
        folder = tmp_path / "credentials"
        folder.mkdir()
        (folder / f"archives.test_{site.port}").write_text(f"{TOKEN}\n")
        (folder / f"mirror.test_{site.port}").write_text(f"{TOKEN}-of-the-mirror\n")
        return folder

    def test_token_goes_to_its_own_host_only(self, site: Site, scratch: Path, folder: Path) -> None:
        site.redirects("/a", "/b")
        site.redirects("/b", site.url("/c", host="mirror.test"))
        site.redirects("/c", site.url("/a.tar.gz"))
        source(site.url("/a"), credentials=folder).fetch(scratch, Quiet())
        sent = [
            (request.path, request.headers.get("authorization")) for request in site.web.requests
        ]
        bearer = f"Bearer {TOKEN}"
        assert sent == [("/a", bearer), ("/b", bearer), ("/c", None), ("/a.tar.gz", bearer)]

    def test_user_and_token_are_sent_as_basic(self, site: Site, scratch: Path) -> None:
        source(site.url(), tokens={f"archives.test_{site.port}": "robot:pass:word"}).fetch(
            scratch, Quiet()
        )
        assert site.web.requests[0].headers["authorization"] == "Basic cm9ib3Q6cGFzczp3b3Jk"

    def test_host_without_credentials_gets_none(
        self, site: Site, scratch: Path, folder: Path
    ) -> None:
        (folder / f"archives.test_{site.port}").unlink()
        source(site.url(), credentials=folder, tokens={"archives.test": TOKEN}).fetch(
            scratch, Quiet()
        )
        assert "authorization" not in site.web.requests[0].headers

    def test_credentials_do_not_go_over_plain_http(self, scratch: Path) -> None:
        site = Site()
        with web.serve(site) as site.web:
            made = source(
                f"http://archives.test:{site.port}/a.tar.gz",
                insecure_hosts=frozenset({"archives.test"}),
                tokens={f"archives.test_{site.port}": TOKEN},
            )
            assert contents(made.fetch(scratch, Quiet())) == FILES
            assert "authorization" not in site.web.requests[0].headers

    @pytest.mark.parametrize("status", [401, 403])
    def test_wrong_credentials_are_told(
        self, site: Site, scratch: Path, folder: Path, status: int
    ) -> None:
        site.answers["/a.tar.gz"] = lambda request: Response(
            status, body=request.headers["authorization"].encode()
        )
        error = fails(source(site.url(), credentials=folder), scratch, PermissionDenied)
        address = f"archives.test:{site.port}"
        assert (
            error.message
            == f"{address} refuses the worker's credentials for {site.url()}: it answers {status}"
        )
        name = f"archives.test_{site.port}"
        assert error.hint.endswith(
            f"put a token that may read it into the file {name} in IMAGEMILL_SOURCE_CREDENTIALS"
        )

    def test_missing_credentials_are_told(self, site: Site, scratch: Path) -> None:
        site.answers["/a.tar.gz"] = Response(401)
        error = fails(source(site.url()), scratch, PermissionDenied)
        assert f"lets not everybody read {site.url()}: it answers 401" in error.message

    def test_token_that_cannot_be_sent_is_the_operators(
        self, site: Site, scratch: Path, folder: Path
    ) -> None:
        (folder / f"archives.test_{site.port}").write_text(f"{TOKEN} é\n")
        error = fails(source(site.url(), credentials=folder), scratch, OperatorError)
        assert (
            error.message
            == f"The worker's token for archives.test:{site.port} has characters that no token can have"
        )
        assert site.web.requests == []


class TestFailures:
    @pytest.mark.parametrize("status", [404, 410])
    def test_what_is_not_there_is_told(self, site: Site, scratch: Path, status: int) -> None:
        site.answers["/gone"] = Response(status)
        error = fails(source(site.url("/gone")), scratch, UserError)
        assert error.message.startswith(
            f"There is no artifact at {site.url('/gone')}, or not everybody may see it: "
        )
        assert error.hint.startswith(
            "check the spelling; if it is private, have the operator put a token"
        )

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (429, ServiceUnreachable),
            (408, ServiceUnreachable),
            (500, ServiceUnreachable),
            (503, ServiceUnreachable),
        ],
    )
    def test_answers_that_pass_are_tried_again_when_the_server_says(
        self, site: Site, scratch: Path, status: int, kind: type[TransientError]
    ) -> None:
        site.answers["/busy"] = Response(status, {"Retry-After": "17"})
        error = fails(source(site.url("/busy")), scratch, kind)
        assert isinstance(error, TransientError)
        assert error.retry_after == 17
        assert f"archives.test:{site.port}" in error.message

    @pytest.mark.parametrize("status", [204, 206, 304, 400, 418])
    def test_other_answers_are_told(self, site: Site, scratch: Path, status: int) -> None:
        site.answers["/odd"] = Response(status)
        error = fails(source(site.url("/odd")), scratch, UserError)
        assert (
            error.message
            == f"archives.test:{site.port} answers {status} for {site.url('/odd')}, and gives no archive"
        )

    def test_certificate_of_another_name_is_refused(self, site: Site, scratch: Path) -> None:
        error = fails(
            source(site.url(host="other.test"), Names(other=HERE)), scratch, OperatorError
        )
        assert error.message.startswith(
            f"The certificate of other.test:{site.port} is not trusted: Hostname "
        )
        assert site.web.requests == []

    def test_certificate_that_nobody_vouches_for_is_refused(
        self, site: Site, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        error = fails(source(site.url()), scratch, OperatorError)
        assert "The certificate of archives.test" in error.message
        assert "IMAGEMILL_AUTHORITIES" in error.hint

    def test_server_without_tls_is_told(self, tls: ssl.SSLContext, scratch: Path) -> None:
        site = Site()
        with web.serve(site) as site.web:
            error = fails(source(site.url()), scratch, OperatorError)
        assert error.message == f"archives.test:{site.port} does not speak TLS"

    def test_server_that_is_down_is_told(self, tls: ssl.SSLContext, scratch: Path) -> None:
        error = fails(source(f"https://archives.test:{free_port()}/a"), scratch, ServiceUnreachable)
        assert " cannot be reached: " in error.message

    def test_host_that_is_not_known_is_told(self, scratch: Path) -> None:
        error = fails(source("https://nowhere.test/a"), scratch, ServiceUnreachable)
        assert (
            error.message
            == "The name of nowhere.test cannot be resolved: Name or service not known"
        )

    def test_name_that_cannot_be_one_is_told(self, scratch: Path) -> None:
        made = ArtifactSource(f"https://{'a' * 70}.test/a", SourceOptions())
        assert "cannot be a host" in fails(made, scratch, UserError).message

    def test_server_that_keeps_silent_is_told(
        self, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "SILENCE_SECONDS", 0.1)
        with silent("127.0.0.1") as server:
            error = fails(
                source(plain(server), insecure_hosts=frozenset({"127.0.0.1"})),
                scratch,
                ServiceUnreachable,
            )
        assert error.message.endswith(" does not answer in time")

    @pytest.mark.parametrize("after", [0, 1000, 100_000])
    def test_connection_that_is_reset_is_told(
        self, site: Site, tls: ssl.SSLContext, scratch: Path, after: int
    ) -> None:
        site.answers["/random"] = Response(body=packed({"a": bytes(1 << 20)}, "w"))
        with FaultyProxy(f"https://127.0.0.1:{site.port}", tls) as proxy:
            proxy.reset_next(after_bytes=after)
            port = proxy.origin.rpartition(":")[2]
            error = fails(
                source(f"https://archives.test:{port}/random"), scratch, ServiceUnreachable
            )
        assert error.message == f"archives.test:{port} breaks off its answer"

    @pytest.mark.parametrize(
        "head",
        ["Content-Length: 1000", "Transfer-Encoding: chunked"],
        ids=["before its length", "between chunks"],
    )
    def test_body_that_ends_too_early_is_told(self, scratch: Path, head: str) -> None:
        def answer(connection: socket.socket) -> None:
            connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + b"2\r\nxx\r\n")

        with speaking(answer) as url:
            made = source(url, insecure_hosts=frozenset({"127.0.0.1"}))
            assert fails(made, scratch, ServiceUnreachable).message.endswith(
                " breaks off its answer"
            )

    def test_answer_that_is_no_http_is_told(self, scratch: Path) -> None:
        with speaking(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as url:
            made = source(url, insecure_hosts=frozenset({"127.0.0.1"}))
            assert fails(made, scratch, ServiceUnreachable).message.endswith(
                " breaks off its answer"
            )


class TestEndlessBodies:
    """A server may go on for ever, and the worker does not."""

    def test_fetch_ends_when_the_build_is_cancelled(self, scratch: Path) -> None:
        class Cancelled(Quiet):
            checks = 0

            def check(self) -> None:
                self.checks += 1
                if self.checks > 20:
                    raise BuildCancelled("stop")

        gone = threading.Event()
        with speaking(lambda connection: endless(connection, gone)) as url:
            with pytest.raises(BuildCancelled):
                source(url, insecure_hosts=frozenset({"127.0.0.1"})).fetch(scratch, Cancelled())
            assert gone.wait(30)
        assert [path for path in scratch.rglob("*") if path.is_file()] == []

    def test_fetch_ends_when_it_is_too_much(self, scratch: Path) -> None:
        gone = threading.Event()
        with speaking(lambda connection: endless(connection, gone)) as url:
            made = source(url, insecure_hosts=frozenset({"127.0.0.1"}), max_bytes=1 << 20)
            assert "has more than 1,048,576 bytes" in fails(made, scratch, UserError).message
            assert gone.wait(30)


def endless(connection: socket.socket, gone: threading.Event) -> None:
    """Send a few bytes at a time, and notice when nobody is there any more."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        while True:
            connection.sendall(bytes(1000))
    except OSError:
        gone.set()


def plain(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}/a.tar.gz"


@contextmanager
def silent(address: str) -> Iterator[socket.socket]:
    """A server that takes connections and says nothing."""
    with socket.create_server((address, 0)) as server:
        server.setblocking(False)
        yield server


@contextmanager
def speaking(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a server that answers one request as it is told, and then closes the
    connection.
    """

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield plain(server)
        thread.join()

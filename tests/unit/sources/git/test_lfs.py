"""Files of Git LFS: what a server of them can make a worker do, and where they come from."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import git_servers
from git_fixtures import Repository
from git_servers import GitHttp
from imagemill.errors import (
    ImagemillError,
    PermissionDenied,
    ServiceUnreachable,
    UserError,
)
from imagemill.ports import Quiet
from imagemill.sources.git.source import GitSource
from imagemill.sources.options import SourceOptions
from web import Request, Response, serve

CONTENT = b"weights" * 1000
OID = hashlib.sha256(CONTENT).hexdigest()
SECRET = b"what only the worker can read"
Worker = Callable[..., SourceOptions]


def pointer(oid: str = OID, size: int = len(CONTENT)) -> str:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


@pytest.fixture
def fetch(
    repository: Repository, git_http: GitHttp, worker: Worker, tmp_path: Path
) -> Callable[..., Path]:
    """Commits these files, and fetches them for a worker with these options."""

    def fetched(files: dict[Any, str | bytes | None], **options: Any) -> Path:
        repository.commit({".gitattributes": "*.bin filter=lfs -text\n", **files})
        source = GitSource(f"git+{git_http.url}/{repository.name}#lfs=true", worker(**options))
        return source.fetch(tmp_path / "scratch", Quiet())

    return fetched


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the LFS server answer this for each file."""

    def answer(**action: Any) -> None:
        def found(self: Any, base: str, wanted: dict[str, object]) -> dict[str, object]:
            return {**wanted, "actions": {"download": action}}

        monkeypatch.setattr(git_servers._Handler, "_lfs_object", found)

    return answer


def refused(fetch: Callable[..., Path], files: dict[Any, Any], **options: Any) -> ImagemillError:
    with pytest.raises(ImagemillError) as raised:
        fetch(files, **options)
    assert hashlib.sha256(SECRET).hexdigest() not in str(raised.value)
    assert SECRET.decode() not in str(raised.value)
    return raised.value


class TestHostileServer:
    """A source names its own LFS server, which may be anybody's."""

    @pytest.mark.parametrize("oid", [hashlib.sha256(SECRET).hexdigest(), "0" * 64])
    @pytest.mark.parametrize("redirected", [False, True])
    def test_inside_address_is_not_asked(
        self,
        fetch: Callable[..., Path],
        answers: Callable[..., None],
        git_http: GitHttp,
        oid: str,
        redirected: bool,
    ) -> None:
        with serve(lambda _: Response(body=SECRET)) as inside:
            inner = f"http://{inside.address}/latest/meta-data/"
            answers(href=f"{git_http.url}/x/info/lfs/moved" if redirected else inner)
            if redirected:
                git_http.moved = inner
            error = refused(fetch, {"a.bin": pointer(oid, len(SECRET))})
            assert inside.requests == []
        assert isinstance(error, PermissionDenied)

    @pytest.mark.parametrize(
        "href",
        [
            "https://169.254.169.254/latest/meta-data",
            "https://[fd00:ec2::254]/",
            "https://127.0.0.1:1/",
            "https://0x7f.1/",
            "http://127.0.0.1:1/",
        ],
    )
    def test_address_that_is_not_public_is_refused(
        self, fetch: Callable[..., Path], answers: Callable[..., None], href: str
    ) -> None:
        answers(href=href)
        assert isinstance(refused(fetch, {"a.bin": pointer()}), PermissionDenied)

    def test_nothing_is_read_without_tls_where_that_is_not_allowed(
        self, fetch: Callable[..., Path], answers: Callable[..., None]
    ) -> None:
        answers(href="http://127.1:1/")
        error = refused(fetch, {"a.bin": pointer()}, networks=("127.0.0.0/8",))
        assert isinstance(error, PermissionDenied)
        assert "without TLS" in error.message

    @pytest.mark.parametrize("href", ["file:///etc/passwd", "ftp://host/", "https://u:p@host/", ""])
    def test_what_is_no_address_is_refused(
        self, fetch: Callable[..., Path], answers: Callable[..., None], href: str
    ) -> None:
        answers(href=href)
        assert isinstance(refused(fetch, {"a.bin": pointer()}), UserError)

    def test_only_credentials_of_its_headers_are_sent(
        self, fetch: Callable[..., Path], answers: Callable[..., None]
    ) -> None:
        with serve(lambda _: Response(body=CONTENT)) as store:
            header = {"Authorization": "Bearer given", "Metadata-Flavor": "Google", "Host": "x"}
            answers(href=f"http://{store.address}/a", header=header)
            hosts = frozenset({"127.0.0.1"})
            top = fetch({"a.bin": pointer()}, insecure_hosts=hosts, networks=("127.0.0.1/32",))
            [asked] = store.requests
        assert (top / "a.bin").read_bytes() == CONTENT
        assert asked.headers["authorization"] == "Bearer given"
        assert asked.headers["host"] == store.address
        assert "metadata-flavor" not in asked.headers

    def test_header_that_splits_the_request_is_refused(
        self, fetch: Callable[..., Path], answers: Callable[..., None], git_http: GitHttp
    ) -> None:
        answers(href=git_http.url, header={"Authorization": "x\r\nMetadata-Flavor: Google"})
        assert isinstance(refused(fetch, {"a.bin": pointer()}), UserError)

    @pytest.mark.parametrize("body", [SECRET, CONTENT + b"more", CONTENT[:-1], b""])
    def test_what_is_not_as_the_pointer_says_is_refused_and_not_told(
        self, fetch: Callable[..., Path], answers: Callable[..., None], body: bytes
    ) -> None:
        def answer(request: Request) -> Response:
            return Response(body=body)

        with serve(answer) as store:
            answers(href=f"http://{store.address}/a")
            hosts = frozenset({"127.0.0.1"})
            error = refused(
                fetch, {"a.bin": pointer()}, insecure_hosts=hosts, networks=("127.0.0.1/32",)
            )
        assert "is not what its pointer says" in error.message

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_server_that_is_away_is_asked_later(
        self, fetch: Callable[..., Path], answers: Callable[..., None], status: int
    ) -> None:
        with serve(lambda _: Response(status, {"Retry-After": "7"})) as store:
            answers(href=f"http://{store.address}/a")
            hosts = frozenset({"127.0.0.1"})
            error = refused(
                fetch, {"a.bin": pointer()}, insecure_hosts=hosts, networks=("127.0.0.1/32",)
            )
        assert isinstance(error, ServiceUnreachable)
        assert error.retry_after == 7


class TestPlaces:
    @pytest.fixture(autouse=True)
    def stored(self, git_root: Path) -> None:
        (git_root / "lfs").mkdir(exist_ok=True)
        (git_root / "lfs" / OID).write_bytes(CONTENT)

    def test_each_file_that_attributes_name_is_brought_and_no_other(
        self, fetch: Callable[..., Path]
    ) -> None:
        text = pointer()
        top = fetch({"a.bin": text, "b/c.bin*": text, "d.txt": text, "e.bin": "no pointer"})
        assert (top / "a.bin").read_bytes() == (top / "b/c.bin").read_bytes() == CONTENT
        assert (top / "b/c.bin").stat().st_mode & 0o100
        assert (top / "d.txt").read_text() == text
        assert (top / "e.bin").read_text() == "no pointer"

    def test_link_to_a_pointer_is_left_alone(self, fetch: Callable[..., Path]) -> None:
        top = fetch({"a.bin": pointer(), "link.bin@": "a.bin"})
        assert (top / "link.bin").is_symlink()

    def test_more_files_than_one_question_takes(
        self, fetch: Callable[..., Path], git_root: Path, git_http: GitHttp
    ) -> None:
        contents = {f"{n}.bin": f"content {n}".encode() for n in range(120)}
        files = {}
        for name, content in contents.items():
            oid = hashlib.sha256(content).hexdigest()
            (git_root / "lfs" / oid).write_bytes(content)
            files[name] = pointer(oid, len(content))
        top = fetch(files)
        assert {name: (top / name).read_bytes() for name in contents} == contents
        assert sum(asked.path.endswith("/batch") for asked in git_http.asked) == 2

    def test_repository_in_a_folder_has_them_itself(
        self, repository: Repository, git_root: Path, worker: Worker, tmp_path: Path
    ) -> None:
        repository.commit({".gitattributes": "*.bin filter=lfs\n", "a.bin": pointer()})
        source = GitSource(f"git+{repository.path.as_uri()}#lfs=true", worker())
        with pytest.raises(UserError, match=f"it has no {OID}"):
            source.fetch(tmp_path / "first", Quiet())
        stored = repository.path / "lfs/objects" / OID[:2] / OID[2:4]
        stored.mkdir(parents=True)
        (stored / OID).symlink_to(git_root / "lfs" / OID)
        with pytest.raises(UserError, match=f"it has no {OID}"):
            source.fetch(tmp_path / "second", Quiet())
        (stored / OID).unlink()
        (stored / OID).write_bytes(CONTENT)
        assert (source.fetch(tmp_path / "third", Quiet()) / "a.bin").read_bytes() == CONTENT

"""How the text of a git source is read, and what is refused before git sees it."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagemill.errors import UserError
from imagemill.sources.git.url import GitUrl, Remote, is_git, parse, submodule_remote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PASSWORD = "pa55-w0rd"

ACCEPTED = {
    "git+https://github.com/team/app": GitUrl(Remote("https", "github.com", "/team/app")),
    "git+https://github.com/team/app.git/": GitUrl(Remote("https", "github.com", "/team/app.git")),
    "GIT+HTTPS://GitHub.com:443/team/app": GitUrl(Remote("https", "github.com", "/team/app")),
    "https://github.com/team/app.git": GitUrl(Remote("https", "github.com", "/team/app.git")),
    "https://github.com/team/app.git@v1#lfs=yes": GitUrl(
        Remote("https", "github.com", "/team/app.git"), "v1", lfs=True
    ),
    "git+http://git.corp:8080/app": GitUrl(Remote("http", "git.corp", "/app", 8080)),
    "git+ssh://git@github.com/team/app": GitUrl(
        Remote("ssh", "github.com", "/team/app", None, "git")
    ),
    "ssh://git@host:2222/~/app": GitUrl(Remote("ssh", "host", "/~/app", 2222, "git")),
    "https://dev.azure.com/org/project/_git/repo": GitUrl(
        Remote("https", "dev.azure.com", "/org/project/_git/repo")
    ),
    "https://org@dev.azure.com/org/project/_git/repo@v1#subdirectory=a": GitUrl(
        Remote("https", "dev.azure.com", "/org/project/_git/repo"), "v1", "a"
    ),
    "git+ssh://host:22/app": GitUrl(Remote("ssh", "host", "/app")),
    "git@github.com:team/app.git": GitUrl(Remote("ssh", "github.com", "team/app.git", None, "git")),
    "git@host:/srv/app.git@main": GitUrl(
        Remote("ssh", "host", "/srv/app.git", None, "git"), "main"
    ),
    "git@host:app@v1#subdirectory=a/b": GitUrl(
        Remote("ssh", "host", "app", None, "git"), "v1", "a/b"
    ),
    "git://host/app": GitUrl(Remote("git", "host", "/app")),
    "git+file:///srv/app.git": GitUrl(Remote("file", "", "/srv/app.git")),
    "git+file://localhost/srv/app.git": GitUrl(Remote("file", "", "/srv/app.git")),
    "git+https://[::1]:8443/app": GitUrl(Remote("https", "[::1]", "/app", 8443)),
    "git+https://[::1]/app": GitUrl(Remote("https", "[::1]", "/app")),
    "git+https://host/a%20b%40c%23d": GitUrl(Remote("https", "host", "/a b@c#d")),
    "git+https://host/app@feature/x": GitUrl(Remote("https", "host", "/app"), "feature/x"),
    "git+https://host/app@package@1.0": GitUrl(Remote("https", "host", "/app"), "package@1.0"),
    "git+https://host/app@%23fix%26": GitUrl(Remote("https", "host", "/app"), "#fix&"),
    "git+https://host/app@HEAD": GitUrl(Remote("https", "host", "/app")),
    "git+https://host/app@": GitUrl(Remote("https", "host", "/app")),
    f"git+https://host/app@{COMMIT.upper()}": GitUrl(Remote("https", "host", "/app"), COMMIT),
    "git+https://host/app#subdirectory=/a/./b/": GitUrl(Remote("https", "host", "/app"), "", "a/b"),
    "git+https://host/app#lfs=1&submodules=true": GitUrl(
        Remote("https", "host", "/app"), "", "", True, True
    ),
    "git+https://host/app#submodules=false&subdirectory=": GitUrl(Remote("https", "host", "/app")),
    "git+https://host/app#subdirectory=a%26b%20c": GitUrl(
        Remote("https", "host", "/app"), "", "a&b c"
    ),
}


@pytest.mark.parametrize(("text", "url"), ACCEPTED.items())
def test_text_is_read(text: str, url: GitUrl) -> None:
    assert is_git(text)
    assert parse(text) == url


@pytest.mark.parametrize("text", ACCEPTED)
def test_canonical_text_means_the_same_and_is_its_own(text: str) -> None:
    canonical = str(parse(text))
    assert is_git(canonical)
    assert parse(canonical) == parse(text)
    assert str(parse(canonical)) == canonical


CANONICAL = {
    "https://Host:443/app.git/@main#lfs=1&subdirectory=/a b/": "git+https://host/app.git@main#subdirectory=a%20b&lfs=true",
    "ssh://git@host:22/app": "git+ssh://git@host/app",
    "git@host:team/app.git": "git@host:team/app.git",
    "git@host:/team/app.git": "git+ssh://git@host/team/app.git",
    "git+file://localhost/srv/a@b": "git+file:///srv/a@b",
    "git+https://host/a%40b#submodules=0": "git+https://host/a%40b",
    "git+https://host/app@a%23b": "git+https://host/app@a%23b",
}


@pytest.mark.parametrize(("text", "canonical"), CANONICAL.items())
def test_spellings_of_one_source_have_one_canonical_text(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


def test_what_git_is_given_has_no_ref_and_no_options() -> None:
    url = parse(f"git+ssh://git@host:2222/a%20b@{COMMIT}#subdirectory=a&lfs=true")
    assert str(url.remote) == "ssh://git@host:2222/a%20b"
    assert url.commit == COMMIT
    assert (url.remote.address, url.remote.file_name) == ("host:2222", "host_2222")
    assert parse("git+https://[::1]:8443/app").remote.file_name == "__1_8443"


@pytest.mark.parametrize("text", ["abcdef1", "ABCDEF1", "20240131", COMMIT[:39]])
def test_hex_digits_may_be_a_short_commit(text: str) -> None:
    url = parse(f"git+https://host/app@{text}")
    assert url.may_be_short
    assert url.commit is None


@pytest.mark.parametrize("text", ["abcdef", "main", "v1", ""])
def test_other_refs_are_no_short_commits(text: str) -> None:
    assert not parse(f"git+https://host/app@{text}").may_be_short


@pytest.mark.parametrize(
    "text",
    [
        "https://host/app.tar.gz",
        "https://host/app.github",
        "https://host/app?x=.git",
        "s3://bucket/x.git",
        "file:///srv/app.git",
        "docker-image://host/app.git",
        "/srv/app.git",
        "./a@b:c",
        "relative/path",
        "host:path",
        "",
    ],
)
def test_other_sources_are_not_taken_for_git(text: str) -> None:
    assert not is_git(text)


REFUSED = {
    "another program as the transport": ("git+ext::sh -c touch% /tmp/x", "the transport 'ext'"),
    "another program as the transport, bare": ("ext::sh -c id", "the transport 'ext'"),
    "a remote helper by URL": ("git+ext://host/app", "the transport 'ext'"),
    "an unknown transport": ("git+ftp://host/app", "the transport 'ftp'"),
    "a password": (f"git+https://user:{PASSWORD}@host/app", "credentials in the URL"),
    "a token as the user": ("git+https://ghp_abc@host/app", "credentials in the URL"),
    "another token": ("git+https://a1b2c3d4e5f6a7b8c9d0e1@host/app", "credentials in the URL"),
    "two refs": ("git+https://host/app@v1#main:folder", "names two refs, 'v1' and 'main'"),
    "pip's spelling of ssh": ("git+git@host:app", "is not a user's name"),
    "a password for ssh": (f"git+ssh://git:{PASSWORD}@host/app", "credentials in the URL"),
    "a password with an @": (f"git+https://user:a@{PASSWORD}@host/app", "credentials in the URL"),
    "a password with a slash": (
        f"git+https://user:{PASSWORD}/a@host/app",
        "host of the git source",
    ),
    "an option as the host": ("git+ssh://-oProxyCommand=id/app", "host of the git source"),
    "an option as the user": ("git+ssh://-oProxyCommand=id@host/app", "user in the URL"),
    "an option as the host, scp": ("git@-oProxyCommand=id:app", "host of the git source"),
    "an option as the user, scp": ("-oProxyCommand=id@host:app", "user in the URL"),
    "an option as the path, scp": ("git@host:-oProxyCommand=id", "begin with '-'"),
    "an option in the path": ("git+https://host/team/--upload-pack=id", "begin with '-'"),
    "an option as the ref": ("git+https://host/app@--upload-pack=id", "cannot be the name"),
    "an encoded option as the ref": (
        "git+https://host/app@%2d-upload-pack=id",
        "cannot be the name",
    ),
    "an option as the folder": ("git+https://host/app#subdirectory=-x", "is not a folder"),
    "a folder above": ("git+https://host/app#subdirectory=a/../../b", "is not a folder"),
    "an encoded folder above": ("git+https://host/app#subdirectory=%2e%2e", "is not a folder"),
    "git's own folder": ("git+https://host/app#subdirectory=a/.GIT", "is not a folder"),
    "a path above": ("git+https://host/a/../b", "'..'"),
    "an encoded path above": ("git+https://host/a/%2e%2e/b", "'..'"),
    "a path above, scp": ("git@host:../b", "'..'"),
    "no path": ("git+https://host", "is empty"),
    "no path but a slash": ("git+https://host/", "is empty"),
    "no path but a ref": ("git+https://host/@main", "is empty"),
    "no path, scp": ("git@host:", "is empty"),
    "no host": ("git+https:///app", "host of the git source"),
    "a port that is none": ("git+https://host:99999/app", "host of the git source"),
    "a path as the port": ("git+ssh://git@host:team/app", "host of the git source"),
    "a newline": ("git+https://host/app\n", "control characters"),
    "an encoded newline": ("git+https://host/a%0apassword=x", "control characters"),
    "an encoded zero": ("git+https://host/a%00", "control characters"),
    "an encoded newline in the ref": ("git+https://host/app@a%0a", "cannot be the name"),
    "an encoded newline in the folder": (
        "git+https://host/app#subdirectory=a%0a/b",
        "is not a folder",
    ),
    "a percent-encoding that is none": ("git+https://host/%ff", "is not UTF-8"),
    "a query": ("git+https://host/app?token=x", "has a query"),
    "a revision that is no ref": ("git+https://host/app@main~1", "cannot be the name"),
    "a range": ("git+https://host/app@a..b", "cannot be the name"),
    "a refspec": ("git+https://host/app@a:b", "cannot be the name"),
    "a pattern": ("git+https://host/app@refs/*", "cannot be the name"),
    "a space in the ref": ("git+https://host/app@a b", "cannot be the name"),
    "an unknown option": ("git+https://host/app#submodule=true", "has no option 'submodule'"),
    "an option twice": ("git+https://host/app#lfs=1&lfs=0", "has lfs twice"),
    "a flag that is neither": ("git+https://host/app#lfs=maybe", "the option lfs"),
    "a file of another host": ("git+file://host/app", "on another host"),
    "a long text": (f"git+https://host/{'a' * 5000}", "longer than 4096"),
    "encoding in an scp path": ("git@host:a/%2e%2e/b", "'..'"),
    "an encoded host": ("git+https://ho%73t/app", "host of the git source"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_text_is_refused_with_a_hint(text: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(text)
    assert said.lower() in raised.value.message.lower()
    assert raised.value.hint
    assert PASSWORD not in str(raised.value)


def test_hints_say_how_it_is_written() -> None:
    hints = {
        "submodule=1": "did you mean submodules?",
        "main&lfs=true": "write @REF#subdirectory=FOLDER, not #REF",
    }
    for fragment, hint in hints.items():
        with pytest.raises(UserError) as raised:
            parse(f"git+https://host/app#{fragment}")
        assert raised.value.hint == hint
    with pytest.raises(UserError) as raised:
        parse("https://user:secret@host/app.git")
    assert raised.value.hint.startswith("leave out what is before the '@' of the host")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("git+https://org@host/org/project/_git/repo", "git+https://host/org/project/_git/repo"),
        ("git+https://team@host/team/repo.git", "git+https://host/team/repo.git"),
        ("https://me%40example.com@host/team/repo.git", "git+https://host/team/repo.git"),
        ("https://:@host:8443/team/repo.git", "git+https://host:8443/team/repo.git"),
        ("git@ssh.dev.azure.com:v3/org/a%20b/repo", "git@ssh.dev.azure.com:v3/org/a%20b/repo"),
        ("https://huggingface.co/spaces/org/a", "git+https://huggingface.co/spaces/org/a"),
        (
            "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/a",
            "git+https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/a",
        ),
        ("git+https://host/a.git@v1#egg=a&lfs=true", "git+https://host/a.git@v1#lfs=true"),
        ("https://host/a.git#main:serve", "git+https://host/a.git@main#subdirectory=serve"),
        ("https://host/a.git#:serve", "git+https://host/a.git#subdirectory=serve"),
        ("https://host/a.git#v1", "git+https://host/a.git@v1"),
        ("git@host:a.git#v1:b/c", "git@host:a.git@v1#subdirectory=b/c"),
    ],
)
def test_what_hosts_pip_and_docker_write_is_read(text: str, same: str) -> None:
    assert is_git(text)
    assert str(parse(text)) == same


class TestSubmoduleRemote:
    """Where submodules lead."""

    PARENT = Remote("https", "host", "/team/app.git")
    HOME = Remote("ssh", "host", "team/app.git", None, "git")

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("../lib.git", "/team/lib.git"),
            ("../../other/lib", "/other/lib"),
            ("./nested/", "/team/app.git/nested"),
            ("../a%20b", "/team/a b"),
        ],
    )
    def test_relative_url(self, url: str, path: str) -> None:
        assert submodule_remote(self.PARENT, url) == Remote("https", "host", path)

    def test_relative_url_below_an_ssh_users_home(self) -> None:
        assert submodule_remote(self.HOME, "../lib") == Remote(
            "ssh", "host", "team/lib", None, "git"
        )

    def test_url_of_its_own(self) -> None:
        assert submodule_remote(self.PARENT, "git@other:lib") == Remote(
            "ssh", "other", "lib", None, "git"
        )
        assert submodule_remote(self.PARENT, "https://other/lib") == Remote(
            "https", "other", "/lib"
        )

    @pytest.mark.parametrize(
        "url",
        [
            "../../../lib",
            "../../../evil.com/lib",
            "../..",
            "../a/../../b",
            "../%2e%2e/b",
            "../-x",
            "..",
            "/etc",
            "",
            "-u./payload",
            "ext::sh -c id",
            "file:///srv/app.git",
            "git+file:///srv/app.git",
            "https://user:secret@host/lib",
            "ssh://-oProxyCommand=id/lib",
            "../a\nb",
            "https://host/lib@main",
            "lib",
        ],
    )
    def test_url_that_leads_elsewhere_is_refused(self, url: str) -> None:
        with pytest.raises(UserError) as raised:
            submodule_remote(self.PARENT, url)
        assert raised.value.hint
        assert "secret" not in str(raised.value)

    def test_files_are_for_files(self) -> None:
        parent = Remote("file", "", "/srv/app.git")
        assert submodule_remote(parent, "file:///srv/lib.git") == Remote("file", "", "/srv/lib.git")


NAMES = st.text(
    string.ascii_letters + string.digits + "._~ é&+@#%=", min_size=1, max_size=8
).filter(lambda name: name not in (".", "..") and name.lower() != ".git")
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
HOSTS = st.sampled_from(["host", "git.example.org", "[::1]", "127.0.0.1"])
REMOTES = st.one_of(
    st.builds(
        Remote,
        st.sampled_from(["https", "http", "ssh", "git"]),
        HOSTS,
        PATHS.map(lambda path: f"/{path}"),
        st.one_of(
            st.none(), st.integers(1, 65535).filter(lambda port: port not in (22, 80, 443, 9418))
        ),
    ),
    st.builds(Remote, st.just("file"), st.just(""), PATHS.map(lambda path: f"/{path}")),
)
REFS = st.one_of(
    st.just(""),
    st.text("0123456789abcdef", min_size=7, max_size=40),
    st.from_regex(r"[a-z@#%&+é]{2,9}", fullmatch=True),
)
URLS = st.builds(GitUrl, REMOTES, REFS, st.one_of(st.just(""), PATHS), st.booleans(), st.booleans())


@given(URLS)
def test_every_source_is_read_back_from_its_canonical_text(url: GitUrl) -> None:
    assert is_git(str(url))
    assert parse(str(url)) == url


@given(
    st.sampled_from(
        [
            "",
            "git+",
            "git@host:",
            "git+https://host/",
            "ssh://",
            "git+ssh://",
            "git+file://",
            "ext::",
        ]
    ),
    st.text(st.sampled_from("ab-./@:#?%&=\\~ \n\0é[]") | st.characters(), max_size=40),
)
def test_whatever_is_read_has_nothing_dangerous_in_it(start: str, rest: str) -> None:
    try:
        url = parse(start + rest)
    except UserError:
        return
    given_to_git = str(url.remote)
    assert given_to_git.isprintable()
    assert not given_to_git.startswith("-")
    assert url.remote.scheme in ("https", "http", "ssh", "git", "file")
    assert not any(
        part.startswith("-")
        for part in (url.remote.host, url.remote.user, url.ref, url.subdirectory)
    )
    assert not {"..", "."} & set(url.remote.path.split("/"))
    assert not {"..", ".", ".git"} & set(url.subdirectory.split("/"))
    assert parse(str(url)) == url


@given(
    st.text(string.ascii_letters + string.digits + ":!$^*()", min_size=6),
    st.sampled_from(["https", "http", "ssh"]),
)
def test_passwords_are_refused_and_never_repeated(password: str, scheme: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(f"git+{scheme}://someone:{password}@host/app")
    with pytest.raises(UserError) as of_another:
        parse(f"git+{scheme}://someone:another@host/app")
    assert password not in str(raised.value) or str(raised.value) == str(of_another.value)


@given(st.text(st.sampled_from("./-ab%2e:@\n"), max_size=30))
def test_submodules_never_lead_above_the_top_or_elsewhere(url: str) -> None:
    try:
        remote = submodule_remote(TestSubmoduleRemote.PARENT, url)
    except UserError:
        return
    assert remote.scheme in ("https", "ssh")
    assert remote.scheme == "ssh" or remote.host == "host"
    assert ".." not in remote.path.split("/")

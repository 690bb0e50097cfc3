"""The text of a git source: which repository, at which ref, which folder of it, and what else
belongs to it.

    git+https://HOST/PATH[@REF][#subdirectory=FOLDER][&submodules=true][&lfs=true]
    git+https://HOST/PATH[#REF[:FOLDER]], as docker has it
    git+ssh://[USER@]HOST/PATH…      ssh://…      USER@HOST:PATH…      https://HOST/PATH.git…      git+file:///PATH…

The spelling is pip's (https://pip.pypa.io/en/stable/topics/vcs-support/). The first `@` after the
host begins the ref, so that tags such as `package@1.0` can be named; an `@` in the path is written
`%40`. Everything that git could take for an option, a command or a path elsewhere is refused here,
before git sees it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import MappingProxyType
from urllib.parse import quote, unquote

from imagemill.errors import UserError
from imagemill.place import machine
from imagemill.sources.host_credentials import file_name

DEFAULT_PORTS: Mapping[str, int] = MappingProxyType(
    {"https": 443, "http": 80, "ssh": 22, "git": 9418}
)

PLAIN = frozenset({"http", "git"})
"""Schemes that neither encrypt nor prove who answers."""

SHORTEST = 7
"""Hex digits that a short commit has at least: git's own least for abbreviations."""

_MAX_TEXT = 4096
_SCHEMES = (*DEFAULT_PORTS, "file")
_URL = re.compile(
    r"(?P<prefix>git\+)?(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.I
)
_REPOSITORY = re.compile(r"[^#?]*(?:\.git/?(?:[@#]|$)|/_git/[^/#?]+/?(?:[@#]|$))")
"""Paths by which a URL is a repository's without more: `….git`, and Azure DevOps' own."""
_OF_HOSTS = re.compile(
    r"(?:git-codecommit\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/v1/repos/[^/@#?]+"
    r"|(?:huggingface\.co|hf\.co)/(?:(?:datasets|spaces)/)?[^/@#?]+/[^/@#?]+"
    r"|source\.developers\.google\.com/p/[^/@#?]+/r/[^@#?]+"
    r"|git\.sr\.ht/~[^/@#?]+/[^/@#?]+)/?(?:[@#]|$)",
    re.I,
)
"""What hosts whose URLs end otherwise offer to be cloned."""
_SCP = re.compile(r"(?:(?P<user>[^/@:#]*)@)?(?P<host>[^/@:#]+):(?!//|:)(?P<rest>.*)")
_HELPER = re.compile(r"(?:git\+)?(?P<name>[A-Za-z0-9+.-]+)::")
_HOST = re.compile(r"\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,38}(?:%40[A-Za-z0-9.-]{1,64})?")
_TOKEN = re.compile(
    r"^(?:gh[a-z]_|github_pat_|gl[a-z]*-|AT[A-Z]{2}|x-|oauth2|token)|(?=[^%]*\d)(?=[^%]*[A-Za-z])[A-Za-z0-9_-]{20}",
    re.IGNORECASE,
)
"""What tokens begin with or look like."""

_FULL = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.I)
_SHORT = re.compile(rf"[0-9a-f]{{{SHORTEST},63}}", re.I)
_BAD_REF = re.compile(r"[ ~^:?*\[\\]|\.\.|@\{|//|(?:^|/)\.|\.lock(?:/|$)|^[-/]|[/.]$|^@$")
_PATH_SAFE = "/~!$&'()*+,;=:._-"
_REF_SAFE = "/@+,=!$'()._-"
_YES_NO = MappingProxyType(
    {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
)
_OPTIONS = ("subdirectory", "submodules", "lfs")
_FORMS = "git+https://HOST/PATH@REF#subdirectory=FOLDER, git+ssh://USER@HOST/PATH@REF or USER@HOST:PATH@REF"


@dataclass(frozen=True)
class Remote:
    """A repository: where it is, and how it is spoken to. It never holds a password."""

    scheme: str
    """https, http, ssh, git or file."""
    host: str
    """In lower case, an IPv6 address in brackets; empty for file."""
    path: str
    """As it is, not percent-encoded; without `/` in front where it begins at an ssh user's home."""
    port: int | None = None
    """None for the scheme's own."""
    user: str = ""
    """Of ssh."""

    def __str__(self) -> str:
        """Return the URL that git gets."""
        user = f"{self.user}@" if self.user else ""
        if not self.path.startswith("/"):
            return f"{user}{self.host}:{self.path}"
        return f"{self.scheme}://{user}{self.address}{quote(self.path, safe=_PATH_SAFE)}"

    @property
    def place(self) -> str:
        """What a policy calls it: as a source without its ref, files at their own path."""
        if self.scheme == "file":
            return f"git+file://{os.path.realpath(self.path)}"
        return f"git+{self}" if self.path.startswith("/") else str(self)

    @property
    def address(self) -> str:
        """`HOST`, or `HOST:PORT` where the port is not the scheme's own."""
        return f"{self.host}:{self.port}" if self.port else self.host

    @property
    def file_name(self) -> str:
        """What a file for this host is called: `HOST` or `HOST_PORT`, since names in a Secret have
        no colon.
        """
        return file_name(self.address)


@dataclass(frozen=True)
class GitUrl:
    """A git source."""

    remote: Remote
    ref: str = ""
    """Branch, tag, commit or short commit; empty for the default branch."""
    subdirectory: str = ""
    """The folder that is meant, relative to the repository's top; empty for the top."""
    submodules: bool = False
    lfs: bool = False

    @property
    def commit(self) -> str | None:
        """The full commit that the text names, 40 or 64 hex digits, if it does."""
        return self.ref if _FULL.fullmatch(self.ref) else None

    @property
    def may_be_short(self) -> bool:
        """Whether the ref may be a commit that is not written out; it may be the name of a branch
        or a tag, too.
        """
        return _SHORT.fullmatch(self.ref) is not None

    def at(self, commit: str) -> "GitUrl":
        """Return the same at another ref."""
        return replace(self, ref=commit)

    def __str__(self) -> str:
        """Return the canonical text: the same for all spellings of one source."""
        scheme = "git+" if self.remote.path.startswith("/") else ""
        ref = f"@{quote(self.ref, safe=_REF_SAFE)}" if self.ref else ""
        options = (
            [f"subdirectory={quote(self.subdirectory, safe=_REF_SAFE)}"]
            if self.subdirectory
            else []
        )
        options += [f"{name}=true" for name in ("submodules", "lfs") if getattr(self, name)]
        return f"{scheme}{self.remote}{ref}{'#' if options else ''}{'&'.join(options)}"


def is_git(text: str) -> bool:
    """Whether a text is meant as a git source; whether it is a right one is seen by `parse`."""
    if url := _URL.match(text):
        scheme = url["scheme"].lower()
        there = url["authority"].rpartition("@")[2] + url["rest"]
        ends_right = bool(_REPOSITORY.match(url["rest"]) or _OF_HOSTS.match(there))
        return (
            bool(url["prefix"])
            or scheme in ("ssh", "git")
            or (scheme in ("http", "https") and ends_right)
        )
    scp = _SCP.match(text)
    return bool(scp and scp["user"]) or _HELPER.match(text) is not None


def parse(text: str) -> GitUrl:
    """Read the text of a git source; `UserError` says what is wrong, and never repeats a
    password.
    """
    head, _, fragment = _printable(text).partition("#")
    remote, ref = _split(head)
    if fragment and "=" not in fragment:
        ref, fragment = _as_docker(ref, fragment)
    options = _options(fragment)
    folder = _folder(options.get("subdirectory", ""))
    submodules, lfs = (_flag(name, options.get(name, "false")) for name in ("submodules", "lfs"))
    return GitUrl(remote, _ref(ref), folder, submodules, lfs)


def _as_docker(ref: str, fragment: str) -> tuple[str, str]:
    """Ref and fragment of `#REF:FOLDER`, docker's spelling:
    https://docs.docker.com/build/concepts/context/#url-fragments.
    """
    own, _, folder = fragment.partition(":")
    if ref and own:
        raise UserError(
            f"The git source names two refs, {ref!r} and {own!r}", "name one: @REF or #REF"
        )
    return ref or own, f"subdirectory={folder}" if folder else ""


def submodule_remote(parent: Remote, url: str) -> Remote:
    """Return the repository that the `url` of a submodule names, which may be relative to that of
    the `parent`.

    Relative ones as in gitmodules(5), but never to another host, nor above the top of this one.
    `UserError` for those, for commands, for paths of this machine, and for files unless the parent
    is one.
    """
    if url.startswith(("./", "../")):
        return _beside(parent, _printable(url))
    remote, ref = _split(_printable(url))
    if ref:
        raise UserError("There is an '@' in its path", "write %40")
    if remote.scheme == "file" and parent.scheme != "file":
        raise UserError(f"It is a file of {machine()}'s own", "name a repository on a server")
    return remote


def _beside(parent: Remote, url: str) -> Remote:
    names = parent.path.strip("/").split("/")
    while url.startswith(("./", "../")):
        step, _, url = url.partition("/")
        if step == "..":
            if not names:
                raise UserError(
                    f"It leads above the top of {parent.address or 'the file system'}",
                    "name it in full",
                )
            names.pop()
    path = "/".join((*names, unquote(url).strip("/")))
    return replace(parent, path=_path(f"/{path}" if parent.path.startswith("/") else path))


def _printable(text: str) -> str:
    if len(text) > _MAX_TEXT or not text.isprintable():
        raise UserError(
            f"The git source is longer than {_MAX_TEXT} characters, or has control characters in it",
            f"write {_FORMS}",
        )
    return text


def _split(text: str) -> tuple[Remote, str]:
    """Return the repository, and the ref as it is written."""
    if helper := _HELPER.match(text):
        raise UserError(
            f"Git sources with the transport {helper['name']!r} are refused", f"write {_FORMS}"
        )
    if url := _URL.fullmatch(text):
        return _from_url(url)
    if scp := _SCP.fullmatch(text):
        return _from_scp(scp)
    raise UserError("The text of the git source is not a repository's", f"write {_FORMS}")


def _from_url(url: "re.Match[str]") -> tuple[Remote, str]:
    scheme = url["scheme"].lower()
    if scheme not in _SCHEMES:
        raise UserError(
            f"Git sources with the transport {scheme!r} are refused",
            f"known: {', '.join(_SCHEMES)}",
        )
    userinfo, _, address = url["authority"].rpartition("@")
    path, _, ref = url["rest"].partition("@")
    if "?" in path:
        raise UserError("The URL of the git source has a query", f"write {_FORMS}")
    decoded = _path("/" + _decoded(path).strip("/"))
    user = _user(scheme, userinfo)
    if scheme == "file":
        if address not in ("", "localhost"):
            raise UserError(
                "The file of the git source is on another host", "write git+file:///PATH"
            )
        return Remote(scheme, "", decoded), ref
    host, port = _host(scheme, address)
    return Remote(scheme, host, decoded, port, user), ref


def _from_scp(scp: "re.Match[str]") -> tuple[Remote, str]:
    """`user@host:path`: the path begins at the user's home, and goes to the host as it is, encoded
    or not: Azure DevOps' has `%20` for blanks.
    """
    path, _, ref = scp["rest"].partition("@")
    if "?" in path:
        raise UserError(
            "The path of the git source has characters that it cannot have",
            "write git+ssh://HOST/PATH",
        )
    _path(_decoded(path))
    host, _ = _host("ssh", scp["host"])
    top = "/" if path.startswith("/") else ""
    return Remote(
        "ssh", host, _path(top + path.strip("/")), None, _user("ssh", scp["user"] or "")
    ), ref


def _user(scheme: str, userinfo: str) -> str:
    if not userinfo:
        return ""
    is_name = _NAME.fullmatch(userinfo) and not _TOKEN.search(userinfo)
    if scheme in ("https", "http") and (userinfo == ":" or is_name):
        return ""  # hosts put it into what they offer to clone; the worker knows who it is
    if scheme != "ssh" or ":" in userinfo:
        raise UserError(
            "There are credentials in the URL of the git source, where they end up in logs and in the image's history",
            f"leave out what is before the '@' of the host: {machine()} has its own credentials for each host",
        )
    if not _USER.fullmatch(userinfo):
        hint = f"write {_FORMS}"
        if userinfo.startswith("git+"):
            hint = f"write git+ssh://{userinfo.removeprefix('git+')}@HOST/PATH@REF"
        raise UserError("The user in the URL of the git source is not a user's name", hint)
    return userinfo


def _host(scheme: str, address: str) -> tuple[str, int | None]:
    host, port = address.lower(), ""
    if found := re.fullmatch(r"(.*[^:\[]):(\d*)", host):
        host, port = found.groups()
    if not _HOST.fullmatch(host) or (port and not 0 < int(port[:6]) < 65536):
        # It is not shown: it may be the first half of a password with a '/' in it.
        raise UserError(
            "The host of the git source is not a host's name, nor that and a port",
            f"write {_FORMS}",
        )
    return host, int(port) if port and int(port) != DEFAULT_PORTS[scheme] else None


def _path(path: str) -> str:
    """Return a repository's path, if it can be none but that."""
    names = path.split("/")
    if (
        path in ("", "/")
        or not path.isprintable()
        or any(name in ("..", ".") or name[:1] == "-" for name in names)
    ):
        raise UserError(
            "The path of the git source is empty, or has '.', '..', control characters or names that begin with '-'",
            f"write {_FORMS}",
        )
    return path


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise UserError(
            "The percent-encoding of the git source is not UTF-8", "encode its characters anew"
        ) from None


def _ref(text: str) -> str:
    """Return a ref, as git-check-ref-format(1) lets it be; the default branch is nothing at all."""
    ref = _decoded(text)
    if not ref.isprintable() or _BAD_REF.search(ref):
        raise UserError(
            f"{ref!r} cannot be the name of a branch, a tag or a commit",
            "write @REF after the repository; characters such as '#' in it are percent-encoded",
        )
    if _FULL.fullmatch(ref):
        return ref.lower()
    return "" if ref == "HEAD" else ref


def _options(fragment: str) -> dict[str, str]:
    """Return what stands after the `#`, as it is written."""
    options: dict[str, str] = {}
    for name, value in _pairs(fragment):
        if name in options:
            raise UserError(f"The git source has {name} twice after its '#'", "name it once")
        options[name] = value
    return options


def _pairs(fragment: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, fragment.split("&")):
        name, equals, value = part.partition("=")
        if name == "egg":  # pip's name for what is in it, which changes nothing
            continue
        if not equals:
            raise UserError(
                f"{part!r} after the '#' of the git source is no option",
                "write @REF#subdirectory=FOLDER, not #REF",
            )
        if name not in _OPTIONS:
            near = get_close_matches(name, _OPTIONS, n=1)
            raise UserError(
                f"A git source has no option {name!r}",
                f"did you mean {near[0]}?" if near else f"the options are {', '.join(_OPTIONS)}",
            )
        yield name, _decoded(value)


def _folder(value: str) -> str:
    names = [name for name in value.split("/") if name not in ("", ".")]
    bad = any(name == ".." or name.lower() == ".git" for name in names)
    if bad or value.startswith("-") or not value.isprintable():
        raise UserError(
            f"{value!r} is not a folder of a repository", "write subdirectory=FOLDER, from its top"
        )
    return "/".join(names)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in _YES_NO:
        raise UserError(
            f"The option {name} of the git source is {value!r}",
            f"write {name}=true or {name}=false",
        )
    return _YES_NO[value.lower()]

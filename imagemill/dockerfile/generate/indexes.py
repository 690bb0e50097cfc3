"""Where packages come from other than PyPI: what a build needs for it, and how it gets at
credentials without the image getting at them.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from imagemill.errors import UserError

_PUBLIC = frozenset(
    {
        "pypi.org",
        "files.pythonhosted.org",
        "test.pypi.org",
        "download.pytorch.org",
        "data.pyg.org",
        "pypi.nvidia.com",
        "storage.googleapis.com",
        "conda.anaconda.org",
    }
)
"""Hosts that ask nobody who they are. Git hosts do for private repositories, which no URL tells."""

_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_TOKEN = re.compile(r"gh[pousr]_|github_pat_|glpat-")
_SSH = re.compile(r"git\+ssh://|ssh://|(?:git\+)?git@")


@dataclass(frozen=True)
class PackageOrigin:
    """A URL, and the file and line that has it."""

    url: str
    where: str

    @property
    def is_git(self) -> bool:
        """Whether git fetches it."""
        return self.url.startswith("git+") or self.url.endswith(".git") or ".git@" in self.url

    @property
    def host(self) -> str:
        """Who is asked."""
        return urlsplit(self.url.removeprefix("git+")).hostname or ""

    @property
    def variables(self) -> frozenset[str]:
        """The variables in it, which installers replace."""
        return frozenset(_VARIABLE.findall(self.url))

    def check(self) -> "PackageOrigin":
        """Itself; `UserError` if it has a password in it, which every image would have, or wants an
        ssh key.
        """
        if _SSH.match(self.url):
            raise UserError(
                f"{self.where}: the build has no ssh key to fetch this repository with",
                "write git+https://…; credentials for it are the build secret 'netrc'",
            )
        authority = self.url.partition("://")[2].partition("/")[0]
        user, colon, password = authority.rpartition("@")[0].partition(":")
        if (colon and password and not _VARIABLE.fullmatch(password)) or _TOKEN.match(user):
            raise UserError(
                f"{self.where}: there is a password in this URL, and it would be in every image",
                "take it out, and give it as the build secret 'netrc', or as ${NAME} and the build secret NAME; "
                "it is in the source already, so replace it where it was issued",
            )
        return self


def hosts_with_users(places: tuple[PackageOrigin, ...]) -> tuple[str, ...]:
    """Return the hosts that may want to know who asks, and to which no variable says it."""
    wanted = {
        place.host
        for place in places
        if (place.is_git or place.host not in _PUBLIC) and not place.variables
    }
    return tuple(sorted(wanted - {""}))


def variables(places: tuple[PackageOrigin, ...]) -> tuple[str, ...]:
    """Return the variables that the places need, sorted."""
    return tuple(sorted({name for place in places for name in place.variables} - {"PROJECT_ROOT"}))

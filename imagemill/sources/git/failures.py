"""What git, curl and ssh say when they fail, told apart by who can mend it.

The texts are those of git 2.32 to 2.51 with LC_ALL=C, of OpenSSH, and of the large forges: there
are no codes behind them. What nothing here knows is an `OperatorError` with git's own words.
"""

import errno
from collections.abc import Callable
from typing import NamedTuple

from imagemill import authorities
from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.patterns import Linear
from imagemill.place import machine
from imagemill.sources.git.url import Remote
from imagemill.text import shortened

_LINES = 6

_NOT_ADVERTISED = Linear(
    r"Server does not allow request for unadvertised object|dumb http transport does not support shallow"
    r"|Server does not support shallow (?:clients|requests)|want [0-9a-f]+ not valid",
    ignore_case=True,
)


class _Known(NamedTuple):
    """What is said, and the error for it."""

    said: Linear
    error: Callable[[Remote, str], ImagemillError]


class NotServedAloneError(UserError):
    """The server gives no single commits or files, but branches and tags only, or only with all of
    their history.
    """


def failure(remote: Remote, said: str) -> ImagemillError:
    """Return the error for what git said of a repository on its standard error; without any secret
    in it already.
    """
    if _NOT_ADVERTISED.search(said):
        return NotServedAloneError(
            f"{remote} gives branches and tags only: {told(said)}", "name one of those"
        )
    for known in _KNOWN:
        if known.said.search(said):
            return known.error(remote, told(said))
    return OperatorError(
        f"git failed on {remote}: {told(said) or 'it says nothing'}",
        "try `git ls-remote` with that URL as the user that Imagemill runs as",
    )


def told(said: str) -> str:
    """Return the last lines of what was said, in one."""
    lines = map(shortened, said.splitlines())
    shown = [line for line in lines if line and not _NOISE.match(line)]
    return "; ".join(shown[-_LINES:])


_NOISE = Linear(
    r"Please make sure you have the correct access rights|and the repository exists\.|hint: |remote: $"
)


def _no_credentials(remote: Remote, said: str) -> ImagemillError:
    return PermissionDenied(
        f"{remote} is private, or there is no such repository: {remote.address} wants credentials, and {machine()} has"
        f" none for it",
        f"check the spelling; for a private one have the operator put a token into the file {remote.file_name} in"
        " IMAGEMILL_SOURCE_CREDENTIALS",
    )


def _refused(remote: Remote, said: str) -> ImagemillError:
    return PermissionDenied(
        f"{remote.address} refuses {machine()}'s credentials for {remote}: {said}",
        f"have the operator put a token for it into the file {remote.file_name} in IMAGEMILL_SOURCE_CREDENTIALS"
        if remote.scheme != "ssh"
        else f"add the deploy key of {remote.file_name} in IMAGEMILL_GIT_SSH_KEYS, which has no passphrase, to it",
    )


def _absent(remote: Remote, said: str) -> ImagemillError:
    return UserError(
        f"There is no repository {remote}, or {machine()}'s credentials do not let it see that: {said}",
        f"check the spelling, and that it is public or that {machine()} has credentials for it",
    )


def _no_commit(remote: Remote, said: str) -> ImagemillError:
    return UserError(
        f"There is no such commit in {remote}: {said}", "push it, or check its spelling"
    )


def _unknown_key(remote: Remote, said: str) -> ImagemillError:
    return OperatorError(
        f"{machine().capitalize()} does not know the host key of {remote.address}, or it is another one by now: {said}",
        f"check what `ssh-keyscan {remote.host}` prints against what the host's owner publishes, and put it into"
        " IMAGEMILL_GIT_KNOWN_HOSTS",
    )


def _untrusted(remote: Remote, said: str) -> ImagemillError:
    return OperatorError(
        f"{machine().capitalize()} does not trust the certificate of {remote.address}: {said}",
        authorities.HINT,
    )


def _no_host(remote: Remote, said: str) -> ImagemillError:
    return ServiceUnreachable(
        f"The name of {remote.host} cannot be resolved: {said}",
        f"check its spelling, and the name servers and the proxy of {machine()}",
    )


def _unreachable(remote: Remote, said: str) -> ImagemillError:
    return ServiceUnreachable(
        f"{remote.address} does not answer, or broke off: {said}",
        "check that it is up, and what is between",
    )


def _proxy(remote: Remote, said: str) -> ImagemillError:
    return TransientError(
        f"The proxy does not lead to {remote.address}: {said}",
        "check the proxy, and what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say",
    )


def _unsafe(remote: Remote, said: str) -> ImagemillError:
    return UserError(
        f"{remote} holds what git refuses as unsafe or damaged: {said}",
        "look at it with `git fsck`, and mend it",
    )


def _no_room(remote: Remote, said: str) -> ImagemillError:
    error = OperatorError(
        f"There is no room left on {machine()} for {remote}: {said}",
        f"free some space there, or give {machine()} a larger disk or quota, and build again",
    )
    error.__cause__ = OSError(
        errno.ENOSPC, said
    )  # as `storage.room` has it: the cache of sources makes room then
    return error


def _not_allowed(remote: Remote, said: str) -> ImagemillError:
    return UserError(
        f"{remote} leads to a transport that is refused: {said}", "name the repository itself"
    )


def _others(remote: Remote, said: str) -> ImagemillError:
    return PermissionDenied(
        f"{machine().capitalize()} may not read {remote}: {said}",
        "let the user that Imagemill runs as read and own it",
    )


def _no_ssh(remote: Remote, said: str) -> ImagemillError:
    return OperatorError(
        f"{machine().capitalize()} has no ssh to read {remote} with: {said}",
        "install it (Debian: openssh-client)",
    )


def _known(pattern: str, error: Callable[[Remote, str], ImagemillError]) -> _Known:
    return _Known(Linear(pattern, ignore_case=True), error)


# The first that fits counts: a reason comes before what merely follows from it.
_KNOWN = (
    _known(r"no space left on device|disk quota exceeded|unable to write file ", _no_room),
    _known(
        r"host key verification failed|remote host identification has changed|no \S+ host key is known",
        _unknown_key,
    ),
    _known(r"cannot run ssh|ssh: (?:command )?not found", _no_ssh),
    _known(r"permission denied \(|too many authentication failures|load key .*: ", _refused),
    _known(
        r"SSL certificate|certificate (?:verification|verify) failed|unable to get local issuer",
        _untrusted,
    ),
    _known(
        r"could not resolve (?:host|proxy)|unable to look up|name or service not known", _no_host
    ),
    _known(r"CONNECT tunnel failed|HTTP code \d+ from proxy", _proxy),
    _known(r"could not read (?:Username|Password) for", _no_credentials),
    _known(r"access denied or repository not exported", _absent),
    _known(
        r"authentication failed for|returned error: 40[13]|access denied",
        _refused,
    ),
    _known(r"transport '\S+' not allowed|protocol .* (?:not supported|disabled)", _not_allowed),
    _known(r"dubious ownership|is owned by someone else", _others),
    _known(
        r"repository '?\S*'? ?not found|returned error: 404|does not appear to be a git repository"
        r"|not exported|project you were looking for|no such repository|repository does not exist"
        r"|not a git repository|not valid: is this a git",
        _absent,
    ),
    _known(
        r"not our ref|couldn't find remote ref|bad object|could not get object info|did not send all necessary",
        _no_commit,
    ),
    _known(
        r"fsck error|(?:error|fatal): (?:object|invalid path)|in tree [0-9a-f]{40}|bad tree|corrupt|malformed|"
        r"disallowed submodule|unable to create file .*: file name too long|cannot (?:create|checkout)"
        r"|duplicate entries|bad config line",
        _unsafe,
    ),
    _known(
        r"failed to connect|connection (?:refused|timed out|reset|closed)|couldn't connect|unable to connect"
        r"|no route to|timed out|unexpected disconnect|hung up|early EOF|RPC failed|returned error: (?:429|5\d\d)"
        r"|network is|operation too slow|empty reply|transfer closed|invalid index-pack output",
        _unreachable,
    ),
)

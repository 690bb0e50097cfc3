"""What git, curl and ssh say when they fail, told apart by who can mend it.

The texts are those of git 2.32 to 2.51 with LC_ALL=C, of OpenSSH, and of the large forges: there
are no codes behind them. What nothing here knows is an `OperatorError` with git's own words.
"""

import errno
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
    """What is said, and the error for it, in whose texts the fields of `_error` have their place."""

    said: Linear
    kind: type[ImagemillError]
    message: str
    hint: str
    errno: int = 0
    """What the system calls it, where something else is to be done about it."""


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
            return _error(known, remote, told(said))
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


def _error(known: _Known, remote: Remote, said: str) -> ImagemillError:
    token = f"have the operator put a token for it into the file {remote.file_name} in IMAGEMILL_SOURCE_CREDENTIALS"
    key = f"add the deploy key of {remote.file_name} in IMAGEMILL_GIT_SSH_KEYS, which has no passphrase, to it"
    fields = {
        "remote": remote,
        "address": remote.address,
        "host": remote.host,
        "file": remote.file_name,
        "we": machine(),
        "We": machine().capitalize(),
        "said": said,
        "grant": key if remote.scheme == "ssh" else token,
    }
    error = known.kind(known.message.format(**fields), known.hint.format(**fields))
    if known.errno:
        error.__cause__ = OSError(known.errno, said)
    return error


def _known(
    pattern: str, kind: type[ImagemillError], message: str, hint: str, code: int = 0
) -> _Known:
    return _Known(Linear(pattern, ignore_case=True), kind, f"{message}: {{said}}", hint, code)


_REFUSED = (PermissionDenied, "{address} refuses {we}'s credentials for {remote}", "{grant}")
_ABSENT = (
    UserError,
    "There is no repository {remote}, or {we}'s credentials do not let it see that",
    "check the spelling, and that it is public or that {we} has credentials for it",
)

# The first that fits counts: a reason comes before what merely follows from it.
_KNOWN = (
    _known(
        r"no space left on device|disk quota exceeded|unable to write file ",
        OperatorError,
        "There is no room left on {we} for {remote}",
        "free some space there, or give {we} a larger disk or quota, and build again",
        errno.ENOSPC,  # as `storage.room` has it: the cache of sources makes room then
    ),
    _known(
        r"host key verification failed|remote host identification has changed|no \S+ host key is known",
        OperatorError,
        "{We} does not know the host key of {address}, or it is another one by now",
        "check what `ssh-keyscan {host}` prints against what the host's owner publishes, and put it into"
        " IMAGEMILL_GIT_KNOWN_HOSTS",
    ),
    _known(
        r"cannot run ssh|ssh: (?:command )?not found",
        OperatorError,
        "{We} has no ssh to read {remote} with",
        "install it (Debian: openssh-client)",
    ),
    _known(r"permission denied \(|too many authentication failures|load key .*: ", *_REFUSED),
    _known(
        r"SSL certificate|certificate (?:verification|verify) failed|unable to get local issuer",
        OperatorError,
        "{We} does not trust the certificate of {address}",
        authorities.HINT,
    ),
    _known(
        r"could not resolve (?:host|proxy)|unable to look up|name or service not known",
        ServiceUnreachable,
        "The name of {host} cannot be resolved",
        "check its spelling, and the name servers and the proxy of {we}",
    ),
    _known(
        r"CONNECT tunnel failed|HTTP code \d+ from proxy",
        TransientError,
        "The proxy does not lead to {address}",
        "check the proxy, and what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say",
    ),
    _Known(
        Linear(r"could not read (?:Username|Password) for", ignore_case=True),
        PermissionDenied,
        "{remote} is private, or there is no such repository: {address} wants credentials, and {we} has none for it",
        "check the spelling; for a private one have the operator put a token into the file {file} in"
        " IMAGEMILL_SOURCE_CREDENTIALS",
    ),
    _known(r"access denied or repository not exported", *_ABSENT),
    _known(r"authentication failed for|returned error: 40[13]|access denied", *_REFUSED),
    _known(
        r"transport '\S+' not allowed|protocol .* (?:not supported|disabled)",
        UserError,
        "{remote} leads to a transport that is refused",
        "name the repository itself",
    ),
    _known(
        r"dubious ownership|is owned by someone else",
        PermissionDenied,
        "{We} may not read {remote}",
        "let the user that Imagemill runs as read and own it",
    ),
    _known(
        r"repository '?\S*'? ?not found|returned error: 404|does not appear to be a git repository"
        r"|not exported|project you were looking for|no such repository|repository does not exist"
        r"|not a git repository|not valid: is this a git",
        *_ABSENT,
    ),
    _known(
        r"not our ref|couldn't find remote ref|bad object|could not get object info|did not send all necessary",
        UserError,
        "There is no such commit in {remote}",
        "push it, or check its spelling",
    ),
    _known(
        r"fsck error|(?:error|fatal): (?:object|invalid path)|in tree [0-9a-f]{40}|bad tree|corrupt|malformed|"
        r"disallowed submodule|unable to create file .*: file name too long|cannot (?:create|checkout)"
        r"|duplicate entries|bad config line",
        UserError,
        "{remote} holds what git refuses as unsafe or damaged",
        "look at it with `git fsck`, and mend it",
    ),
    _known(
        r"failed to connect|connection (?:refused|timed out|reset|closed)|couldn't connect|unable to connect"
        r"|no route to|timed out|unexpected disconnect|hung up|early EOF|RPC failed|returned error: (?:429|5\d\d)"
        r"|network is|operation too slow|empty reply|transfer closed|invalid index-pack output",
        ServiceUnreachable,
        "{address} does not answer, or broke off",
        "check that it is up, and what is between",
    ),
)

"""What git, ssh and the forges say, and whom it is for; the servers of the tests say some of it
themselves.
"""

import pytest

from imagemill.errors import (
    ImagemillError,
    OperatorError,
    PermissionDenied,
    ServiceUnreachable,
    TransientError,
    UserError,
)
from imagemill.sources.git.failures import NotServedAloneError, failure, told
from imagemill.sources.git.url import parse

REMOTE = parse("git+https://github.com/team/app").remote

SAID: dict[str, type[ImagemillError]] = {
    "ERROR: Repository not found.\nfatal: Could not read from remote repository.": UserError,
    "remote: Repository not found.\nfatal: repository 'https://github.com/team/app/' not found": UserError,
    "remote: ERROR: The project you were looking for could not be found or you don't have permission": UserError,
    "remote: conq: repository does not exist.\nfatal: Could not read from remote repository.": UserError,
    "fatal: could not read Username for 'https://github.com': terminal prompts disabled": PermissionDenied,
    "remote: HTTP Basic: Access denied.\nfatal: Authentication failed for 'https://gitlab.com/x/'": PermissionDenied,
    "remote: Support for password authentication was removed.\nfatal: Authentication failed for 'x'": PermissionDenied,
    "fatal: unable to access 'https://x/': The requested URL returned error: 403": PermissionDenied,
    "git@github.com: Permission denied (publickey).\nfatal: Could not read from remote repository.": PermissionDenied,
    "fatal: unable to access 'https://x/': The requested URL returned error: 502": ServiceUnreachable,
    "fatal: unable to access 'https://x/': The requested URL returned error: 429": ServiceUnreachable,
    "fatal: unable to access 'https://x/': Could not resolve host: x": ServiceUnreachable,
    "fatal: unable to access 'https://x/': CONNECT tunnel failed, response 502": TransientError,
    "fatal: unable to access 'https://x/': Received HTTP code 403 from proxy after CONNECT": TransientError,
    "ssh: Could not resolve hostname x: Name or service not known": ServiceUnreachable,
    "ssh: connect to host x port 22: Connection timed out\nfatal: Could not read from remote": ServiceUnreachable,
    "kex_exchange_identification: Connection closed by remote host": ServiceUnreachable,
    "error: RPC failed; curl 56 recv error\nfatal: early EOF\nfatal: invalid index-pack output": ServiceUnreachable,
    "error: RPC failed; curl 28 Operation too slow. Less than 1 bytes/sec transferred": ServiceUnreachable,
    "fatal: unable to access 'https://x/': server certificate verification failed. CAfile: none": OperatorError,
    "fatal: unable to access 'https://x/': SSL certificate problem: certificate has expired": OperatorError,
    "No ED25519 host key is known for x and you have requested strict checking.": OperatorError,
    "Host key verification failed.\nfatal: Could not read from remote repository.": OperatorError,
    "error: cannot run ssh: No such file or directory\nfatal: unable to fork": OperatorError,
    "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output": OperatorError,
    "error: Server does not allow request for unadvertised object 1234": NotServedAloneError,
    "fatal: remote error: want 1234567890 not valid": NotServedAloneError,
    "fatal: remote error: upload-pack: not our ref 1234": UserError,
    "error: object 1234: hasDotgit: contains '.git'\nfatal: fsck error in packed object": UserError,
    "fatal: transport 'file' not allowed": UserError,
    "something that nobody has heard of": OperatorError,
    "": OperatorError,
}


@pytest.mark.parametrize(("said", "kind"), SAID.items())
def test_what_is_said_is_told_to_whom_it_is_for(said: str, kind: type[ImagemillError]) -> None:
    error = failure(REMOTE, said)
    assert type(error) is kind
    assert error.hint
    assert "github.com" in error.message


def test_what_is_told_is_short_and_printable() -> None:
    said = "\n".join(
        ["remote: ", *(f"line {i} \x1b[31m{'x' * 1000}" for i in range(100)), "hint: never mind"]
    )
    lines = told(said).split("; ")
    assert len(lines) == 6
    assert all(len(line) <= 300 and line.isprintable() for line in lines)
    assert lines[-1].startswith("line 99")

"""What git is told by a worker: what it may do, its config, its variables, and the credentials for
one host.
"""

import base64
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from imagemill import authorities
from imagemill.errors import PermissionDenied
from imagemill.files.own import own_file
from imagemill.place import machine
from imagemill.processes import DEFAULT_PATH
from imagemill.sources.git.destination import BY_HTTP, pinned
from imagemill.sources.git.url import PLAIN, Remote
from imagemill.sources.host_credentials import token_line
from imagemill.sources.options import SourceOptions

_HOST, _TOKEN = "IMAGEMILL_GIT_HOST", "IMAGEMILL_GIT_TOKEN"
_ANYBODY = "x-access-token"
"""The user's name for a token that has none: GitHub's own for it, and the other forges take any."""

_KEPT = frozenset({"GIT_ASKPASS", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_PROXY_SSL_CAINFO"})
"""What git may be told by the worker's own environment; its other variables could undo what is
written here.
"""


def check_allowed(remote: Remote, options: SourceOptions) -> None:
    """`PermissionDenied` if the worker does not speak to such a repository at all."""
    if remote.scheme == "ssh" and options.anonymous:
        raise PermissionDenied(
            f"{machine().capitalize()}'s keys are not for {remote}, which a source on another host names",
            f"have the operator add {remote.address} to IMAGEMILL_SOURCE_SUBMODULE_HOSTS",
        )
    if remote.scheme in PLAIN and not {remote.host, remote.address} & options.insecure_hosts:
        raise PermissionDenied(
            f"{machine().capitalize()} does not read {remote} by {remote.scheme}://, which anybody on"
            " the way can change",
            f"write git+https://, or have the operator add {remote.address} to IMAGEMILL_SOURCE_INSECURE_HOSTS",
        )
    path = Path(os.path.realpath(remote.path))
    if remote.scheme == "file" and not any(
        path.is_relative_to(os.path.realpath(root)) for root in options.roots
    ):
        allowed = ", ".join(map(str, options.roots)) or "none"
        raise PermissionDenied(
            f"{machine().capitalize()} may not read sources at {remote.path}; folders that it may: {allowed}",
            "name a repository on a server, or have the operator add its folder to IMAGEMILL_SOURCE_ROOTS",
        )


_CONFIG = """\
[core]
    hooksPath = /dev/null
    fsmonitor = false
    askPass =
    attributesFile = /dev/null
    excludesFile = /dev/null
    autocrlf = false
    eol = lf
    symlinks = true
    protectHFS = true
    protectNTFS = true
[init]
    templateDir =
    defaultBranch = main
[fetch]
    fsckObjects = true
    unpackLimit = 1
    recurseSubmodules = false
    writeCommitGraph = false
[fetch "fsck"]
    badTimezone = ignore
    missingSpaceBeforeDate = ignore
    zeroPaddedFilemode = ignore
[transfer]
    bundleURI = false
[submodule]
    recurse = false
[gc]
    auto = 0
[maintenance]
    auto = false
[protocol]
    version = 2
[http]
    followRedirects = false
    lowSpeedLimit = 1
    lowSpeedTime = 60
"""
"""Wins over the operator's, who may have set them for people. The three faults under `fetch.fsck`
are harmless, and common in the history of old repositories. Servers send some bytes every five
seconds while they prepare a pack."""

_NO_LFS = """\
[filter "lfs"]
    smudge =
    process =
    required = false
"""
"""Its files are brought by `imagemill.sources.git.lfs`."""

CREDENTIAL_HELPER = f"""\
# Tells git the credentials for one host, as gitcredentials(7) has it. Arguments: the file with them, what to do.
# Asked by the host that git has really come to: where that redirects to another one, it gets none.
host=
while IFS='=' read -r key value; do
    if [ "$key" = host ]; then host=$value; fi
done
[ "$(printf %s "$host" | tr A-Z a-z)" = "${_HOST}" ] || exit 0
case $2 in
    get) if [ -e "$0.refused" ]; then exit 0; fi ;;
    erase) : > "$0.refused"; exit 0 ;;  # they are not asked for again
    *) exit 0 ;;
esac
token=
if [ -n "$1" ] && [ -f "$1" ]; then read -r token < "$1"; else token=${_TOKEN}; fi
case $token in
    '') ;;
    *:*) printf 'username=%s\\npassword=%s\\n' "${{token%%:*}}" "${{token#*:}}" ;;
    *) printf 'username={_ANYBODY}\\npassword=%s\\n' "$token" ;;
esac
"""
"""A helper, and not a program for `GIT_ASKPASS`: those are told in words who asks, in one prompt
for each half. `printf` is the shell's own, so that no token is ever an argument of a process."""


def config_for(
    remote: Remote, options: SourceOptions, home: Path, moved: Remote | None = None
) -> str:
    """Return the only config that git reads, besides that of the repository it makes."""
    parts = [f"[include]\n    path = {_quoted(options.git_config)}\n"] if options.git_config else []
    parts.append(_CONFIG)
    parts.append(_NO_LFS)
    if remote.scheme in BY_HTTP:
        if options.anonymous:  # an empty helper makes git forget those before it
            parts.append("[credential]\n    helper =\n")
        file = (
            options.credentials and not options.anonymous and options.credentials / remote.file_name
        )
        helper = shlex.join(["sh", str(home / "credentials"), str(file or "")])
        parts.append(f"[credential]\n    helper = {_quoted(f'!{helper}')}\n")
    if remote.scheme == "file":  # the operator has allowed its folder, whoever owns it
        folders = (remote.path, f"{remote.path}/.git")
        parts.append(
            "[safe]\n" + "".join(f"    directory = {_quoted(folder)}\n" for folder in folders)
        )
    there = moved or remote
    if there.scheme in BY_HTTP and (pin := pinned(there, options)):
        parts.append(f"[http]\n    curloptResolve = {_quoted(pin)}\n")
    parts.append(f'[remote "origin"]\n    url = {_quoted(there)}\n')
    return "".join(parts)


def _quoted(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def environment_for(remote: Remote, options: SourceOptions, home: Path) -> dict[str, str]:
    """Return the variables that git gets: the worker's, but none that steers git or ssh, and ours."""
    agent = {"SSH_AUTH_SOCK"} if options.ssh_keys is None else set()
    kept = {
        name: value
        for name, value in options.environment.items()
        if not name.startswith(("GIT_", "SSH_", "LC_", "LANG")) or name in _KEPT | agent
    }
    ours = {
        "GIT_CONFIG_GLOBAL": str(home / "config"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": remote.scheme,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NO_LAZY_FETCH": "1",  # from 2.45 on
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }
    if remote.scheme in BY_HTTP:
        ours[_HOST] = remote.address
        ours |= _certificates(remote, home)
        if not options.anonymous and (token := options.tokens.get(remote.file_name)):
            ours[_TOKEN] = token.strip()
    if remote.scheme == "ssh":
        ours |= {
            "GIT_SSH_COMMAND": shlex.join(_ssh(remote, options, home)),
            "GIT_SSH_VARIANT": "ssh",
        }
    # An empty GIT_ASKPASS keeps git from asking by that of ssh.
    return {"PATH": DEFAULT_PATH, "HOME": str(home), "GIT_ASKPASS": "", **kept, **ours}


def _certificates(remote: Remote, home: Path) -> dict[str, str]:
    """Return the variables for what docker's certs.d has for the remote's server."""
    found = authorities.certificates(remote.address)
    given = {}
    if found.authorities:
        file = home / "authorities.pem"
        file.write_bytes(authorities.bundle(found))
        given["GIT_SSL_CAINFO"] = str(file)
    for certificate, key in found.own[:1]:
        given |= {"GIT_SSL_CERT": str(certificate), "GIT_SSL_KEY": str(key)}
    return given


def _ssh(remote: Remote, options: SourceOptions, home: Path) -> list[str]:
    """Return the ssh that asks nothing, knows its hosts, and offers one key (ssh_config(5))."""
    settings = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ForwardAgent=no",
        "ClearAllForwardings=yes",
    ]
    settings += ["ControlMaster=no"]  # it would stay behind
    settings += ["ConnectTimeout=30", "ServerAliveInterval=15", "ServerAliveCountMax=4"]
    if options.known_hosts:
        settings += [
            f"UserKnownHostsFile={_quoted(options.known_hosts)}",
            "GlobalKnownHostsFile=/dev/null",
        ]
    command = ["ssh"]
    if options.ssh_keys:
        settings += [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "PreferredAuthentications=publickey",
        ]
        command += ["-F", "/dev/null", "-i", str(_key(remote, options.ssh_keys, home))]
    return command + [part for setting in settings for part in ("-o", setting)]


def _key(remote: Remote, folder: Path, home: Path) -> Path:
    """Return the private key for the remote's host. ssh wants it to be ours alone, which what is
    mounted often is not.
    """
    for key in (folder / remote.file_name, folder / "default"):
        content = own_file(key)
        if content is None:
            continue
        if not stat.S_IMODE(key.stat().st_mode) & 0o077:
            return key
        copy = home / "key"
        copy.touch(mode=0o600)
        copy.write_bytes(content)
        return copy
    raise PermissionDenied(
        f"{machine().capitalize()} has no SSH key for {remote.address}, which {remote} is on",
        f"put a deploy key's private half into the file {remote.file_name} or default in IMAGEMILL_GIT_SSH_KEYS",
    )


def secrets_of(remote: Remote, options: SourceOptions) -> Iterator[str]:
    """Yield what must not be in an error about the remote: its host's token, also as it goes over
    the wire.
    """
    if remote.scheme not in BY_HTTP:
        return
    if line := token_line(remote.address, options):
        user, _, token = line.partition(":") if ":" in line else (_ANYBODY, "", line)
        yield from (base64.b64encode(f"{user}:{token}".encode()).decode(), line, token)

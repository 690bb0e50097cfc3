"""Random cases of what is seldom done: odd names and modes, special files in base images, ownership
by name, mounts, `ONBUILD` and archives. As those of `graft_cases`, but not recorded.
"""

import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

from graft_cases import SHELL, Case
from graft_cases import _remove as remove
from graft_cases import _write as write

__all__ = ["SHELL", "case"]

_BOX = "/bin/busybox"
_NAMES = (
    "a",
    "A",
    "b.py",
    "two words",
    "ü",
    "na\u00efve\u00a0x",
    "日本語.py",
    "star*",
    "[x]",
    "-n",
    "#c",
    "$HOME",
    'quo"te',
    "back\\slash",
    "line\nend",
    ".wh",
    ".hidden",
    "l" * 99,
    "l" * 101,
    "é" * 120,
    os.fsdecode(b"\xff\xfe.py"),
)
_KEPT = ("a", "b.py", "two words", "ü", "na\u00efve\u00a0x")
_FOLDERS = ("app", "srv/x", "etc", "opt/a/d", "m" * 90)
_OWNERS = (
    "5:6",
    "10001:10001",
    "7",
    "1000:0",
    "app",
    "app:app",
    "0:0",
    "app:9",
    "2097152:3000000",
    "$WHO",
    "${WHO}:9",
)


def case(seed: int) -> Case:
    """The case of a seed."""
    of = random.Random(seed)
    parent, begin = None, "FROM BASE AS shell\n"
    base = "".join(f"RUN {step}\n" for step in _base(of))
    kind = of.random()
    if kind < 0.3:
        onbuild = "ONBUILD COPY package /onbuild\n" if of.random() < 0.1 else ""
        onbuild += of.choice(("", "", "USER 3\n", "USER 5:50\n"))
        parent, begin = f"FROM BASE\n{base}WORKDIR /srv\nENV WHO=5\n{onbuild}", "FROM BASE\n"
    elif kind < 0.5:
        onbuild = of.choice(
            ("", "", "", "ONBUILD COPY package /onbuild\n", "ONBUILD WORKDIR /opt\n", "USER 3\n")
        )
        begin += f"{base}WORKDIR /srv\n{onbuild}FROM shell\n"
    elif kind < 0.6:
        begin += f"{base}FROM shell AS other\nCOPY package /other\nFROM shell\nCOPY --from=other /other /o\n"
    else:
        begin += base
    return Case(
        of.choice(("", "# syntax is a word\n")) + begin + "".join(_suffix(of)),
        parent,
        of.choice(_IGNORES),
        _tree(of.randrange(1 << 30)),
        tuple(_edit(of.randrange(1 << 30)) for _ in range(4)),
    )


def _base(of: random.Random) -> list[str]:
    """Special files, links of all kinds, names that are given again, folders that pass on their
    group.
    """
    steps = []
    for _ in range(of.randrange(5)):
        at, name = f"/{of.choice(_FOLDERS)}", of.choice(("a", "b.py", "package", "d"))
        command = of.choice(
            (
                f"mknod {at}/{name} c 1 3",
                f"mkfifo {at}/{name}",
                f"sh -c 'echo 1 > {at}/{name}' && ln -f {at}/{name} {at}/hard && ln -f {at}/{name} /hard",
                f"sh -c 'echo 1 > {at}/{name}' && chmod 6755 {at}/{name}",
                f"chmod 2775 {at} && chown 5:50 {at}",
                f"mkdir -p {at}/{name} && chmod 2777 {at}/{name} && chown 5:50 {at}/{name}",
                f"chmod 1777 {at}",
                f"ln -sfn nowhere/else {at}/{name}",
                f"ln -sfn {name} {at}/{name}",
                f"ln -sfn ../../../../srv {at}/{name}",
                f"ln -sfn . {at}/{name}",
                f"ln -sfn /hard {at}/{name}",
                f"ln -sfn /srv//x/ {at}/{name}",
                f"sh -c 'rm -rf {at} && ln -sfn /srv/y {at} && {_BOX} mkdir -p /srv/y'",
                f"sh -c 'rm -rf {at}/* && {_BOX} mkdir -p {at}/{name}/d'",
                f"sh -c 'rm -rf {at} && {_BOX} mkdir -p {at}/d'",
                f"mkdir -p {at}/{name}/inner && chmod 000 {at}/{name}",
                "sh -c 'echo app:x:77:78::/:/bin/sh > /etc/passwd; echo app:x:78: > /etc/group'",
                f"touch -d 1960-01-01 {at}/{name}",
            )
        )  # fmt: skip
        command = command.replace("sh -c 'echo", f"sh -c '{_BOX} mkdir -p {at}; echo")
        command = command.replace("sh -c 'rm", f"sh -c '{_BOX} rm").replace(" && ", f" && {_BOX} ")
        command = command.replace(f"{_BOX} {_BOX}", _BOX)
        steps.append(f"{_BOX} mkdir -p {at} && {_BOX} {command} ; true")
    return steps


def _suffix(of: random.Random) -> list[str]:
    lines = []
    if of.random() < 0.3:
        lines.append(f"VOLUME /{of.choice(_FOLDERS)}\n")
    if of.random() < 0.4:
        lines.append(f"WORKDIR {of.choice(('/app', 'x', '/etc/../srv', '/', '/a b', './c/..'))}\n")
    lines.append(f"ENV WHERE={of.choice(('/app', '/app/', 'sub', '.'))} FILE=a\nARG NAME=b.py\n")
    if of.random() < 0.1:
        mount = of.choice(
            ("source=package", "src=package,rw", "type=BIND,source=package", "type=bind", "source=./package/d",
             "source=/package", 'source="package"', "source=package/../package", "from=shell,source=/bin"))  # fmt: skip
        flag = of.choice(("--mount={},target=/m", '--mount="{},target=/m"', "--mount=target=/m,{}"))
        lines.append(f"RUN {flag.format(mount)} {_BOX} cp -r /m /seen ; true\n")
    if of.random() < 0.15:
        lines.append(
            f"COPY {of.choice(('b.py', 'pack*/b.py', 'p*', '[ab].py', 'package/'))} /before/\n"
        )
        lines.append(f"RUN {_BOX} true\n")
    if of.random() < 0.2:
        lines.append("COPY etc /etc\n")
    for _ in range(of.randrange(1, 5)):
        lines.append(_copy(of))
        if of.random() < 0.5:
            lines.append(_setting(of))
    lines.append(of.choice(('CMD ["x"]\n', 'ENTRYPOINT ["/bin/busybox", "$A"]\n', "CMD x y\n", "")))
    return lines


def _setting(of: random.Random) -> str:
    return of.choice(
        (
            "ENV A=b \\\n  C=d\n",
            "user app\n",
            "USER 10001:5\n",
            f"WORKDIR /{of.choice((*_FOLDERS, 'made/later', 'hard', 'app/a/b'))}\n",
            "WORKDIR ..\n",
            'WORKDIR "/q"\n',
            'LABEL a="b c" \\\n# comment\n  d=e\n',
            "EXPOSE 80/udp 90\n",
            "ARG X\n",
            "HEALTHCHECK --interval=5s CMD x\n",
            "HEALTHCHECK NONE\n",
            "STOPSIGNAL 9\n",
            'SHELL ["/bin/busybox", "ash", "-c"]\n',
            "MAINTAINER who@example.com\n",
            "VOLUME /late\n" if of.random() < 0.1 else "",
            "\tCMD [ \"a\",'b' ]\n",
            "COPY --from=shell /bin/busybox /again\n" if of.random() < 0.1 else "",
            "ENTRYPOINT []\n",
        )
    )


def _copy(of: random.Random) -> str:
    flags = ""
    if of.random() < 0.4:
        flags += f"--chown={of.choice(_OWNERS)} "
    if of.random() < 0.2:
        flags += f"--chmod={of.choice(('755', '0640', '000', '700', '0701'))} "
    keyword = of.choice(("COPY", "copy", "ADD", "COPY"))
    to = of.choice(
        (*(f"/{f}" for f in _FOLDERS), *(f"/{f}/" for f in _FOLDERS), ".", "./", "..", "/", "../up/", "sub/",
         "/app/a", "/app/d/", "/opt/a/d/e/f", "/hard", "/etc/passwd", "//app//x//", "$WHERE", "${WHERE}/x/")
    )  # fmt: skip
    single = to.rstrip("/") != to or to in (".", "..")
    sources = [".", "./", "package", "package/", "/package", "a", "b.py", "package/../b.py", "link", "$FILE",
               "etc/passwd", "packed.tar", "packed.tgz", "./package/d/."]  # fmt: skip
    if single:
        sources += ["*.py", "*", "[ab].py", "??", "p*/*", "**/*.py", "*.none a", "a b.py", "package a package",
                    ".hid*", "\u00fc*", "packed*"]  # fmt: skip
    source = of.choice(sources)
    if of.random() < 0.15:
        return f'{keyword} {flags}["two words", "ü", "{to.rstrip("/")}/"]\n'
    if of.random() < 0.05:
        return f"{keyword} {flags}na\u00efve\u00a0x {to}\n"
    return (
        f"{keyword} {flags}{source} \\\n   {to}\n"
        if of.random() < 0.1
        else f"{keyword} {flags}{source} {to}\n"
    )


_IGNORES = (
    "",
    "",
    "Dockerfile\n",
    "*\n!a\n!b.py\n!package\n!etc\n!link\n!packed*\n!two words\n!ü\n!na*\n",
    "**/*.py\n!b.py\n",
    "package/*\n!package/d\n",
    "# comment\n\n  **/d  \n",
    ".dockerignore\n!Dockerfile\n",
)


def _tree(seed: int) -> Callable[[Path], None]:
    def make(top: Path) -> None:
        of = random.Random(seed)
        for name in (
            "a",
            "b.py",
            "two words",
            "ü",
            "na\u00efve\u00a0x",
            "package/d/e",
            "package/b.py",
        ):
            write(of, top / name)
        _passwd(of, top)
        (top / "link").symlink_to("a")
        for name in ("packed.tar", "packed.tgz"):
            (top / name).write_bytes(b"not packed")
        for _ in range(of.randrange(8)):
            _change(of, top)

    return make


def _edit(seed: int) -> Callable[[Path], None]:
    def edit(top: Path) -> None:
        of = random.Random(seed)
        for _ in range(of.randrange(1, 5)):
            _change(of, top)

    return edit


def _passwd(of: random.Random, top: Path) -> None:
    for name, text in (("passwd", "app:x:{}:{}::/:/bin/sh\n"), ("group", "app:x:{}:\n")):
        path = top / "etc" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(of.choice((77, 87)), of.choice((78, 88))))


def _change(of: random.Random, top: Path) -> None:
    path = top / of.choice(("", "", "package/", "d/", "package/d/", "etc/")) / of.choice(_NAMES)
    if any(parent.is_symlink() or parent.is_file() for parent in path.parents if parent != top):
        return
    kind = of.randrange(12)
    if kind < 3:
        of.choice((_passwd, _pack, _link))(of, top)
    elif path.parent == top and path.name in _KEPT:
        write(of, path)
    elif kind < 6:
        _touch(of, path)
    elif kind < 9:
        write(of, path / "inner" if path.is_dir() and not path.is_symlink() else path)
    else:
        remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == 9:
            path.mkdir()
        elif kind == 10:
            path.symlink_to(of.choice(("a", "/srv", "../a", "nowhere", "ü", "x" * 150)))


def _link(of: random.Random, top: Path) -> None:
    remove(top / "link")
    (top / "link").symlink_to(of.choice(("a", "package", "/etc/passwd", "../..", "nowhere")))


def _touch(of: random.Random, path: Path) -> None:
    """Change what is not the content."""
    if not path.exists() or path.is_symlink():
        return
    path.chmod(of.choice((0o600, 0o4755, 0o1777, 0o2711, 0o444)))
    os.utime(path, ns=(of.choice((-1, 1, 10**18 + 7, 5 * 10**18)),) * 2)
    if path.is_file() and not (path.parent / "hard").exists():
        (path.parent / "hard").hardlink_to(path)


def _pack(of: random.Random, top: Path) -> None:
    """Files that ADD unpacks, and some that only look as if."""
    content = of.randbytes(9)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=of.choice(("w", "w:gz", "w:bz2"))) as archive:
        member = tarfile.TarInfo("unpacked")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    name = of.choice(("packed.tar", "packed.tgz", "a"))
    (top / name).write_bytes(
        of.choice((packed.getvalue(), b"\x1f\x8b\x08" + content, b"", content))
    )

"""Random images, projects and edits, for comparing what we make without a builder with what
BuildKit makes: each a function of its seed.

There are few names, so that what is copied often meets something that is there.
"""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SHELL = """\
FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
"""
"""The image that all cases begin with, which has a shell; they call it `BASE`."""

_NAMES = ("a", "b.py", "c.py", "d")
_FOLDERS = ("app", "srv/x", "own", "opt/a/d")
_OWNERS = ("5:6", "10001:10001", "7", "1000:0")


@dataclass(frozen=True)
class Case:
    """A project, and what is done to it afterwards, more than once."""

    dockerfile: str
    """Its base image is named `BASE`."""
    parent: str | None
    """The Dockerfile of the base image, where that is one of its own, on the one with the shell."""
    ignore: str
    """The Dockerfile is in it, since the base's name is another one each time."""
    make: Callable[[Path], None]
    """Fills the project's folder."""
    edits: tuple[Callable[[Path], None], ...]


def case(seed: int) -> Case:
    """The case of a seed."""
    of = random.Random(seed)
    base = _base(of)
    parent = None
    begin = f"FROM BASE AS shell\n{base}"
    if of.random() < 0.3:
        onbuild = "ONBUILD COPY . /onbuild\n" if of.random() < 0.1 else ""
        parent, begin = f"FROM BASE\n{base}WORKDIR /srv\n{onbuild}", "FROM BASE\n"
    elif of.random() < 0.25:
        begin += f"FROM scratch AS other\nCOPY {of.choice(_NAMES)} /other\nFROM shell\n"
        begin += "COPY --from=other /other /other\n" if of.random() < 0.7 else ""
    return Case(
        begin + "".join(_suffix(of)),
        parent,
        "Dockerfile\n" + (_ignore(of) if of.random() < 0.3 else ""),
        _tree(of.randrange(1 << 30)),
        tuple(_edit(of.randrange(1 << 30)) for _ in range(3)),
    )


def _base(of: random.Random) -> str:
    """Folders of other owners and modes, links, files that are gone."""
    commands = []
    for _ in range(of.randrange(6)):
        folder = of.choice(_FOLDERS)
        commands.append(
            of.choice(
                (
                    f"mkdir -p /{folder}/a && chown {of.choice(_OWNERS)} /{folder}",
                    f"mkdir -p /{folder} && chmod {of.choice(('700', '1777', '755'))} /{folder}",
                    f"mkdir -p /{folder} /real/{folder}/d && ln -sfn /real/{folder} /app",
                    f"mkdir -p /{folder} && ln -sfn ../../real /{folder}/d",
                    f"mkdir -p /{folder} && echo {of.random()} > /{folder}/{of.choice(_NAMES)}",
                    f"rm -rf /{folder}",
                    f"mkdir -p /{folder}/d/e && chown -R 9:9 /{folder}/d",
                    "mkdir -p /etc && echo app:x:77:78::/:/bin/sh > /etc/passwd"
                    " && echo app:x:78: > /etc/group",
                )
            )
        )
    steps = ["RUN " + " ; ".join(f"/bin/busybox {c.replace(' && ', ' && /bin/busybox ')}"
                                for c in commands[n : n + 2]) + " ; true\n"
             for n in range(0, len(commands), 2)]  # fmt: skip
    return "".join(steps).replace("/bin/busybox echo", "/bin/busybox echo")


def _suffix(of: random.Random) -> list[str]:
    lines = []
    if of.random() < 0.5:
        lines.append(f"WORKDIR /{of.choice((*_FOLDERS, 'new/work'))}\n")
    if of.random() < 0.2:
        lines.append("COPY c.py /before/\nRUN /bin/busybox true\n")
    for _ in range(of.randrange(1, 4)):
        lines.append(_copy(of))
        if of.random() < 0.4:
            lines.append(
                of.choice(
                    (
                        "ENV A=b\n",
                        "USER 10001\n",
                        f"WORKDIR /{of.choice((*_FOLDERS, 'made/later'))}\n",
                        "WORKDIR sub\n",
                        "LABEL a=b c=d\n",
                        "EXPOSE 80\n",
                        "ARG X=1\n",
                    )
                )
            )
    lines.append(of.choice(('CMD ["x"]\n', 'ENTRYPOINT ["/bin/busybox"]\n', "")))
    return lines


def _copy(of: random.Random) -> str:
    flags = ""
    if of.random() < 0.35:
        flags += f"--chown={of.choice((*_OWNERS, 'app:app'))} "
    if of.random() < 0.2:
        flags += f"--chmod={of.choice(('755', '0640', '700'))} "
    keyword = "ADD" if of.random() < 0.1 else "COPY"
    shape = of.random()
    folder = of.choice((*(f"/{f}" for f in _FOLDERS), ".", "./sub", "/new", "/", "here/d"))
    if shape < 0.4:
        return f"{keyword} {flags}. {of.choice((folder, f'{folder}/'))}\n"
    if shape < 0.6:
        source = of.choice(("*.py", "pack*", "*/*.py", "?.py", "d*"))
        return f"{keyword} {flags}{source} {folder}/\n"
    if shape < 0.8:
        several = " ".join(of.sample(("a", "b.py", "c.py", "package"), 2))
        return f"{keyword} {flags}{several} {folder}/\n"
    source = of.choice(("a", "b.py", "package", "package/d", "package/"))
    return f"{keyword} {flags}{source} {of.choice((folder, f'{folder}/', f'{folder}/renamed'))}\n"


def _ignore(of: random.Random) -> str:
    return of.choice(("*.log\n", "d\n", "package/d\n!package/d/e\n", "**/c.py\n"))


def _tree(seed: int) -> Callable[[Path], None]:
    def make(top: Path) -> None:
        of = random.Random(seed)
        for name in ("a", "b.py", "c.py", "package/d/e", "package/a", "package/b.py"):
            _write(of, top / name)
        for _ in range(of.randrange(4)):
            _change(of, top)

    return make


def _edit(seed: int) -> Callable[[Path], None]:
    def edit(top: Path) -> None:
        of = random.Random(seed)
        for _ in range(of.randrange(1, 4)):
            _change(of, top)

    return edit


def _change(of: random.Random, top: Path) -> None:
    """Write, add, remove, replace or rename something; what has to be there stays."""
    path = (
        top / of.choice(("", "package/", "d/", "package/d/")) / of.choice((*_NAMES, "e", "x.log"))
    )
    kept = {top / name for name in ("a", "b.py", "c.py", "package", "package/d")}
    kind = of.random()
    if any(parent.is_symlink() or parent.is_file() for parent in path.parents if parent != top):
        return
    if kind < 0.5 or path in kept:
        if path.is_dir() and not path.is_symlink():
            _write(of, path / "inner")
        else:
            _write(of, path)
    elif kind < 0.65:
        _remove(path)
    elif kind < 0.8:
        _remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(of.choice(("a", "/srv", "b.py", "nowhere")))
    elif kind < 0.9:
        _remove(path)
        path.mkdir(parents=True)
    elif path.is_file() and not path.is_symlink():
        path.chmod(of.choice((0o755, 0o644)))


def _write(of: random.Random, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    path.write_bytes(of.randbytes(of.choice((0, 3, 70, 5000))))
    path.chmod(of.choice((0o644, 0o644, 0o755)))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

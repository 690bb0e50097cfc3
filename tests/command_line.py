"""The command line as a user runs it: a process of its own, in an environment of its own, and what
it leaves behind.
"""

import atexit
import os
import pty
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory
from typing import IO, Any

import psutil

import imagemill.cli
from forked import Forks
from service import ROOT, until

MARK = "IMAGEMILL_TEST_MARK"


@dataclass
class CommandLine:
    """Runs `imagemill` with its home, cache and temporary files in `folder`; `variables` are added
    to nothing else.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    code: Path = ROOT

    @property
    def environment(self) -> dict[str, str]:
        for name in ("home", "cache", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": str(self.code),
            MARK: self.mark,
            **self.variables,
        }

    def run(self, *arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end."""
        process = self._start(
            arguments,
            variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                said, complained = process.communicate(timeout=120)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, said, complained)

    @contextmanager
    def started(self, *arguments: str | Path) -> Iterator["Running"]:
        """The running command; killed at the end of the block if it still runs."""
        output = self.folder / f"output-{uuid.uuid4().hex}"
        with output.open("wb") as out:
            process = self._start(
                arguments,
                {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                process_group=0,
            )
        try:
            yield Running(process, output)
        finally:
            process.kill()
            process.wait()

    def in_terminal(self, *arguments: str | Path, **variables: str) -> tuple[int, str]:
        """Run the command in a terminal of 100 columns; its exit code, and all that it wrote
        there.
        """
        ours, its = pty.openpty()
        size = {"COLUMNS": "100", "LINES": "30", "TERM": "xterm"}
        process = self._start(
            arguments,
            size | variables,
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)
        with process, os.fdopen(ours, "rb", buffering=0) as terminal:
            written = b"".join(_until_closed(terminal))
        return process.returncode, written.decode()

    def left(self) -> list[str]:
        """Processes, temporary files, and cached files but those that make the next build quick."""
        processes = [repr(process) for process in self.processes()]
        cache = self.folder / "cache/imagemill"
        kept = ("builds", "contexts", "grafts", "indexes")
        cached = [path for path in cache.glob("*") if path.name not in kept]
        return [*processes, *map(str, [*(self.folder / "tmp").iterdir(), *cached])]

    def until_nothing_is_left(self) -> None:
        """Wait until what the command has started has ended and cleaned up."""
        until(lambda: not self.left(), "the end of all that was started", lambda: str(self.left()))

    def processes(self, name: str = "") -> list[psutil.Process]:
        """The living processes that descend from the command, wherever they have gone."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and name in " ".join(process.cmdline()):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def kill(self, name: str) -> None:
        """Kill the one process that has `name` in its command line."""
        (process,) = self.processes(name)
        process.kill()

    def _start(
        self, arguments: tuple[str | Path, ...], variables: dict[str, str], **options: Any
    ) -> "subprocess.Popen[Any]":
        environment = self.environment | variables
        return forks_of_commands().start(
            "imagemill.cli", *map(str, arguments), env=environment, cwd=self.folder, **options
        )


@cache
def forks_of_commands() -> Forks:
    """What starts commands: it has imported what most of them use, and most of what their own
    services do.
    """
    commands = (f"imagemill.cli.{name}" for _, name, _ in iter_modules(imagemill.cli.__path__))
    # -P: like the installed program, they import nothing from the folder that they are called in.
    forks = Forks(
        *(name for name in commands if not name.endswith("__main__")), *_USED, options=("-P",)
    )
    atexit.register(forks.close)
    return forks


_USED = (
    "celery.canvas",
    "celery.concurrency.prefork",
    "celery.events.receiver",
    "celery.result",
    "celery.worker.consumer",
    "cffi.cparser",
    "imagemill.builders.docker.builder",
    "imagemill.builders.graft.planning",
    "imagemill.sources.git.checkout",
    "imagemill.state.dead_letters",
    "imagemill.state.input_records",
    "imagemill.state.source_hashes",
    "kombu.matcher",
    "kombu.transport.redis",
    "jsonschema",
)
"""No module of `tasks` or `worker`: those are for every application of a process."""


@dataclass
class Running:
    """A command that runs."""

    process: "subprocess.Popen[bytes]"
    output: Path

    @property
    def text(self) -> str:
        """All that it has written so far, to both its outputs."""
        return self.output.read_text()

    def until(self, text: str) -> None:
        """Wait until it has written this."""
        until(
            lambda: text in self.text or self.process.poll() is not None,
            repr(text),
            lambda: self.text,
        )
        assert text in self.text

    def interrupt(self) -> None:
        """What Ctrl-C does: the signal goes to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(120)


def _until_closed(terminal: IO[bytes]) -> Iterator[bytes]:
    """What is written to a terminal until nobody has its other end any more, which Linux tells by
    an error.
    """
    with suppress(OSError):
        while chunk := terminal.read(65536):
            yield chunk


@contextmanager
def command_line(**variables: str) -> Iterator[CommandLine]:
    """A command line in a folder whose path is short enough for sockets."""
    with TemporaryDirectory(prefix="im-", dir="/tmp") as folder:
        yield CommandLine(Path(folder), variables)

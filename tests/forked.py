"""Starts `python -m MODULE` without the second that its imports take: a process that has imported
them already forks itself, and the fork becomes what was asked for.

To whoever looks, the fork is a process like one that was executed: with the arguments, variables,
folder, session and files of its own that `subprocess.Popen` was given, and an end of its own.

Where a fork executes `python -c CODE` while it has one thread, it forks itself instead, likewise.
"""

import ctypes
import gc
import importlib
import inspect
import io
import json
import mmap
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
_ROOM = 16 << 10
"""Bytes for the arguments of a fork, and for its variables, where /proc shows them."""
_MESSAGE = 128 << 10


class Forks:
    """Forks of one process, which has imported `modules`, and was executed with `options`."""

    def __init__(self, *modules: str, options: tuple[str, ...] = ()) -> None:
        self.options = options
        self._lock = threading.Lock()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        room = "x" * _ROOM
        command = [sys.executable, *options, __file__, str(its.fileno()), room, *modules]
        self._server = subprocess.Popen(
            command,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "ROOM": room},
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
        )
        its.close()
        ours.settimeout(120)
        self._socket = ours

    def close(self) -> None:
        """End the process that forks; what it has forked goes on."""
        self._socket.close()
        self._server.wait()

    def start(
        self, module: str, *arguments: str, env: dict[str, str], **options: Any
    ) -> "subprocess.Popen[Any]":
        """Return `subprocess.Popen(["python", "-m", MODULE, …], env=…, …)`; executed after all where
        the start of Python itself depends on the variables.
        """
        command = [sys.executable, *self.options, "-m", module, *arguments]
        path = env.get("PYTHONPATH", str(ROOT)) == str(ROOT)
        others = [name for name in env if name.startswith(("PYTHON", "LANG", "LC_"))]
        if path and set(others) <= {"PYTHONPATH", "PYTHONUNBUFFERED"}:
            return Forked(self, command, env=env, **options)
        return subprocess.Popen(command, env=env, **options)

    def ask(self, question: dict[str, Any], *files: int) -> Any:
        """Return the answer of the process, or of its fork."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(question).encode()], files)
            answer = self._socket.recv(_MESSAGE)
        if not answer:
            raise RuntimeError("the process that forks has ended: see what it has written")
        return json.loads(answer)


class Forked(subprocess.Popen[Any]):
    """A `subprocess.Popen` that forks instead of executing.

    It takes of Popen's options `cwd`, `env`, `start_new_session`, `process_group` and those of the
    standard files; all other files are closed, as by default.
    """

    def __init__(self, forks: Forks, command: list[str], **options: Any) -> None:
        self._forks = forks
        super().__init__(command, **options)

    def _execute_child(self, *given: Any) -> None:
        # What Popen does after it has opened the pipes.
        popen: Any = super()
        named = inspect.signature(popen._execute_child).bind(*given).arguments
        question = _question(named)
        answer = self._forks.ask(question, *question.pop("files"))
        popen._close_pipe_fds(*(named[name] for name in _PIPES))
        if "error" in answer:
            raise OSError(*answer["error"])
        self.pid = answer["pid"]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        lock: Any = self._waitpid_lock  # type: ignore[attr-defined]
        if self.returncode is None and lock.acquire(blocking=False):  # as Popen's own
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self.returncode = os.waitstatus_to_exitcode(status)
            finally:
                lock.release()
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        # Popen's own asks the kernel, but the process is a child of another's.
        while True:
            pid, status = self._forks.ask({"wait": self.pid})
            if pid or wait_flags & os.WNOHANG:
                return pid, status
            time.sleep(0.01)


_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def _question(named: Mapping[str, Any]) -> dict[str, Any]:
    """What a process is to become by these arguments of `Popen._execute_child`."""
    files = (named["p2cread"], named["c2pwrite"], named["errwrite"])
    return {
        "command": named["args"],
        "variables": named["env"],
        "folder": str(named["cwd"] or Path.cwd()),
        "session": named["start_new_session"],
        "group": named["process_group"],
        "files": [own if own >= 0 else inherited for inherited, own in enumerate(files)],
    }


class _Again(subprocess.Popen[Any]):
    """A fork's own `subprocess.Popen`."""

    begin: Sequence[str]
    """What a command begins with for which the fork forks itself."""

    def _execute_child(self, *given: Any) -> None:
        popen: Any = super()
        named = inspect.signature(popen._execute_child).bind(*given).arguments
        command, begin = named["args"], list(self.begin)
        if command[: len(begin)] != begin or len([*Path("/proc/self/task").iterdir()]) > 1:
            popen._execute_child(*given)
            return
        self.pid = os.fork()
        if not self.pid:
            wanted = _question(named)
            _run(wanted | {"variables": wanted["variables"] or dict(os.environ)})
        self._child_created = True
        popen._close_pipe_fds(*(named[name] for name in _PIPES))


def _run(wanted: dict[str, Any]) -> NoReturn:
    """Be another process than the one whose stack we are on, which must not go on here."""
    with ExitStack() as end:
        end.push(_end)
        _become(wanted)
        os.closerange(3, 1 << 16)
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(wanted["command"][len(_Again.begin)], main.__dict__)
    raise AssertionError("unreachable")


def _end(kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
    """End the process by this error; what the other one has registered with `atexit` is not ours."""
    status = error.code if isinstance(error, SystemExit) else int(error is not None)
    if kind and error and not isinstance(error, SystemExit):
        sys.excepthook(kind, error, trace)
    if isinstance(status, str):
        print(status, file=sys.stderr)
    sys.stdout.flush()
    os._exit(int(status is not None) if isinstance(status, str | None) else status)


def _serve(asked: socket.socket) -> dict[str, Any]:
    """Answer until all who ask have gone; returns in a fork, with what it is to become."""
    while True:
        text, files, _, _ = socket.recv_fds(asked, _MESSAGE, 3)
        if not text:
            sys.exit()
        question: dict[str, Any] = json.loads(text)
        if "wait" in question:
            asked.send(json.dumps(os.waitpid(question["wait"], os.WNOHANG)).encode())
        elif os.fork() == 0:
            return question | {"files": files}
        for file in files:
            os.close(file)


def _become(wanted: dict[str, Any]) -> None:
    """Make this process what `exec` and the start of Python would have made it."""
    os.chdir(wanted["folder"])
    if wanted["session"]:
        os.setsid()
    elif wanted["group"] >= 0:
        os.setpgid(0, wanted["group"])
    for number, file in enumerate(wanted["files"]):
        os.dup2(file, number)
    variables = {**_COERCED, **wanted["variables"]}
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    _part_with_shared_memory()
    _show(wanted["command"], wanted["variables"])
    sys.orig_argv = wanted["command"]
    option, *arguments = wanted["command"][len(_Again.begin) - 1 :]
    sys.argv = arguments if option == "-m" else [option, *arguments[1:]]
    first = [] if sys.flags.safe_path else [wanted["folder"] if option == "-m" else ""]
    given = [value for name, value in variables.items() if name == "PYTHONPATH"]
    sys.path[:] = [*first, *given, *(path for path in _INSTALLED if path not in given)]
    _open_standard_files(bool(variables.get("PYTHONUNBUFFERED")))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


_INSTALLED = sys.path[not sys.flags.safe_path :]
_COERCED = {name: value for name, value in os.environ.items() if name == "LC_CTYPE"}
"""What Python itself adds to variables that name no locale."""


def _show(command: list[str], variables: dict[str, str]) -> None:
    """Have /proc show these as what the process was executed with, in the room that its first
    arguments and variables have taken.
    """
    # After the name, which may have blanks and parentheses: proc_pid_stat(5), from the third field.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    shown = (command, [f"{name}={value}" for name, value in variables.items()])
    for texts, start, end in zip(shown, fields[45:49:2], fields[46:49:2], strict=True):
        block = b"".join(os.fsencode(text) + b"\0" for text in texts)
        size = int(end) - int(start)
        ctypes.memmove(int(start), block.ljust(size, b"\0")[:size], size)


def _part_with_shared_memory() -> None:
    """Have memory that an import shares with the processes to come be shared with those of this fork
    alone.
    """
    map_memory = ctypes.CDLL(None).mmap
    map_memory.restype = ctypes.c_void_p
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, *_ = line.split()
        if rights == "rw-s" and "/dev/zero" in line:
            start, end = (int(number, 16) for number in place.split("-"))
            address, size = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
            held = ctypes.string_at(start, end - start)
            access = mmap.PROT_READ | mmap.PROT_WRITE
            assert map_memory(address, size, access, flags, -1, ctypes.c_long(0)) == start
            ctypes.memmove(start, held, len(held))


def _open_standard_files(unbuffered: bool) -> None:
    """As Python does at its start, by what they are now."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        file: Any = io.FileIO(number, "w" if number else "r", closefd=False)
        is_terminal = file.isatty()
        file.name = f"<{name}>"
        if not number:
            file = io.BufferedReader(file)
        elif not unbuffered:
            file = io.BufferedWriter(file)
        text = io.TextIOWrapper(
            file,
            encoding="utf-8",
            errors="backslashreplace" if name == "stderr" else "surrogateescape",
            line_buffering=not unbuffered and (name == "stderr" or is_terminal),
            write_through=unbuffered,
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _main() -> None:
    """Import, serve, and in a fork: run the module as `python -m` does."""
    asked = socket.socket(fileno=int(sys.argv[1]))
    # Until what asks has gone, that is: an interrupt goes to all of a terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.path[:] = [str(ROOT), *_INSTALLED]
    for module in sys.argv[3:]:
        importlib.import_module(module)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "an import has started threads"
    executed = sys.orig_argv[: sys.orig_argv.index(__file__)]
    _Again.begin = (*executed, "-c")
    subprocess.Popen = _Again  # type: ignore[misc]
    gc.freeze()  # else each fork copies the pages of all objects when it looks for garbage
    wanted = _serve(asked)
    try:
        _become(wanted)
    except OSError as error:
        asked.send(json.dumps({"error": [error.errno, error.strerror]}).encode())
        os._exit(1)
    asked.send(json.dumps({"pid": os.getpid()}).encode())
    asked.detach()
    os.closerange(3, 1 << 16)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()

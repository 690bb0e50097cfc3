"""A fork is what an executed process is to the tests that look at it."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from forked import ROOT, Forked, Forks
from processes import forking

LOOK = """
import json, os, signal, sys
from pathlib import Path

def shown(name):
    return Path(f"/proc/self/{name}").read_bytes().rstrip(b"\\0").decode().split("\\0")

files = (sys.stdin, sys.stdout, sys.stderr)
handlers = [str(signal.getsignal(number)).split(" at ")[0] for number in signal.valid_signals()]
print(json.dumps({
    "argv": [sys.argv, sys.orig_argv, shown("cmdline")],
    "variables": [dict(os.environ), sorted(shown("environ"))],
    "place": [os.getcwd(), sys.path, os.umask(0o22), sys.flags.safe_path],
    "alone": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "open": len(os.listdir("/proc/self/fd")),
    "files": [(f.name, f.encoding, f.errors, f.line_buffering, f.write_through, f.isatty(),
               type(f.buffer).__name__) for f in files],
    "signals": handlers,
    "main": [__name__, sys.modules["__main__"].__dict__ is globals()],
}, sort_keys=True))
"""
ENDS = {
    "code": "sys.exit(7)",
    "text": "sys.exit('a reason')",
    "error": "print(1 / 0)",
    "interrupt": "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
    "terminated": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "at once": "os._exit(3)",
    "threads": "threading.Timer(0.1, print, ['late']).start(); atexit.register(print, 'last')",
    "own": "subprocess.run(['cat'], check=True); print(sys.stdin.read())",
}
STARTS = """
import subprocess, sys
from pathlib import Path

command = [sys.executable, "-c", Path("code").read_text(), "an argument", ""]
with subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", start_new_session=True) as started:
    started.communicate(b"typed")
    print(started.returncode)
"""
IMPORTS = "import atexit, os, signal, subprocess, sys, threading, time"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    running = Forks("json")
    yield running
    running.close()


@pytest.fixture
def variables() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "é"}


def both(forks: Forks, module: str, **options: Any) -> list["subprocess.Popen[Any]"]:
    """The same, once forked and once executed."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True} | options
    forked = forks.start(module, "an argument", "", **options)
    assert isinstance(forked, Forked)
    command = [sys.executable, *forks.options, "-m", module, "an argument", ""]
    return [forked, subprocess.Popen(command, **options)]


@pytest.mark.parametrize(
    ("more", "alone"),
    [
        ({}, {}),
        ({"PYTHONUNBUFFERED": "1"}, {"start_new_session": True}),
        ({"PYTHONPATH": str(ROOT)}, {"process_group": 0}),
    ],
    ids=["plain", "unbuffered in a session", "path and group"],
)
def test_it_finds_what_it_was_started_with(
    forks: Forks,
    tmp_path: Path,
    variables: dict[str, str],
    more: dict[str, str],
    alone: dict[str, Any],
) -> None:
    (tmp_path / "look.py").write_text(LOOK)
    given = {"cwd": tmp_path, "env": variables | more, **alone}
    forked, executed = (
        json.loads(process.communicate()[0]) for process in both(forks, "look", **given)
    )
    assert forked == executed


def test_a_terminal_is_one(forks: Forks, tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "look.py").write_text(LOOK)
    ours, its = pty.openpty()
    given = {"cwd": tmp_path, "env": variables, "stderr": its, "stdin": its}
    forked, executed = (
        json.loads(process.communicate()[0]) for process in both(forks, "look", **given)
    )
    os.close(ours)
    os.close(its)
    assert forked == executed


def test_a_safe_path_is_without_the_folder_of_the_call(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    forks = Forks("json", options=("-P",))
    given = {"cwd": tmp_path, "env": variables | {"PYTHONPATH": str(ROOT)}}
    forked, executed = (process.communicate() for process in both(forks, "site", **given))
    assert forked == executed
    forks.close()


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_it_ends_as_python_does(
    forks: Forks, tmp_path: Path, variables: dict[str, str], end: str
) -> None:
    (tmp_path / "ending.py").write_text(f"{IMPORTS}\nprint('begun')\n{end}\n")
    given = {"cwd": tmp_path, "env": variables, "stderr": subprocess.PIPE}
    ends = []
    for process in both(forks, "ending", **given):
        out, error = process.communicate("typed", timeout=60)
        ends.append((out, error.splitlines()[-1:], process.returncode))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("end", ["code", "text", "error", "terminated", "at once", "own", None])
def test_what_a_fork_executes_of_its_own_kind_is_as_if_it_were_executed(
    forks: Forks, tmp_path: Path, variables: dict[str, str], end: str | None
) -> None:
    (tmp_path / "starts.py").write_text(STARTS)
    (tmp_path / "code").write_text(LOOK if end is None else f"{IMPORTS}\n{ENDS[end]}\n")
    given = {"cwd": tmp_path, "env": variables, "stderr": subprocess.PIPE}
    outcomes = [process.communicate() for process in both(forks, "starts", **given)]
    assert len({(out, tuple(error.splitlines()[-1:])) for out, error in outcomes}) == 1, outcomes


def test_what_a_fork_executes_of_its_own_kind_has_what_was_imported(
    forks: Forks, tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "starts.py").write_text(STARTS)
    (tmp_path / "code").write_text("import sys; print('json' in sys.modules, flush=True)")
    forked, executed = (
        process.communicate()[0] for process in both(forks, "starts", cwd=tmp_path, env=variables)
    )
    assert (forked, executed) == ("True\n0\n", "False\n0\n")


def test_it_is_killed_and_waited_for(
    forks: Forks, tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "sleeps.py").write_text("import time; print('begun', flush=True); time.sleep(60)")
    given = {"cwd": tmp_path, "env": variables, "start_new_session": True}
    for process in both(forks, "sleeps", **given):
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -9
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


def test_chance_is_not_shared(forks: Forks, tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "chance.py").write_text("import random, uuid; print(random.random(), uuid.uuid4())")
    given: dict[str, Any] = {"cwd": tmp_path, "env": variables, "stdout": subprocess.PIPE}
    assert len({forks.start("chance", **given).communicate()[0] for _ in range(3)}) == 3


def test_memory_that_an_import_shares_is_not_shared_by_forks(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "ends.py").write_text(
        "from tasks.shutdown import begin, seconds; print(seconds(), flush=True); begin()\n"
        "import os; os.fork() or os._exit(print(seconds() is not None, flush=True) or 0); os.wait()"
    )
    forks = Forks("tasks.shutdown")
    given: dict[str, Any] = {"cwd": tmp_path, "env": variables, "stdout": subprocess.PIPE}
    said = {forks.start("ends", text=True, **given).communicate()[0] for _ in range(2)}
    forks.close()
    assert said == {"None\nTrue\n"}


def imported() -> bool:
    return "graft_trial" in sys.modules


def test_processes_of_functions_have_what_was_imported() -> None:
    with forking().Pool(1) as pool:
        assert pool.apply(imported)


def test_what_python_reads_at_its_start_has_it_executed(
    forks: Forks, variables: dict[str, str]
) -> None:
    for name in ("PYTHONPATH", "LC_ALL", "PYTHONWARNINGS"):
        process = forks.start("site", env=variables | {name: "x"}, stdout=subprocess.DEVNULL)
        process.wait()
        assert not isinstance(process, Forked)


def test_a_folder_that_is_missing_is_an_error(
    forks: Forks, tmp_path: Path, variables: dict[str, str]
) -> None:
    with pytest.raises(FileNotFoundError):
        forks.start("site", cwd=tmp_path / "x", env=variables)


def test_whoever_asks_while_another_waits_takes_no_end_away(
    forks: Forks, variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "ends.py").write_text("")
    for _ in range(20):
        started = forks.start("ends", env=variables, cwd=tmp_path)
        polls = map(Forked.poll, repeat(started))
        asking = threading.Thread(target=all, args=((end is None for end in polls),))
        asking.start()
        assert started.wait() == 0
        asking.join()
        assert started.returncode == 0
